"Loading MELD in every layout it is found in, manifests, the text alone, and what is said about bad input."
import csv
import errno
import json
import os
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
import soundfile

from tests.harness.meld_tree import (COLUMNS, KEPT, LEFT_OUT, ROWS, SECONDS, clock, make_tree, tone,
                                     write_clip, write_mp4, write_table)
from tamers.data.audio import load_audio, probe
from tamers.core import EMOTIONS, TamersError
from tamers.data.corpus import Utterance, count_table, normalise
from tamers.data.tables import csv_rows, jsonl_rows, read_text
from tamers.data.load import load_corpus, span


def ids(corpus): return [(u.split, u.id) for u in corpus.utterances]


@pytest.fixture(scope='module')
def archive(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp('archive')/'MELD')


# ---- MELD, as people have it ----

SUMMARY = """MELD: 13 utterances, 2 left out

|          |    train |      dev |     test |      all |
|----------|----------|----------|----------|----------|
| rows     |        7 |        2 |        4 |       13 |
| hours    | 0.002319 |0.0005556 | 0.001667 | 0.004542 |
| anger    |        1 |        0 |        1 |        2 |
| disgust  |        1 |        0 |        0 |        1 |
| fear     |        0 |        1 |        0 |        1 |
| joy      |        1 |        0 |        1 |        2 |
| neutral  |        2 |        1 |        1 |        4 |
| sadness  |        1 |        0 |        0 |        1 |
| surprise |        1 |        0 |        1 |        2 |

Left out (2):

- cannot be decoded as audio (1): train dia125_utt3
- no clip (1): dev dia110_utt7

Noticed:

- AppleDouble files, ignored: 3 (._dia0_utt0.mp4, ._dia0_utt0.mp4, ._dia0_utt1.mp4)
- leftovers of the archive, ignored: 2 (final_videos_testdia3_utt0.mp4, final_videos_testdia3_utt1.mp4)
- dev: clips without a row, ignored: 2 (dia66_utt9, dia66_utt10)
- test: clips without a row, ignored: 1 (dia108_utt2)
- test: rows with impossible times: 2 (dia9_utt0 (0 s), dia9_utt1 (300 s))
- test: clips longer or shorter than their row says, by more than 0.25 s: 2 (dia3_utt0, dia3_utt1); \
the length of the clip counts
- dev: rows whose transcript occurs in train: 1 of 2
- test: rows whose transcript occurs in train: 1 of 4"""


def without_hours(summary): return [line for line in summary.split('\n') if not line.startswith('| hours')]


def test_archive_summary(archive):
    corpus = load_corpus(archive)
    assert without_hours(corpus.summary()) == without_hours(SUMMARY)
    hours = next(line for line in corpus.summary().split('\n') if line.startswith('| hours')).split('|')[2:-1]
    wanted = [sum(t for (s, _), t in SECONDS.items() if s == split)/3600 for split in ROWS]
    assert [float(h) for h in hours] == pytest.approx([*wanted, sum(wanted)], rel=0.02)
    assert corpus._repr_markdown_() == corpus.summary() and str(archive) not in repr(corpus)


def test_archive_utterances(archive):
    corpus = load_corpus(archive)
    assert ids(corpus) == KEPT                              # by dialogue and utterance number, 10 after 2, not by time
    assert [(s, i) for s, i, _ in corpus.left_out] == LEFT_OUT
    assert str(archive/'train_splits') not in corpus.left_out[0][2].split('(')[0]
    for u in corpus.utterances: assert u.seconds == pytest.approx(SECONDS[u.split, u.id], abs=0.03)
    first = corpus.split('train')[0]
    assert first == Utterance('dia0_utt0', 'train', 'What?', 'surprise', str(archive/'train_splits'/'dia0_utt0.mp4'),
                              'Vera', 0, 0, first.seconds)
    assert corpus.utterances[2].text == '“Splendid”, he said…'


@pytest.mark.parametrize('layout, video', [('5.1', False), ('5.1', True), ('stereo', True), ('mono', False)])
def test_films_decode(tmp_path, layout, video):
    write_mp4(tmp_path/'a.mp4', 1.3, layout, video)
    assert probe(tmp_path/'a.mp4') == pytest.approx(1.3, abs=0.03)
    assert len(load_audio(tmp_path/'a.mp4'))/16_000 == pytest.approx(1.3, abs=0.05)


def test_archive_nested_in_folders_of_the_split(tmp_path, archive):
    (tmp_path/'MELD.Raw').mkdir()
    for split, home in dict(train='train_splits', dev='dev_splits_complete',
                            test='output_repeated_splits_test').items():
        shutil.copytree(archive/home, tmp_path/'MELD.Raw'/split/home)
    for table in archive.rglob('*.csv'): shutil.copy(table, tmp_path/'MELD.Raw'/table.relative_to(archive))
    for root in (tmp_path/'MELD.Raw', tmp_path): assert ids(load_corpus(root)) == KEPT      # the folder above will do


@pytest.mark.parametrize('ending', ['.wav', '.flac', '.ogg', '.mp3'])
def test_extracted_audio(tmp_path, ending):
    root = make_tree(tmp_path/'MELD', 'extracted', ending=ending)
    assert list(root.rglob(f'._*{ending}'))         # AppleDouble files, which libsndfile stumbles over
    corpus = load_corpus(root)
    assert ids(corpus) == KEPT and [(s, i) for s, i, _ in corpus.left_out] == LEFT_OUT
    assert {Path(u.audio).suffix for u in corpus.utterances} == {ending}
    if ending in ('.wav', '.flac'): assert {(u.split, u.id): u.seconds for u in corpus.utterances} == SECONDS


