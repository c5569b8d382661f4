"Suspicious rows by out-of-fold answers: injected faults are found, and a file about another corpus is refused."
import csv
import numpy as np
import pytest
from tamers.core import TamersError
from tamers.data.corpus import Utterance
from tamers.evaluation.suspects import (ANSWER_COLUMNS, find_suspects, FOLDS_FILE, label_suspects, pair_suspects,
                                        read_answers, standardise, sure_of, Suspect, write_suspects)


def answers_with_slips(n=600, classes=4, share=.05, seed=0):
    "Labels of which a share is wrong, answers that know the truth in four rows of five and guess else, and the share."
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, n, p=[.55, .25, .15, .05])
    knows = rng.random(n) < .8
    scores = rng.normal(0, .5, (n, classes))
    scores[np.arange(n), np.where(knows, truth, rng.integers(classes, size=n))] += np.where(knows, 4, 2)
    probs = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    slips = rng.permutation(n)[:round(share * n)]
    labels = truth.copy()
    labels[slips] = (truth[slips] + rng.integers(1, classes, len(slips))) % classes
    return labels, probs, slips


def said(ids='abc', label='joy', home='/there/clips'):
    return [Utterance(i, 'train', f'line {i}', label, f'{home}/{i}.wav') for i in ids]


def written(folder, rows, probs=None, near='', drop=(), classes=('anger', 'joy')):
    "An out-of-fold.csv about these rows."
    folder.mkdir(exist_ok=True)
    columns = [c for c in (*ANSWER_COLUMNS[:6], *classes, *ANSWER_COLUMNS[6:]) if c not in drop]
    with open(folder/FOLDS_FILE, 'w', newline='', encoding='utf-8') as f:
        w = csv.DictWriter(f, columns, extrasaction='ignore')
        w.writeheader()
        for u, p in zip(rows, probs if probs is not None else [(.9, .1)] * len(rows)):
            w.writerow(dict(id=u.id, fold='1', speaker='', audio=u.audio or '', label=u.label, prediction='',
                            similarity=near, text=u.text) | dict(zip(classes, p)))
    return folder


@pytest.mark.parametrize('seed', range(5))
def test_wrong_labels_come_first(seed):
    labels, probs, slips = answers_with_slips(seed=seed)
    rows, likely, p = label_suspects(labels, probs)
    assert np.isin(rows[:20], slips).mean() > .7
    assert np.isin(slips, rows).mean() > .5 and len(rows) < len(labels) / 2
    assert (likely != labels[rows]).all() and (np.diff(p) >= 0).all() and len(set(rows)) == len(rows)


def test_no_suspect_where_all_agree():
    labels = np.repeat(np.arange(3), 20)
    assert not len(label_suspects(labels, np.eye(3)[labels] * .7 + .1)[0])


def test_a_class_without_rows_is_never_sure():
    probs = np.array([[.5, .1, .4], [.1, .5, .4]])
    assert 2 not in sure_of(np.array([0, 1]), probs)
    assert not len(label_suspects(np.array([0, 1]), probs)[0])


def test_rows_that_fit_badly_come_first():
    rng = np.random.default_rng(0)
    near, labels, folds = rng.normal(.4, .1, 500), rng.integers(3, size=500), rng.integers(5, size=500)
    near += np.array([0, .3, -.2, .1, 0])[folds]      # each fold has a head of its own
    near[:8] -= .6
    rows, score = pair_suspects(near, labels, folds)
    assert set(rows[:8]) == set(range(8)) and len(rows) < 30 and (np.diff(score) >= 0).all()


def test_without_similarity_there_are_no_pairs():
    assert not len(pair_suspects(np.full(5, np.nan), np.zeros(5, int), np.zeros(5))[0])
    near = np.array([np.nan, .5, .5])
    assert not len(pair_suspects(near, np.zeros(3, int), np.zeros(3))[0])
    assert (standardise(np.array([2., 2.]), ['a', 'a']) == 0).all()


def test_answers_are_found_again_where_the_corpus_has_moved(tmp_path):
    rows = said('ab') + [Utterance('a', 'dev', 'line a', 'joy', '/there/dev/a.wav')]   # MELD has an id in each split
    folder = written(tmp_path/'run', rows, [(.9, .1), (.2, .8), (.6, .4)])
    moved = [Utterance(u.id, 'test', u.text, u.label, u.audio.replace('/there', '/elsewhere')) for u in rows[::-1]]
    found = read_answers(folder, moved)
    assert found.utterances == moved[::-1] and found.probs[:, 0].tolist() == [.9, .2, .6]


def test_ids_that_recur_carry_their_split_in_folds(tmp_path):
    rows = [Utterance('dia0_utt0', s, 'Oh!', 'joy', f'/there/{s}/dia0_utt0.wav') for s in ('train', 'dev')]
    folded = [Utterance(f'{u.split}/{u.id}', 'train', u.text, u.label, u.audio) for u in rows]
    assert read_answers(written(tmp_path/'run', folded), rows).utterances == rows


def test_a_mended_label_counts_and_a_new_row_has_no_answer(tmp_path):
    folder = written(tmp_path/'run', said())
    mended = said(label='anger') + said('z')
    found = read_answers(folder, mended)
    assert found.labels.tolist() == [0, 0, 0] and find_suspects(found) == []


@pytest.mark.parametrize('rows, told', [
    (said('xyz'), 'not about this corpus: 3 of its 3 rows'),
    (said(home='/there/other'), 'not about this corpus'),
    (said(label='envy'), 'the corpus has envy as well'),
])
def test_another_corpus_is_refused(rows, told, tmp_path):
    folder = written(tmp_path/'run', said())
    with pytest.raises(TamersError, match=told): read_answers(folder, rows)


@pytest.mark.parametrize('how, told', [
    (dict(drop=('similarity',)), 'lacks similarity'),
    (dict(near='near'), 'line 2: could not convert'),
    (dict(probs=[('', '')] * 3), 'no probability'),
    (dict(probs=[(-1, 2)] * 3), 'no probability'),
    (dict(classes=()), 'answers for 0 classes'),
])
def test_a_damaged_file_is_refused(how, told, tmp_path):
    with pytest.raises(TamersError, match=told): read_answers(written(tmp_path/'run', said(), **how), said())


def test_a_folder_without_folds_is_named(tmp_path):
    with pytest.raises(TamersError, match='no such file; name the folder of a run of tamers-train --folds'):
        read_answers(tmp_path, said())


def test_the_table_holds_no_formula(tmp_path):
    u = Utterance('=id', 'train', '=1+1', 'joy', '/there/a.wav')
    write_suspects(tmp_path/'suspects.csv', [Suspect('label', u, 'fear', .01), Suspect('pair', u, '', -3.)])
    rows = list(csv.DictReader(open(tmp_path/'suspects.csv', encoding='utf-8')))
    assert [(r['rank'], r['what'], r['likely'], r['text']) for r in rows] == [
        ('1', 'label', 'fear', "'=1+1"), ('1', 'pair', '', "'=1+1")]
