"A checkpoint and a store that were written before the modules moved are read as they were meant."
import csv
import shutil
from pathlib import Path

import pytest
import torch

import tamers
from tamers.config import AnalyzeConfig, TrainConfig
from tamers.data.demo import demo_corpus
from tamers.encoders.encoder import Encoder
from tamers.model.checkpoint import load_checkpoint
from tamers.training.run import train

KEPT = Path(__file__).parent/'before_the_wings'


@pytest.fixture
def there(tmp_path, monkeypatch):
    "The manifest beside its clips and a copy of the store, on a machine where no encoder can be loaded."
    def load(self): raise AssertionError(f'the weights of the {self.kind} encoder are loaded')
    monkeypatch.setattr(Encoder, '_load', load)
    (tmp_path/'clips').symlink_to(demo_corpus())
    shutil.copy(KEPT/'manifest.csv', tmp_path)
    shutil.copytree(KEPT/'store', tmp_path/'store')
    return tmp_path


def rows(path):
    with open(path, encoding='utf-8', newline='') as f: return list(csv.DictReader(f))


def test_its_predictions_are_what_they_were(there):
    tamers.analyze(AnalyzeConfig(
        checkpoint=str(KEPT/'best.pt'), root=str(there/'manifest.csv'), split='dev', store_path=str(there/'store'),
        allow_outside=True, figures=False, num_workers=0, device='cpu', out=str(there/'out')))
    got, kept = rows(there/'out'/'predictions.csv'), rows(KEPT/'predictions.csv')
    assert len(got) == len(kept) == 7 and got[0].keys() == kept[0].keys()
    for now, then in zip(got, kept):
        for name, value in then.items():
            if name in tamers.EMOTIONS: assert float(now[name]) == pytest.approx(float(value), abs=1e-6)
            else: assert now[name] == value


def test_training_goes_on_from_it(there):
    old = load_checkpoint(KEPT/'best.pt')
    train(TrainConfig(**old.config | dict(
        load_checkpoint=str(KEPT/'best.pt'), root=str(there/'manifest.csv'), store_path=str(there/'store'),
        epochs=5, save_path=str(there/'run'))))
    new = load_checkpoint(there/'run'/'last.pt')
    assert new.trainer['epoch'] == 5 and new.trainer['step'] > old.trainer['step']
    assert new.encoders == old.encoders and new.model_args.items() >= old.model_args.items()
    assert not torch.equal(new.model['text_projection.weight'], old.model['text_projection.weight'])


def test_it_answers_for_a_new_clip():
    model = tamers.load(KEPT/'best.pt', device='cpu')
    clip = next((demo_corpus()/'dev').glob('*.wav'))
    answer = model.predict(clip, 'Get out of my bathroom!')
    assert answer.label in tamers.EMOTIONS