def test_endings_in_capitals(tmp_path):
    root = make_tree(tmp_path/'MELD', 'extracted')
    for clip in root.rglob('dia*.wav'): clip.rename(clip.with_suffix('.WAV'))
    assert ids(load_corpus(root)) == KEPT


def test_extracted_audio_wins_over_film(tmp_path, archive):
    shutil.copytree(archive, tmp_path/'MELD')
    for clip, seconds in (('train/dia0_utt0.flac', 0.7), ('train/dia125_utt3.wav', 1.)):
        (tmp_path/'MELD'/clip).parent.mkdir(exist_ok=True)
        write_clip(tmp_path/'MELD'/clip, seconds)
    corpus = load_corpus(tmp_path/'MELD')
    found = {u.id: (Path(u.audio).suffix, u.seconds) for u in corpus.split('train')}
    assert found['dia0_utt0'] == ('.flac', 0.7) and found['dia125_utt3'] == ('.wav', 1.)
    assert found['dia0_utt1'][0] == '.mp4'
    assert [(s, i) for s, i, _ in corpus.left_out] == LEFT_OUT[1:]


@pytest.mark.parametrize('name', ['eval', 'val', 'valid', 'validation'])
def test_other_names_of_dev(tmp_path, name):
    root = make_tree(tmp_path/'MELD', 'extracted', dev=name)
    assert (root/f'{name}_sent_emo.csv').exists() and (root/name).is_dir()
    assert ids(load_corpus(root)) == KEPT


def test_table_named_dev_with_clips_in_eval(tmp_path):
    root = make_tree(tmp_path/'MELD', 'extracted')
    (root/'dev').rename(root/'eval')
    assert ids(load_corpus(root)) == KEPT


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'cp1252', 'older'])
def test_every_encoding_gives_the_same_words(tmp_path, encoding):
    root = make_tree(tmp_path/'MELD', 'extracted', encoding=encoding)
    said = {(u.split, u.id): u.text for u in load_corpus(root).utterances}
    texts = {(s, f'dia{r[0]}_utt{r[1]}'): r[4] for s in ROWS for r in ROWS[s]}
    assert said == {key: texts[key] for key in SECONDS}


def test_bytes_unknown_to_cp1252_do_no_harm(tmp_path):
    (tmp_path/'a.txt').write_bytes(b'a\x81b\x92c')
    assert read_text(tmp_path/'a.txt') == 'a\x81b’c'


def test_no_test_split(tmp_path):
    corpus = load_corpus(make_tree(tmp_path/'MELD', 'extracted', splits=('train', 'dev')))
    assert ids(corpus) == [k for k in KEPT if k[0] != 'test']
    assert any(note.startswith('test: no rows') for note in corpus.notes)


def test_each_folder_is_listed_once_and_nothing_is_searched(archive, monkeypatch):
    folders, listed, scandir = [archive, *(d for d in archive.rglob('*') if d.is_dir())], Counter(), os.scandir
    monkeypatch.setattr(os, 'scandir', lambda path: listed.update([str(path)]) or scandir(path))
    load_corpus(archive, probe=lambda path: 1.)
    assert listed == {str(p): 1 for p in folders}


def test_no_progress_bar_outside_a_terminal(archive, capfd):
    load_corpus(archive, probe=lambda path: 1.)
    out, err = capfd.readouterr()
    assert out == err == ''


def test_a_long_list_of_names_is_cut_in_the_summary_only(tmp_path):
    root = make_tree(tmp_path/'MELD', 'extracted')
    gone = [(200, i, 'Vera', 'joy', 'Gone.', 1, 1, 'missing') for i in range(25)]
    write_table(root/'train_sent_emo.csv', ROWS['train'] + gone)
    corpus = load_corpus(root)
    assert 'no clip (26): train dia200_utt0, train dia200_utt1,' in corpus.summary()
    assert 'and 16 more' in corpus.summary()
    assert len(corpus.left_out) == 27


def test_drop_names_what_went_and_why(archive):
    corpus = load_corpus(archive)
    fewer = corpus.drop({('test', 'dia3_utt0'): f'{corpus.split("test")[0].audio}: truncated: half of it'})
    assert ids(fewer) == [k for k in KEPT if k != ('test', 'dia3_utt0')]
    assert fewer.left_out == corpus.left_out + [('test', 'dia3_utt0', 'truncated: half of it')]
    assert len(corpus.split('test')) == 4                   # the old one is as it was
    with pytest.raises(TamersError, match=r'no usable row in dev: silent \(2\): dev dia0_utt0, dev dia0_utt2'):
        corpus.drop({('dev', 'dia0_utt0'): 'silent', ('dev', 'dia0_utt2'): 'silent'})


def test_broken_rows_of_meld_stop_the_run_if_asked(archive):
    with pytest.raises(TamersError) as e: load_corpus(archive, skip_bad=False)
    clip = archive/'train_splits'/'dia125_utt3.mp4'
    for part in (f'{archive}: broken rows: 2\n', f'train dia125_utt3 ({clip}): cannot be decoded',
                 'dev dia110_utt7: no clip', '--skip-bad'):
        assert part in str(e.value)


