"Honest splits: nobody on both sides, every class where it is needed, and the same again by the seed."
import itertools
from collections import Counter, defaultdict
import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold
from tamers.core import EMOTIONS, SPLITS, TamersError
from tamers.data.corpus import Utterance
from tamers.data.partition import (default_by, deal, fold_names, folds, known, leaks, partition, read_partition,
                                   together, write_partition)


def said(i, label, speaker=None, dialogue=None, audio=None, text='', split='train'):
    return Utterance(f'u{i:05}', split, text, label, audio, speaker, dialogue)


def random_corpus(seed, speakers=None):
    "Speakers who say 1 to 80 rows each, in moods of their own, in dialogues of about six rows."
    rng = np.random.default_rng(seed)
    rows, classes = [], rng.integers(2, 8)
    for s in range(speakers or rng.integers(6, 40)):
        mood, start = rng.dirichlet([2] * classes), len(rows)
        rows += [said(start + i, EMOTIONS[rng.choice(classes, p=mood)], f's{s}', f's{s} d{i // 6}')
                 for i in range(rng.integers(1, 80))]
    return rows


def grouped(rows, splits, by):
    "{speaker or dialogue: its splits}"
    found = defaultdict(set)
    for u, s in zip(rows, splits): found[known(u, by)].add(s)
    return found


def rows_of(speakers, n=30):
    "The classes in turn, for each speaker."
    return [said(100 * s + i, EMOTIONS[i % 7], f's{s}', f's{s} d{i // 10}') for s in range(speakers) for i in range(n)]


@pytest.mark.parametrize('seed', range(25))
def test_nobody_is_on_both_sides(seed):
    rows = random_corpus(seed)
    for by in ('speaker', 'dialogue'):
        splits, _ = partition(rows, by, seed=seed)
        assert set(splits) == set(SPLITS)
        assert {len(s) for s in grouped(rows, splits, by).values()} == {1}
        assert not [line for line in leaks(rows, splits) if line.startswith(by)]


@pytest.mark.parametrize('seed', range(25))
def test_every_class_is_in_train(seed):
    rows = random_corpus(seed)
    for by in ('speaker', 'dialogue', 'random'):
        splits, _ = partition(rows, by, seed=seed)
        assert {u.label for u, s in zip(rows, splits) if s == 'train'} == {u.label for u in rows}


@pytest.mark.parametrize('by, apart', [('speaker', .06), ('dialogue', .03), ('random', .02)])
def test_shares_are_near_by_class(by, apart):
    for seed in range(5):
        rows = random_corpus(seed, speakers=60)
        splits = np.array(partition(rows, by, seed=seed)[0])
        for rows_in in [np.ones(len(rows), bool), *(np.array([u.label == e for u in rows]) for e in EMOTIONS)]:
            if rows_in.sum() < 100: continue
            found = [(splits[rows_in] == s).mean() for s in SPLITS]
            assert np.abs(np.array(found) - (.7, .15, .15)).max() < apart + 3 / rows_in.sum()


def test_the_search_is_near_the_best_of_all():
    shares = np.array((.7, .15, .15))
    for seed in range(12):
        rng = np.random.default_rng(seed)
        counts = rng.poisson(30 * rng.dirichlet([2] * 3, 7)) + 1
        all_rows = np.c_[counts, counts.sum(1)]
        want = np.outer(shares, all_rows.sum(0))

        def cost(place):
            have = np.array([all_rows[np.array(place) == s].sum(0) for s in range(3)])
            return np.inf if (have == 0).any() else ((have - want)**2 / want).sum()
        best = min(map(cost, itertools.product(range(3), repeat=7)))
        assert cost(deal(counts, shares, (100, 1, 1), seed)) <= 1.02 * best


def test_a_rare_class_is_in_every_split_where_it_can_be():
    rows = rows_of(12)
    for s in (3, 7, 8): rows.append(said(9000 + s, 'contempt', f's{s}', f's{s} d0'))
    splits, notes = partition(rows)
    assert {s for u, s in zip(rows, splits) if u.label == 'contempt'} == set(SPLITS) and not notes
    rows.pop()
    splits, notes = partition(rows)
    assert len([note for note in notes if note in ('dev has no contempt', 'test has no contempt')]) == 1
    rows.pop()
    splits, notes = partition(rows)
    assert {'dev has no contempt', 'test has no contempt'} <= set(notes)


