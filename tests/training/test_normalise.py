"`--normalise`: what reaches the head, what is kept, what is refused, and that a resumed run has the same voices."
import csv
import numpy as np
import pytest
import torch
from tamers.config import TrainConfig
from tamers.core import TamersError
from tamers.model.checkpoint import load_checkpoint
from tamers.model.voices import voices_of
from tamers.training.run import train
from tests.harness.corpora import tones


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    "Tones of three speakers: two in train, one of these and a new one in dev, and a new one in test."
    root = tones(tmp_path_factory.mktemp('voices'), lambda label, i: f'{label} {i}')
    with open(root/'manifest.csv', newline='') as f: rows = list(csv.DictReader(f))
    cast = dict(train=['anna', 'bob'], dev=['bob', 'carl'], test=['dora'])
    with open(root/'manifest.csv', 'w', newline='') as f:
        w = csv.DictWriter(f, [*rows[0], 'speaker'])
        w.writeheader()
        for i, row in enumerate(rows): w.writerow(row | dict(speaker=cast[row['split']][i % len(cast[row['split']])]))
    return root


@pytest.fixture(scope='module')
def run(corpus, tmp_path_factory):
    home = tmp_path_factory.mktemp('runs')
    def go(name, **changes):
        settings = dict(root=str(corpus), epochs=2, device='cpu', num_workers=0, store_path=str(home/'store'),
                        save_path=str(home/name), batch_size=14)
        train(TrainConfig(**settings | changes))
        return load_checkpoint(home/name/'last.pt')
    return go


def test_the_checkpoint_has_the_speakers_of_train_alone(run, capsys):
    ckpt = run('speaker', normalise='speaker')
    voices = voices_of(ckpt)
    assert {s: v.n for s, v in voices.speakers.items()} == dict(anna=14, bob=14) and voices.corpus.n == 28
    said = capsys.readouterr().out
    assert 'voices: speakers of train: 2; new ones of dev' in said and 'scores are transductive: 1' in said


def test_corpus_keeps_no_voices_and_none_standardises_nothing(run):
    corpus, none = run('corpus'), run('none', normalise='none')
    assert corpus.voices == none.voices == {}
    assert not none.model['audio_input.mean'].any() and not none.model['text_input.mean'].any()
    assert corpus.model['audio_input.mean'].any()


@pytest.mark.parametrize('normalise', ['speaker', 'none'])
def test_a_resumed_run_ends_as_the_undisturbed_one(run, normalise, tmp_path_factory):
    whole = run(f'whole-{normalise}', normalise=normalise)
    run(f'half-{normalise}', normalise=normalise, epochs=1)
    last = str(tmp_path_factory.getbasetemp())
    half = next(p for p in __import__('pathlib').Path(last).rglob(f'half-{normalise}/last.pt'))
    again = run(f'again-{normalise}', normalise=normalise, load_checkpoint=str(half))
    assert all(torch.equal(v, again.model[k]) for k, v in whole.model.items())
    assert whole.voices.keys() == again.voices.keys()
    assert all(np.array_equal(whole.voices[k], again.voices[k]) for k in whole.voices)
    with pytest.raises(TamersError, match=f'trained with --normalise {normalise}, this run says corpus'):
        run(f'other-{normalise}', load_checkpoint=str(half))


def test_what_has_no_voices_is_refused(run, tmp_path):
    with pytest.raises(TamersError, match='--normalise speaker: is of voices, and --modality is text'):
        run('a', normalise='speaker', modality='text')
    with pytest.raises(TamersError, match='drop --no-store'): run('b', normalise='speaker', store=False)
    nobody = tones(tmp_path, lambda label, i: label)
    with pytest.raises(TamersError, match='names no speaker in train; give its table a column speaker'):
        run('c', root=str(nobody), normalise='speaker')