@pytest.mark.parametrize('skip_bad, meld, own', [(None, False, True), (True, False, False), (False, True, True)])
def test_who_is_strict(tmp_path, skip_bad, meld, own):
    root = make_tree(tmp_path/'MELD', 'extracted')
    write_clip(root/'train'/'dia125_utt3.wav', 1.)
    write_clip(root/'dev'/'dia110_utt7.wav', 1.)
    corpora = [load_corpus(r, skip_bad=skip_bad) for r in (root, manifest(tmp_path/'own', GOOD + ['a.wav,Hi,joy,dev']))]
    assert [c.strict for c in corpora] == [meld, own] and not any(c.left_out for c in corpora)
    for corpus in corpora:                                  # a clip that fails later, in an encoder
        u = corpus.split('dev')[0]
        reasons = {(u.split, u.id): f'{u.audio}: truncated: half of it'}
        if corpus.strict:
            with pytest.raises(TamersError) as e: corpus.drop(reasons)
            assert str(e.value) == (f'{corpus.root}: broken rows: 1\n  dev {u.id} ({u.audio}): truncated: half of it\n'
                                    'Mend these rows, or pass --skip-bad to leave them out')
        else:
            fewer = corpus.drop(reasons)
            assert fewer.left_out == [('dev', u.id, 'truncated: half of it')]
            assert fewer.strict is corpus.strict and fewer.notes == corpus.notes
        assert corpus.drop({}).utterances == corpus.utterances


def test_empty_transcript_and_dangling_link_are_left_out(tmp_path):
    root = make_tree(tmp_path/'MELD', 'extracted')
    write_table(root/'dev_sent_emo.csv', ROWS['dev'] + [(1, 0, 'Kit', 'joy', '  ', 1, 1, 1.)])
    write_clip(root/'dev'/'dia1_utt0.wav', 1.)
    (root/'test'/'dia9_utt1.wav').unlink()
    (root/'test'/'dia9_utt1.wav').symlink_to(root/'nowhere.wav')
    reasons = {(s, i): r for s, i, r in load_corpus(root).left_out}
    assert reasons['dev', 'dia1_utt0'] == 'empty transcript' and reasons['test', 'dia9_utt1'] == 'no clip'
    assert ('train', 'dia10_utt0') not in reasons           # "!" is a transcript


# ---- manifests ----

def manifest(folder, rows, name='manifest.csv', header='audio,text,label,split', clips=('a.wav', 'b.wav', 'c.wav')):
    "A folder with clips and a manifest of these lines."
    folder.mkdir(exist_ok=True)
    for clip in clips: write_clip(folder/clip, 0.5)
    (folder/name).write_text('\n'.join([*([header] if header else []), *rows, '']), encoding='utf-8')
    return folder


GOOD = ['a.wav,Hi there,joy,train', 'b.wav,"Well, no",Anger,dev', 'c.wav,Oh,fear,test']


def test_manifest_csv(tmp_path):
    corpus = load_corpus(manifest(tmp_path/'own', GOOD))
    assert [(u.split, u.id, u.text, u.label, u.audio, u.seconds) for u in corpus.utterances] == [
        ('train', 'a.wav', 'Hi there', 'joy', str(tmp_path/'own'/'a.wav'), 0.5),
        ('dev', 'b.wav', 'Well, no', 'anger', str(tmp_path/'own'/'b.wav'), 0.5),
        ('test', 'c.wav', 'Oh', 'fear', str(tmp_path/'own'/'c.wav'), 0.5)]
    assert load_corpus(tmp_path/'own'/'manifest.csv').utterances == corpus.utterances


def test_manifest_jsonl_is_the_same(tmp_path):
    rows = [dict(zip(('audio', 'text', 'label', 'split'), line)) for line in
            (('a.wav', 'Hi there', 'joy', 'train'), ('b.wav', 'Well, no', 'ANGER', 'dev'),
             ('c.wav', 'Oh', 'fear', 'test'))]
    root = manifest(tmp_path/'own', [json.dumps({**r, 'speaker': None, 'turn': 4}) for r in rows] + ['', '  '],
                    'manifest.jsonl', header='')
    corpus = load_corpus(root)
    assert [(u.split, u.id, u.text, u.label, u.speaker, u.turn) for u in corpus.utterances] == [
        ('train', 'a.wav', 'Hi there', 'joy', None, 4), ('dev', 'b.wav', 'Well, no', 'anger', None, 4),
        ('test', 'c.wav', 'Oh', 'fear', None, 4)]


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'cp1252'])
def test_manifest_of_a_spreadsheet(tmp_path, encoding):
    root = manifest(tmp_path/'own', GOOD + ['a.wav,It’s “me”…,joy,dev'])
    (root/'manifest.csv').write_bytes((root/'manifest.csv').read_text(encoding='utf-8').encode(encoding))
    assert [u.text for u in load_corpus(root).utterances] == ['Hi there', 'Well, no', 'It’s “me”…', 'Oh']


@pytest.mark.parametrize('separator', [';', '\t'])
def test_manifest_with_another_separator(tmp_path, separator):
    rows = ['a.wav,Hi there,joy,train', 'b.wav,no,joy,dev', 'c.wav,Oh,fear,test']
    root = manifest(tmp_path/'own', [r.replace(',', separator) for r in rows],
                    header=separator.join(('audio', 'text', 'label', 'split')))
    assert len(load_corpus(root).utterances) == 3