def test_the_seed_and_not_the_order_of_rows_decides():
    rows = random_corpus(3)
    turned = np.random.default_rng(0).permutation(len(rows))
    for by in ('speaker', 'dialogue', 'random'):
        splits = partition(rows, by, seed=4)[0]
        assert partition(rows, by, seed=4)[0] == splits
        assert partition([rows[i] for i in turned], by, seed=4)[0] == [splits[i] for i in turned]
    assert partition(rows, 'random', seed=5)[0] != splits


def test_the_split_of_before_plays_no_part():
    rows = rows_of(9)
    before = partition(rows)[0]
    for u in rows: u.split = ''
    assert partition(rows)[0] == before


def test_numbered_dialogues_are_counted_in_each_split():
    rows = [said(i, 'joy', dialogue=i % 4, split=SPLITS[i % 3]) for i in range(48)]
    splits, _ = partition(rows, 'dialogue')
    assert {len(s) for s in grouped(rows, splits, 'dialogue').values()} == {1}
    assert len(grouped(rows, splits, 'dialogue')) == 12
    assert leaks(rows, [u.split for u in rows]) == []


def test_rows_without_a_speaker_stay_with_their_dialogue_or_clip():
    rows = rows_of(6) + [said(9000 + i, 'joy', dialogue='unknown') for i in range(5)]
    rows += [said(9100 + i, 'joy', audio='same.wav') for i in range(5)]
    splits, notes = partition(rows)
    assert len(set(splits[-10:-5])) == len(set(splits[-5:])) == 1
    assert '10 of 190 rows have no speaker, and may share one with another split' in notes


def test_a_random_split_keeps_equal_clips_together():
    rows = [said(i, EMOTIONS[i % 7], audio=f'{i // 2}.wav') for i in range(140)]
    splits, notes = partition(rows, 'random')
    assert leaks(rows, splits) == [] and notes[0].startswith('a random split flatters')


@pytest.mark.parametrize('dialogues, unit', [(True, 'dialogue'), (False, 'random')])
def test_two_speakers_share_train_and_dev(dialogues, unit):
    rows = rows_of(2, n=70)
    if not dialogues: rows = [said(i, u.label, u.speaker) for i, u in enumerate(rows)]
    splits, notes = partition(rows)
    assert sorted(map(sorted, grouped(rows, splits, 'speaker').values())) == [['dev', 'train'], ['test']]
    assert notes[0] == (f'too few speakers for three splits: dev is taken from train, by {unit}; '
                        'scores on dev flatter')
    assert dialogues is (max(map(len, grouped(rows, splits, 'dialogue').values())) == 1)


def test_three_speakers_have_a_split_each():
    splits, _ = partition(rows_of(3))
    assert len(set(zip([u.speaker for u in rows_of(3)], splits))) == len(set(splits)) == 3


def test_speakers_whom_train_needs_lend_dev_to_nobody():
    rows = [u for u in rows_of(3) if u.label != 'fear' or u.speaker == 's0']
    rows = [u for u in rows if u.label != 'joy' or u.speaker == 's1']
    splits, notes = partition(rows)
    assert {s for u, s in zip(rows, splits) if u.speaker == 's2'} == {'test'}
    assert notes[0].startswith('too few speakers') and 'test has no fear, joy' in notes


@pytest.mark.parametrize('rows, options, problem', [
    (rows_of(1), {}, 'all 30 utterances are of speaker s0, none is left to test on; pass --split-by random'),
    (rows_of(1, n=9), dict(by='dialogue'), 'all 9 utterances are of dialogue s0 d0'),
    ([said(i, 'joy') for i in range(9)], {}, 'no speaker is known of these 9 utterances; pass --split-by random'),
    ([], {}, 'no speaker is known of these 0'), ([], dict(by='random'), '0 clips cannot be split in three'),
    (rows_of(1, n=2), dict(by='random'), '2 clips cannot be split in three'),
    ([said(1, 'joy', 'a'), said(2, 'joy', 'b')], {}, 'u00001: the only clip|u00002: the only clip'),
    ([said(1, 'joy', 'a'), said(2, 'fear', 'b')], {}, 'only one speaker has fear, joy; add rows, or pass'),
    (rows_of(3), dict(by='speakers'), "must be one of speaker, dialogue, random. Did you mean 'speaker'"),
    (rows_of(3), dict(shares=(.8, .2)), 'must be three numbers above 0'),
    (rows_of(3), dict(shares=(.8, .2, 0)), 'must be three numbers above 0'),
    (rows_of(3), dict(shares=(.8, .2, float('nan'))), 'must be three numbers above 0')])
def test_what_cannot_be_split_is_refused(rows, options, problem):
    with pytest.raises(TamersError, match=problem): partition(rows, **options)


