"Scores of a head that takes voices out: who is known by what, which rows are set aside, and what the results say."
import csv
import json
import numpy as np
import pytest
import soundfile as sf
from tamers.config import AnalyzeConfig, CompareConfig, TrainConfig
from tamers.evaluation.analyze import analyze
from tamers.evaluation.compare import compare
from tamers.evaluation.evaluate import load_split, read_split
from tamers.evaluation.search import search
from tamers.config import SearchConfig
from tamers.model.checkpoint import load_checkpoint
from tamers.training.run import train

MOODS = ['calm', 'tense']


def write_corpus(folder, splits, rows=12):
    "Tones of speakers: {split: speakers}, `rows` each."
    folder.mkdir()
    rng, lines = np.random.default_rng(0), [['audio', 'text', 'label', 'split', 'speaker']]
    for split, cast in splits.items():
        for speaker in cast:
            for i in range(rows):
                t, pitch = np.arange(9600) / 16000, 150 + 40*(ord(speaker[0]) % 7) + 60*(i % 2)
                name = f'{split}-{speaker}-{i}.wav'
                sf.write(folder/name, .3*np.sin(2*np.pi*pitch*t) + .02*rng.standard_normal(len(t)), 16000)
                lines.append([name, f'line {i // 2}', MOODS[i % 2], split, speaker])
    with open(folder/'manifest.csv', 'w', newline='') as f: csv.writer(f).writerows(lines)
    return folder


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    "A corpus whose test has a speaker of train and two new ones, and a head for each kind of normalisation."
    home = tmp_path_factory.mktemp('known')
    root = write_corpus(home/'corpus', dict(train=['ann', 'bob', 'cat'], dev=['dan'], test=['ann', 'eve', 'fay']))
    for normalise in ('speaker', 'corpus'):
        train(TrainConfig(root=str(root), normalise=normalise, epochs=2, device='cpu', num_workers=0, batch_size=12,
                          save_path=str(home/normalise), store_path=str(home/'store')))
    return home


def analyzed(runs, name, **changes):
    cfg = dict(checkpoint=str(runs/name), device='cpu', num_workers=0, figures=False)
    said = []
    return analyze(AnalyzeConfig(**cfg | changes), say=said.append), '\n'.join(map(str, said))


def test_new_speakers_give_clips_that_are_not_scored(runs, tmp_path):
    m, said = analyzed(runs, 'speaker', out=str(tmp_path/'a'), known=4)
    words = ('speakers known from training: 1; new: 2, of whom 2 are known by at most 4 clips each that are not scored '
             '(8 rows set aside)')
    assert words in said and 'by own clips (transductive)' in said and 'nobody known' in said
    assert m['n'] == 36 - 8
    written = json.loads((tmp_path/'a'/'metrics.json').read_text())['voices']
    assert written['headline'] == words and list(written['scores']) == ['known', 'own', 'nobody']
    assert all(s['n'] == 28 and len(s['intervals']['uar']) == 2 for s in written['scores'].values())
    assert written['scores']['known']['uar'] == m['uar']
    with open(tmp_path/'a'/'predictions.csv', newline='') as f: rows = list(csv.DictReader(f))
    assert len(rows) == 28
    again, _ = analyzed(runs, 'speaker', out=str(tmp_path/'b'), known=4)
    assert again['uar'] == m['uar'] and again['voices'] == m['voices']


def test_at_most_half_of_a_speaker_is_set_aside(runs, tmp_path):
    assert analyzed(runs, 'speaker', out=str(tmp_path/'a'), known=50)[0]['n'] == 36 - 12
    nobody = analyzed(runs, 'speaker', out=str(tmp_path/'b'), known=0)[0]
    assert nobody['n'] == 36


def test_names_of_another_corpus_are_other_people(runs, tmp_path):
    other = write_corpus(tmp_path/'other', dict(train=['x'], dev=['x'], test=['ann', 'bob']))
    _, said = analyzed(runs, 'speaker', root=str(other), out=str(tmp_path/'out'), known=3)
    assert 'speakers known from training: 0; new: 2,' in said


def test_other_heads_are_scored_on_all_rows(runs, tmp_path):
    m, said = analyzed(runs, 'corpus', out=str(tmp_path/'out'))
    assert m['n'] == 36 and 'voices' not in m and 'set aside' not in said


def test_the_head_hears_test_without_voices(runs):
    path = runs/'speaker'/'best.pt'
    ckpt, cfg = load_checkpoint(path), AnalyzeConfig(known=4, device='cpu', num_workers=0)
    raw, known = (f(ckpt, cfg, path, lambda *_: None) for f in (read_split, load_split))
    place = {u.id: i for i, u in enumerate(raw.utterances)}
    same = raw.features.audio[[place[u.id] for u in known.utterances]]
    assert len(known.labels) == 28 and not (same == known.features.audio).all(-1).any()
    own = load_split(ckpt, cfg, path, lambda *_: None, way='own')
    assert len(own.labels) == 28


def test_compare_takes_the_rows_that_both_score(runs, tmp_path):
    said = []
    d = compare(str(runs/'corpus'), str(runs/'speaker'), CompareConfig(known=4, device='cpu', num_workers=0,
                figures=False, out=str(tmp_path)), say=said.append)
    assert d['n'] == 28 and d['left_out'] == dict(only_a=8, only_b=0)
    assert 'not scored (8 rows set aside)' in '\n'.join(said)


def test_search_leaves_nothing_out(runs):
    cfg = SearchConfig(checkpoint=str(runs/'speaker'), device='cpu', num_workers=0, top=100)
    assert sum(hit.rows for hit in search('line 1', cfg, say=lambda *_: None)) == 36