@pytest.mark.parametrize('train, dev, test', [('train', 'eval', 'test'), ('Training', 'validation', 'testing'),
                                              ('train', 'val', 'TEST'), ('train', 'valid', 'test')])
def test_manifest_names_of_splits(tmp_path, train, dev, test):
    root = manifest(tmp_path/'own', [f'a.wav,Hi,joy,{train}', f'b.wav,Hi,joy,{dev}', f'c.wav,Hi,joy,{test}'])
    assert [u.split for u in load_corpus(root).utterances] == ['train', 'dev', 'test']


def test_manifest_order_ids_and_absolute_paths(tmp_path):
    header = 'audio,text,label,split,id,speaker,dialogue,turn'
    absolute = tmp_path/'elsewhere.wav'
    write_clip(absolute, 0.5)
    root = manifest(tmp_path/'own', ['a.wav,four,joy,dev,,,,', 'a.wav,two,joy,train,,Ann,z,10',
                                     f'{absolute},three,joy,train,,,a,0',
                                     'a.wav,one,joy,train,,Bo,z,9', 'a.wav,five,joy,dev,mine,,,'], header=header)
    us = load_corpus(root, allow_outside=True).utterances
    assert [(u.text, u.id) for u in us] == [('one', 'a.wav#2'), ('two', 'a.wav'), ('three', str(absolute)),
                                            ('four', 'a.wav'), ('five', 'mine')]
    assert (us[0].speaker, us[0].dialogue, us[0].turn) == ('Bo', 'z', 9)
    assert us[2].audio == str(absolute) and us[3].dialogue is None


def test_manifest_reports_all_broken_rows_at_once(tmp_path):
    rows = GOOD + ['gone.wav,Hi,joy,train', 'a.wav,   ,joy,train', ',Hi,joy,dev', 'bad.wav,Hi,joy,test']
    rows += [f'g{i}.wav,Hi,joy,train' for i in range(8)]
    root = manifest(tmp_path/'own', rows)
    (root/'bad.wav').write_bytes(b'no sound')
    with pytest.raises(TamersError) as e: load_corpus(root)
    assert str(e.value).startswith(f'{root}: broken rows: 12\n')
    assert str(e.value).count('\n') == 12          # the heading, ten rows, how many more there are, the cure
    for part in (f'train gone.wav ({root/"gone.wav"}): no clip', f'train a.wav#2 ({root/"a.wav"}): empty transcript',
                 'and 2 more', 'Mend these rows, or pass --skip-bad'):
        assert part in str(e.value), str(e.value)
    corpus = load_corpus(root, skip_bad=True)
    assert len(corpus.utterances) == 3 and len(corpus.left_out) == 12
    assert 'no clip (10)' in corpus.summary() and 'cannot be decoded as audio (1): test bad.wav' in corpus.summary()


def test_rows_without_audio_have_a_name(tmp_path):
    root = manifest(tmp_path/'own', GOOD + [',Hi,joy,train', ',Hi,joy,dev', ',Hi,joy,train'])
    left_out = [(s, i) for s, i, _ in load_corpus(root, skip_bad=True).left_out]
    assert left_out == [('train', 'line5'), ('train', 'line7'), ('dev', 'line6')]


# ---- the text alone ----

def no_probe(path): raise AssertionError(f'{path} was probed')


def test_text_alone_of_meld(tmp_path, archive):
    bare = tmp_path/'MELD'
    for table in archive.rglob('*.csv'):
        (bare/table.relative_to(archive)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(table, bare/table.relative_to(archive))
    corpora = [load_corpus(root, clips=False, probe=no_probe, skip_bad=skip)
               for root in (bare, archive) for skip in (None, False)]
    for corpus in corpora:
        assert ids(corpus) == [(s, f'dia{r[0]}_utt{r[1]}') for s in ROWS for r in sorted(ROWS[s])]
        assert not corpus.left_out
        assert {(u.audio, u.seconds) for u in corpus.utterances} == {(None, None)}
        assert corpus.notes == ['dev: rows whose transcript occurs in train: 1 of 3',
                                'test: rows whose transcript occurs in train: 1 of 4']
        assert corpus.summary().startswith('MELD, text only: 15 utterances, 0 left out\n')
        assert 'hours' not in corpus.summary()
    assert [(u.text, u.label, u.speaker) for u in corpora[0].split('dev')][0] == ('What', 'neutral', 'Kit')
    with pytest.raises(TamersError, match='no clip of the train split'): load_corpus(bare)


def test_text_alone_still_needs_a_transcript(tmp_path):
    root = make_tree(tmp_path/'MELD', 'extracted')
    write_table(root/'dev_sent_emo.csv', ROWS['dev'] + [(1, 0, 'Kit', 'joy', '  ', 1, 1, 1.)])
    assert load_corpus(root, clips=False, probe=no_probe).left_out == [('dev', 'dia1_utt0', 'empty transcript')]
    with pytest.raises(TamersError, match='broken rows: 1\n  dev dia1_utt0: empty transcript'):
        load_corpus(root, clips=False, skip_bad=False)


@pytest.mark.parametrize('name', ['manifest.csv', 'manifest.jsonl'])
def test_text_alone_of_a_manifest(tmp_path, name):
    lines = [dict(text='Hi', label='joy', split='train'), dict(text='Well, no', label='anger', split='eval'),
             dict(text='Hi', label='joy', split='train', audio='gone.wav')]
    if name.endswith('jsonl'):
        root = manifest(tmp_path/'own', [json.dumps(row) for row in lines], name, header='', clips=())
    else:
        root = manifest(tmp_path/'own', ['Hi,joy,train,', '"Well, no",anger,eval,', 'Hi,joy,train,gone.wav'], name,
                        header='text,label,split,audio', clips=())
    first = 1 if name.endswith('jsonl') else 2
    corpus = load_corpus(root, clips=False, probe=no_probe)
    assert [(u.split, u.id, u.text) for u in corpus.utterances] == [
        ('train', f'line{first}', 'Hi'), ('train', 'gone.wav', 'Hi'), ('dev', f'line{first + 1}', 'Well, no')]
    assert corpus.strict and ', text only: 3 utterances' in repr(corpus)


def test_text_alone_of_a_manifest_without_the_column(tmp_path):
    root = manifest(tmp_path/'own', ['Hi,joy,train', ' ,joy,train', 'Oh,fear,dev'], header='text,label,split', clips=())
    with pytest.raises(TamersError, match='manifest.csv: lacks audio; it has text, label, split'): load_corpus(root)
    with pytest.raises(TamersError, match='own: broken rows: 1\n  train line3: empty transcript\nMend'):
        load_corpus(root, clips=False)
    assert len(load_corpus(root, clips=False, skip_bad=True).utterances) == 2


# ---- bad input: what to break, and what the message must say ----

def edit(path, old, new): path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))