def test_the_default_is_the_most_honest_that_can_be_had():
    rows = rows_of(4)
    assert default_by(rows) == ('speaker', [])
    for u in rows[:6]: u.speaker = None
    assert default_by(rows)[0] == 'speaker'
    for u in rows[6:12]: u.speaker = None
    assert default_by(rows) == ('dialogue', ['no three speakers are known of nearly all rows: split by dialogue'])
    assert default_by(rows_of(2))[0] == 'dialogue'
    by, notes = default_by([said(i, 'joy') for i in range(9)])
    assert by == 'random' and 'split at random' in notes[0]


@pytest.mark.parametrize('k', [2, 3, 5, 'loso'])
@pytest.mark.parametrize('seed', range(3))
def test_every_row_is_tested_once(k, seed):
    rows = random_corpus(seed, speakers=12)
    found = folds(rows, k, seed=seed)
    assert len(found) == (12 if k == 'loso' else k)
    assert ((np.array([f['splits'] for f in found]) == 'test').sum(0) == 1).all()
    for f in found:
        assert set(f['splits']) == set(SPLITS)
        assert {len(s) for s in grouped(rows, f['splits'], 'speaker').values()} == {1}
        if k == 'loso': assert {u.speaker for u, s in zip(rows, f['splits']) if s == 'test'} == {f['name']}
    assert folds(rows, k, seed=seed) == folds(rows, fold_names(found), seed=seed) == found


def test_folds_are_of_equal_size_and_named_in_order():
    rows = rows_of(25)
    found = folds(rows, 12, 'dialogue')
    assert [f['name'] for f in found] == [str(i) for i in range(1, 13)]
    sizes = Counter(fold_names(folds(rows, 5))).values()
    assert max(sizes) == min(sizes) == 150


def test_folds_are_more_even_than_those_of_one_order():
    ours, theirs = [], []
    for seed in range(4):
        rows = random_corpus(seed, speakers=40)
        labels = np.array([u.label for u in rows])

        def unevenness(of):
            counts = np.array([[(labels[of == f] == e).sum() for e in np.unique(labels)] for f in np.unique(of)])
            return ((counts - counts.mean(0))**2 / counts.mean(0)).sum()
        dealt = np.empty(len(rows), int)
        search = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for fold, (_, test) in enumerate(search.split(labels, labels, together(rows))): dealt[test] = fold
        ours.append(unevenness(np.array(fold_names(folds(rows, 5, seed=seed)))))
        theirs.append(unevenness(dealt))
    assert sum(ours) < .75 * sum(theirs)


def test_a_fold_says_what_it_lacks():
    rows = [u for u in rows_of(6) if u.label != 'fear' or u.speaker == 's0']
    notes = {f['name']: f['notes'] for f in folds(rows, 'loso')}
    assert 'fold s0: train has no fear' in notes['s0']
    assert all('test has no fear' in note for note in notes['s3'] if 'test' in note) and notes['s3']
    notes = [f['notes'] for f in folds(rows_of(2), 'loso')]
    assert all('dev is taken from the speaker in train, by dialogue' in n[-1] for n in notes)


@pytest.mark.parametrize('k, options, problem', [
    (1, {}, "must be a whole number from 2, or 'loso'"), (True, {}, 'a whole number'), ('five', {}, 'a whole number'),
    (4, {}, '3 speakers cannot fill 4 folds; pass 3 at most'),
    ('loso', dict(by='dialogue'), 'loso leaves out speakers'),
    (3, dict(dev=1.), 'must lie between 0 and 1'), (['a'] * 9, {}, '90 utterances, 9 folds'),
    (['a'] * 90, {}, 'fold a is the only one'), (['a', 'b'] * 45, dict(by='speakers'), "Did you mean 'speaker'")])
def test_folds_that_cannot_be_are_refused(k, options, problem):
    with pytest.raises(TamersError, match=problem): folds(rows_of(3), k, **options)


def test_loso_needs_every_speaker():
    rows = rows_of(3)
    rows[5].speaker = None
    with pytest.raises(TamersError, match='these have none: u00005; add them'): folds(rows, 'loso')
    with pytest.raises(TamersError, match='speaker s0, none is left'): folds(rows_of(1), 'loso')


def test_a_file_brings_back_what_was_written(tmp_path):
    rows, path = rows_of(5), tmp_path/'new'/'split.csv'
    for u, id in zip(rows, ('=1+1', '-3', "'quoted", 'a,"b"', 'two\nlines', 'a;b;c', 'naïve ☃', '\tx\xa0')): u.id = id
    for splits in (partition(rows)[0], fold_names(folds(rows, 3)), fold_names(folds(rows, 'loso'))):
        write_partition(path, rows, splits)
        assert read_partition(path, rows) == splits
        assert read_partition(path, rows[::-1]) == splits[::-1]
    assert [p.name for p in path.parent.iterdir()] == ['split.csv']
    assert b'=1+1,' in path.read_bytes() and path.read_bytes().startswith(b'id,fold')