def keep_only(root, *names):
    for path in root.iterdir():
        if path.name not in names: shutil.rmtree(path) if path.is_dir() else path.unlink()


MELD_CASES = dict(
    empty_root=(lambda r: keep_only(r), ['folder is empty', '--root', 'without --root the demo corpus']),
    no_corpus=(lambda r: keep_only(r, 'train', 'dev'),
               ['no corpus', 'manifest.csv', 'manifest.jsonl', 'train_sent_emo.csv', 'found ', 'dev/dia0_utt0.wav',
                '--root']),
    no_dev_table=(lambda r: (r/'dev_sent_emo.csv').unlink(),
                  ['no dev split', 'dev_sent_emo.csv or eval_sent_emo.csv',
                   'found train_sent_emo.csv, test_sent_emo.csv', 'Put dev_sent_emo.csv']),
    no_train_table=(lambda r: (r/'train_sent_emo.csv').unlink(),
                    ['no train split', 'looked for train_sent_emo.csv', 'found dev_sent_emo.csv']),
    no_dev_clips=(lambda r: shutil.rmtree(r/'dev'),
                  ['no clip of the dev split', '.wav', '.mp4', 'dev, eval, val', 'dev_splits_complete', 'unpack']),
    train_clips_elsewhere=(lambda r: (r/'train').rename(r/'sounds'), ['no clip of the train split', 'train_splits']),
    two_dev_tables=(lambda r: shutil.copy(r/'dev_sent_emo.csv', r/'eval_sent_emo.csv'),
                    ['dev_sent_emo.csv', 'eval_sent_emo.csv', '2 tables of the dev split', 'keep one']),
    two_train_tables=(lambda r: shutil.copy(r/'train_sent_emo.csv', r/'train'),
                      ['train/train_sent_emo.csv', '2 tables of the train split', 'keep one']),
    two_dev_folders=(lambda r: shutil.copytree(r/'dev', r/'eval'),
                     ['dia0_utt0.wav', 'two clips for one row', 'keep one']),
    dev_and_eval_folder=(lambda r: [(r/'eval').mkdir(), (r/'dev'/'dia0_utt2.wav').rename(r/'eval'/'dia0_utt2.wav')],
                         ['dev and eval both mean the dev split', 'keep or rename']),
    two_clips=(lambda r: [(r/'train'/'old').mkdir(), shutil.copy(r/'train'/'dia0_utt1.wav', r/'train'/'old')],
               ['dia0_utt1.wav', 'old', 'two clips for one row', 'keep one']),
    missing_column=(lambda r: edit(r/'train_sent_emo.csv', 'Emotion', 'Feeling'),
                    ['train_sent_emo.csv', 'lacks Emotion', 'it has Sr No., Utterance, Speaker, Feeling',
                     'name the columns']),
    empty_table=(lambda r: (r/'dev_sent_emo.csv').write_text(''),
                 ['dev_sent_emo.csv', 'lacks Utterance, Emotion', 'it has nothing']),
    only_a_header=(lambda r: (r/'dev_sent_emo.csv').write_text(','.join(COLUMNS)),
                   ['no usable row in dev', 'none to begin with']),
    unknown_label=(lambda r: edit(r/'test_sent_emo.csv', 'surprise', 'suprise'),
                   ['test_sent_emo.csv', "unknown label 'suprise' (line 4)", ', '.join(EMOTIONS),
                    "Did you mean 'surprise'?"]),
    label_of_another_set=(lambda r: edit(r/'test_sent_emo.csv', 'anger', 'bored'),
                          ["'bored' (line 2)", 'the names are anger, disgust']),
    not_a_number=(lambda r: edit(r/'dev_sent_emo.csv', ',110,7,', ',110,seven,'),
                  ['dev_sent_emo.csv, line 4', "Utterance_ID is 'seven'", 'whole number']),
    duplicate=(lambda r: edit(r/'dev_sent_emo.csv', ',0,2,', ',0,0,'),
               ['dev_sent_emo.csv', 'more than one row for dia0_utt0', 'delete or renumber']),
    ragged=(lambda r: edit(r/'test_sent_emo.csv', 'The row has', 'The row, has'),
            ['test_sent_emo.csv, line 4', 'has not 11 cells', 'quotes']),
    open_quote=(lambda r: edit(r/'test_sent_emo.csv', 'what?!', '"what?!'),
                ['test_sent_emo.csv, line', 'cells', 'quotes']),
    all_of_dev_broken=(lambda r: [p.write_bytes(b'no sound') for p in (r/'dev').glob('dia*.wav')],
                       ['no usable row in dev', 'cannot be decoded as audio (2): dev dia0_utt0, dev dia0_utt2',
                        'no clip (1): dev dia110_utt7', 'mend']),
)


@pytest.mark.parametrize('case', MELD_CASES)
def test_bad_meld(tmp_path, case):
    root = make_tree(tmp_path/'MELD', 'extracted')
    break_it, said = MELD_CASES[case]
    break_it(root)
    with pytest.raises(TamersError) as e: load_corpus(root)
    for part in [str(root), *said]: assert part in str(e.value), str(e.value)


MANIFEST_CASES = dict(
    missing_column=(['a.wav,joy,train'], 'audio,label,split',
                    ['manifest.csv: lacks text', 'it has audio, label, split',
                     'name the columns audio, text, label']),
    unknown_labels=(GOOD + ['a.wav,Hi,happy,train', 'a.wav,Hi,Angry,train'], None,
                    ['manifest.csv', "'happy' (line 5), 'angry' (line 6);", ', '.join(EMOTIONS), '--label-map ekman']),
    slip_in_own_labels=(['a.wav,Hi,bored,train', 'a.wav,Hi,keen,dev', 'a.wav,Hi,keen,train', 'a.wav,Hi,bored,dev',
                         'a.wav,Hi,boerd,train'], None,
                        ["unknown label 'boerd' (line 6)", 'the names are bored, keen', "Did you mean 'bored'?"]),
    no_label=(GOOD + ['a.wav,Hi,,train'], None, ["unknown label '' (line 5)"]),
    unknown_split=(GOOD + ['a.wav,Hi,joy,tset'], None,
                   ['manifest.csv', "unknown split 'tset' (line 5)", 'train, training, dev, eval',
                    "Did you mean 'test'?"]),
    dev_and_eval=(GOOD + ['a.wav,Hi,joy,eval'], None, ['manifest.csv', 'dev and eval both mean the dev split']),
    no_dev=(GOOD[:1], None, ['no usable row in dev', 'dev: mend or add']),
    no_train=(GOOD[1:], None, ['no usable row in train', 'none to begin with']),
    no_rows=([], None, ['no usable row in train']),
    unquoted_comma=(GOOD + ['a.wav,Well, hi,joy,train'], None, ['manifest.csv, line 5', 'has not 4 cells', 'quotes']),
    same_id=(['a.wav,Hi,joy,train,x', 'b.wav,Hi,joy,train,x', 'b.wav,Hi,joy,dev,x'], 'audio,text,label,split,id',
             ['manifest.csv', 'more than one row for train x', 'renumber']),
    turn=(['a.wav,Hi,joy,train,first', 'b.wav,Hi,joy,dev,2'], 'audio,text,label,split,turn',
          ['manifest.csv, line 2', "turn is 'first'", 'whole number']),
)


@pytest.mark.parametrize('case', MANIFEST_CASES)
def test_bad_manifest(tmp_path, case):
    rows, header, said = MANIFEST_CASES[case]
    root = manifest(tmp_path/'own', rows, header=header or 'audio,text,label,split')
    with pytest.raises(TamersError) as e: load_corpus(root)
    for part in [str(root), *said]: assert part in str(e.value), str(e.value)


JSON_GOOD = '{"audio": "a.wav", "text": "Hi", "label": "joy", "split": "train"}'
JSON_CASES = dict(
    malformed=('{"audio": "a.wav",', ['manifest.jsonl, line 2', 'not JSON', 'one object on each line']),
    a_list=('["a.wav"]', ['manifest.jsonl, line 2', 'is ["a.wav"]', 'audio, text, label']),
    missing_key=('{"audio": "a.wav", "text": "Hi", "split": "dev"}',
                 ['manifest.jsonl, line 2: lacks label', 'it has audio, text, split']),
    half_a_character=(JSON_GOOD.replace('Hi', '\\ud83d'), ['manifest.jsonl, line 2', 'not JSON', 'surrogates']),
)


@pytest.mark.parametrize('case', JSON_CASES)
def test_bad_jsonl(tmp_path, case):
    line, said = JSON_CASES[case]
    root = manifest(tmp_path/'own', [JSON_GOOD, line], 'manifest.jsonl', header='')
    with pytest.raises(TamersError) as e: load_corpus(root)
    for part in said: assert part in str(e.value), str(e.value)