def test_published_tables_are_read_by_file(tmp_path):
    rows = [said(i, 'joy', audio=f'/data/x/s{i // 2}/{i % 2}.wav') for i in range(4)]
    path = tmp_path/'folds.tsv'
    path.write_text('fold\tfile\n2\t./s1/0.wav\n1\t./s0/0.wav\n1\t./s0/1.wav\n2\t./s1/1.wav\n')
    assert read_partition(path, rows) == ['1', '1', '2', '2']
    path.write_text('file,fold\n' + ''.join(f'{u.audio},{i}\n' for i, u in enumerate(rows)))
    assert read_partition(path, rows) == ['0', '1', '2', '3']
    path.write_text('file,fold\n0.wav,1\n1.wav,1\n')
    with pytest.raises(TamersError, match='more than one row for 0.wav, 1.wav'): read_partition(path, rows)


def test_names_of_splits_are_read_as_manifests_have_them(tmp_path):
    path = tmp_path/'s.csv'
    path.write_text('id,split\nu00000,Validation\nu00001,training\nu00002,test\n')
    assert read_partition(path, rows_of(1)[:3]) == ['dev', 'train', 'test']


@pytest.mark.parametrize('text, problem', [
    ('id,split\nu00000,dev\nu9,test\n', r'it lacks 1 \(u00001\); 1 are not in the corpus \(u9\)\. Mend the table'),
    ('id,split\nu00000,dev\n', r'rows of this corpus: it lacks 1 \(u00001\)\. Mend'),
    ('id,split\nu00000,dev\nu00001,tests\n', "unknown split 'tests'"),
    ('id,split\nu00000,dev\nu00001,eval\n', 'dev and eval both mean the dev split'),
    ('id,fold\nu00000,1\nu00001,\n', 'line 3: no fold'),
    ('id,fold\nu00000,1\nu00000,2\n', 'more than one row for u00000'),
    ('name,fold\nu00000,1\n', 'has name, fold; it must have one column id or file'),
    ('id,fold,split\nu00000,1,dev\n', 'one column split or fold'), ('id,fold\n', 'has no rows'), ('', 'has no rows'),
    ('file,fold\na.wav,1\n', 'more than one row for')])
def test_a_wrong_file_is_refused(tmp_path, text, problem):
    path = tmp_path/'s.csv'
    path.write_text(text)
    with pytest.raises(TamersError, match=problem): read_partition(path, rows_of(1)[:2])
    with pytest.raises(TamersError, match='cannot be read'): read_partition(tmp_path/'none.csv', rows_of(1)[:2])


def test_what_cannot_be_kept_is_not_written(tmp_path):
    rows = rows_of(1)[:2]
    rows[1].id = rows[0].id
    with pytest.raises(TamersError, match='more than one row for u00000'):
        write_partition(tmp_path/'s.csv', rows, ['dev', 'dev'])
    rows[1].id = 'bad\udcff'
    with pytest.raises(TamersError, match='not text in UTF-8; rename it'):
        write_partition(tmp_path/'s.csv', rows, ['dev', 'dev'])
    assert not list(tmp_path.iterdir())
    (tmp_path/'file').touch()
    with pytest.raises(TamersError, match='cannot be written'):
        write_partition(tmp_path/'file'/'s.csv', rows_of(1), ['dev'] * 30)


def test_leaks_names_what_is_on_both_sides():
    rows = [said(0, 'joy', 'Ann', 'd1', 'a.wav', 'Oh, my GOD!'), said(1, 'joy', 'Ann', 'd1', 'a.wav', 'oh my god'),
            said(2, 'joy', 'Bob', 'd2', 'b.wav', 'no'), said(3, 'joy')]
    assert [line.split('(')[-1] for line in leaks(rows, ['train', 'test', 'dev', 'dev'])][:2] == [
        'Ann: train, test)', 'd1: train, test)']
    assert leaks(rows, ['train', 'test', 'dev', 'dev'])[3] == (
        'transcripts in two splits or more: 1, with 2 of 4 rows (oh my god: train, test)')
    assert leaks(rows, ['train', 'train', 'dev', 'test']) == []
    assert 'speakers in two splits or more: 1, with 2 of 4 rows (Ann: 1, 2)' in leaks(rows, ['1', '2', '2', '2'])