def test_bad_roots(tmp_path):
    def refused(root, *said):
        with pytest.raises(TamersError) as e: load_corpus(root)
        for part in (str(root), *said): assert part in str(e.value), str(e.value)
    refused(tmp_path/'nowhere', 'no such file or folder', 'without --root the demo corpus is used')
    refused('', '--root is empty', 'demo corpus')
    refused('a\0b', 'no such file or folder')
    # a text in the wrong column is no file name
    with pytest.raises(TamersError, match='broken rows: 1\n.*no clip'):
        load_corpus(manifest(tmp_path/'long', ['a.wav,Hi,joy,train', 'b.wav,Hi,joy,dev', f'{"blah "*99},Hi,joy,dev']))
    write_clip(tmp_path/'a.wav', 0.5)
    refused(tmp_path/'a.wav', 'not a manifest', '.jsonl')
    refused(make_tree(tmp_path/'MELD', 'extracted')/'dev_sent_emo.csv', 'one table of MELD',
            f'pass its folder {tmp_path/"MELD"}')
    both = manifest(tmp_path/'both', GOOD)
    (both/'manifest.jsonl').touch()
    refused(both, 'manifest.csv and manifest.jsonl', 'keep one')
    assert load_corpus(str(both/'manifest.csv')).split('dev')


UNREADABLE = dict(
    dangling_link=(lambda p: [p.unlink(), p.symlink_to('nowhere.csv')],
                   'cannot be read (No such file or directory); check its permissions, or where it links to'),
    spreadsheet=(lambda p: p.write_bytes(b'PK\x03\x04\x14\0\x06\0[Content_Types].xml'), 'not text in UTF-8'),
    utf16=(lambda p: p.write_bytes(p.read_bytes().decode().encode('utf-16')), 'not text in UTF-8'),
    zeros_at_the_end=(lambda p: p.write_bytes(p.read_bytes() + bytes(512)), 'zero bytes'),
)


@pytest.mark.parametrize('clips', [True, False])
@pytest.mark.parametrize('case', UNREADABLE)
def test_tables_that_are_no_text(tmp_path, case, clips):
    break_it, said = UNREADABLE[case]
    meld, own = make_tree(tmp_path/'MELD', 'extracted'), manifest(tmp_path/'own', GOOD)
    lines = manifest(tmp_path/'lines', [JSON_GOOD], 'manifest.jsonl', header='')
    for path in (meld/'dev_sent_emo.csv', own/'manifest.csv', lines/'manifest.jsonl'):
        break_it(path)
        with pytest.raises(TamersError) as e: load_corpus(path.parent, clips=clips)
        assert str(e.value).startswith(f'{path}: ') and said in str(e.value)


def test_permission_denied(tmp_path, monkeypatch):
    "Made up, since the tests may run as root, who may read everything."
    meld, own = make_tree(tmp_path/'MELD', 'extracted'), manifest(tmp_path/'own', GOOD)
    read, scan, locked = Path.read_bytes, os.scandir, {meld/'dev_sent_emo.csv', own/'manifest.csv'}
    def guard(f):
        def g(path):
            if Path(path) in locked: raise PermissionError(errno.EACCES, 'Permission denied', str(path))
            return f(path)
        return g
    monkeypatch.setattr(Path, 'read_bytes', guard(read))
    monkeypatch.setattr(os, 'scandir', guard(scan))
    for root, path in ((meld, meld/'dev_sent_emo.csv'), (own, own/'manifest.csv'),
                       (own/'manifest.csv', own/'manifest.csv'), (meld, meld/'train')):
        locked.add(path)
        with pytest.raises(TamersError) as e: load_corpus(root)
        assert str(e.value).startswith(f'{path}: cannot be read (Permission denied); check its permissions')


def test_small_parts(tmp_path):
    assert [span('0:59:59,500', '01:00:00,750'), span('1:00:00.0', '0:59:59,0')] == [1.25, -1.]
    assert [str(span(a, '0:00:01,000')) for a in ('', '12', 'a:b:c')] == ['nan']*3
    assert normalise('  “Hey”,   YOU…!') == 'hey you' and normalise('!') == ''
    assert clock(3661.5, True) == '1:01:01,500'
    assert count_table([])[:2] == [['', 'all'], ['rows', '0']]
    # separators that are no line ends
    (tmp_path/'a.jsonl').write_text('{"text": "one\u2028two"}\n{"text": "\\u0085"}', encoding='utf-8')
    assert [n for n, _ in jsonl_rows(tmp_path/'a.jsonl', ['text'])] == [1, 2]


# ---- the real files ----

LABELS = dict(zip(('neutral', 'joy', 'surprise', 'anger', 'sadness', 'disgust', 'fear'),
                  zip((4710, 1743, 1205, 1109, 683, 271, 268), (470, 163, 150, 153, 111, 22, 40),
                      (1256, 402, 281, 345, 208, 68, 50))))


@pytest.fixture(scope='module')
def real(shared, tmp_path_factory):
    "The real tables, with an empty file for each clip."
    root = tmp_path_factory.mktemp('real')/'MELD'
    for split in ROWS:
        (root/split).mkdir(parents=True)
        shutil.copy(shared/'data/meld'/f'{split}_sent_emo.csv', root)
        for _, row in csv_rows(root/f'{split}_sent_emo.csv', COLUMNS):
            (root/split/f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}.wav").touch()
    return root


def test_real_tables(real):
    start = time.process_time()
    corpus = load_corpus(real, probe=lambda path: 2.5)
    assert time.process_time() - start < 3          # under 1 s when nothing else runs
    assert [len(corpus.split(s)) for s in ROWS] == [9989, 1109, 2610] and not corpus.left_out
    for i, split in enumerate(ROWS):
        assert Counter(u.label for u in corpus.split(split)) == {e: n[i] for e, n in LABELS.items()}
    assert [len({u.dialogue for u in corpus.split(s)}) for s in ROWS] == [1038, 114, 280]
    for split in ROWS:
        keys = [(u.dialogue, u.turn) for u in corpus.split(split)]
        assert keys == sorted(set(keys))
    assert [u.text for u in corpus.split('train') if u.id == 'dia369_utt0'] == ['!']
    for note in ('train: rows that share their transcript with another row of the split: 1582 of 9989',
                 'test: rows whose transcript occurs in train: 401 of 2610',
                 'train: rows with impossible times: 1 (dia309_utt0 (41.04 s))'): assert note in corpus.notes
    impossible = 'test: rows with impossible times: 3 (dia38_utt4 (304.94 s), dia155_utt3 (0 s), dia220_utt0'
    assert any(note.startswith(impossible) for note in corpus.notes)


def test_real_tables_without_clips(shared):
    corpus = load_corpus(shared/'data/meld', clips=False, probe=no_probe)
    assert [len(corpus.split(s)) for s in ROWS] == [9989, 1109, 2610] and not corpus.left_out and not corpus.strict
    assert corpus.summary().startswith('meld, text only: 13708 utterances, 0 left out')
    assert 'hours' not in corpus.summary()
    assert len(corpus.notes) == 5 and all('transcript' in note for note in corpus.notes)


def test_real_published_gaps(real, tmp_path):
    shutil.copytree(real, tmp_path/'MELD')
    (tmp_path/'MELD'/'dev'/'dia110_utt7.wav').unlink()
    for name in ('dia66_utt9', 'dia66_utt10', 'dia49_utt4', 'dia49_utt5'): (tmp_path/'MELD'/'dev'/f'{name}.wav').touch()
    def probe(path):
        if path.endswith('train/dia125_utt3.wav'):
            raise TamersError(f'{path}: cannot be decoded as audio (moov atom not found); convert it')
        return 2.5
    corpus = load_corpus(tmp_path/'MELD', probe=probe)
    assert [(s, i) for s, i, _ in corpus.left_out] == LEFT_OUT
    assert 'dev: clips without a row, ignored: 4 (dia49_utt4, dia49_utt5, dia66_utt9, dia66_utt10)' in corpus.notes


def test_the_older_version_of_dev_becomes_the_newer(shared):
    rows = lambda name: [row for _, row in csv_rows(shared/'data/meld'/name, COLUMNS)]
    newer, older = rows('dev_sent_emo.csv'), rows('dev_sent_emo.cp1252.csv')
    assert len(newer) == 1109 and older == newer
    raw = (shared/'data/meld'/'dev_sent_emo.cp1252.csv').read_bytes().decode()
    assert sum('\x80' <= c < '\xa0' for c in raw) > 100     # it is the older one


def test_six_real_clips(shared, tmp_path):
    clips, root = {(p.parent.name, p.stem): p for p in (shared/'data/meld-clips').rglob('*.wav')}, tmp_path/'MELD'
    for split in ROWS:
        rows = list(csv_rows(shared/'data/meld'/f'{split}_sent_emo.csv', COLUMNS))
        (root/split).mkdir(parents=True)
        with open(root/f'{split}_sent_emo.csv', 'w', encoding='utf-8', newline='') as f:
            out = csv.DictWriter(f, COLUMNS, lineterminator='\r\n')
            out.writeheader()
            for _, row in rows if split != 'dev' else rows[:1]: out.writerow(row)
    for (split, name), path in clips.items(): shutil.copy(path, root/split)
    soundfile.write(root/'dev'/'dia0_utt0.wav', tone(2.793, 16_000), 16_000)      # dev has no real clip here
    corpus = load_corpus(root)
    found = {(u.split, u.id): u for u in corpus.utterances if u.split != 'dev'}
    assert found.keys() == clips.keys() and len(corpus.left_out) == 9989 + 2610 - 6
    for u in found.values(): assert len(load_audio(u.audio))/16_000 == pytest.approx(u.seconds, abs=1e-3)

    read = {s: [row for _, row in csv_rows(root/f'{s}_sent_emo.csv', COLUMNS)] for s in ROWS}
    tables = {s: {(r['Dialogue_ID'], r['Utterance_ID']): r for r in rows} for s, rows in read.items()}
    def lasts(split, dialogue, first, last):
        return span(tables[split][str(dialogue), str(first)]['StartTime'],
                    tables[split][str(dialogue), str(last)]['EndTime'])
    for split, name, last in (('train', 'dia1_utt0', 0), ('train', 'dia1038_utt17', 17), ('test', 'dia0_utt0', 0),
                              # three hold several rows
                              ('test', 'dia100_utt1', 2), ('test', 'dia100_utt5', 8), ('test', 'dia101_utt0', 1)):
        u = found[split, name]
        assert u.seconds == pytest.approx(lasts(split, u.dialogue, u.turn, last), abs=0.25), name
    longer = ('test: clips longer or shorter than their row says, by more than 0.25 s: 3 '
              '(dia100_utt1, dia100_utt5, dia101_utt0)')
    assert any(note.startswith(longer) for note in corpus.notes)
    assert not any(n.startswith('train: clips longer') for n in corpus.notes)
