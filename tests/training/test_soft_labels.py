"Training on what several raters said: the distribution is learnt, the majority alone makes a head sure."
import csv
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest
import torch
from tamers.config import to_flags, TrainConfig
from tamers.data.corpus import Utterance
from tamers.model.checkpoint import load_checkpoint
from tamers.prediction.recognizer import load
from tamers.runs import launch_processes
from tamers.store.features import soft_labels
from tamers.training.folds import train_folds
from tamers.training.run import train

LINES = dict(up=('What a lovely day it is.', 'anger:3 joy:7'), down=('I will never forgive you.', 'anger:7 joy:3'))


@pytest.fixture
def cfg(tmp_path):
    "A table of two lines, each said forty times in train, of which seven raters of ten say the same."
    rows = [f'{text},{votes},{split}' for split, n in (('train', 40), ('dev', 10))
            for text, votes in list(LINES.values()) * n]
    (tmp_path/'manifest.csv').write_text('\n'.join(['text,votes,split', *rows]) + '\n')
    return TrainConfig(root=str(tmp_path/'manifest.csv'), modality='text', epochs=40, batch_size=16, lr=5e-3,
                       fusion_dropout=0., early_stop_patience=0, num_workers=0, device='cpu', best_metric='loss',
                       store_path=str(tmp_path/'store'), save_path=str(tmp_path/'run'))


def sureness(cfg):
    "How sure the head of a run is of the majority, as its answers have it."
    model = load(train(cfg)['best'], device='cpu')
    return [model.predict(text=text).probabilities[name] for (text, _), name in zip(LINES.values(), ('joy', 'anger'))]


def test_the_distribution_is_learnt(cfg, capsys):
    assert sureness(cfg) == pytest.approx([.7, .7], abs=.05)
    assert 'votes: trained on their distribution; --no-soft-labels trains on the majority' in capsys.readouterr().out
    best = load_checkpoint(Path(cfg.save_path)/'best.pt')
    assert best.metrics['classification'] == pytest.approx(.611, abs=.01)   # the entropy of 7 to 3, in nats


def test_the_majority_alone_makes_a_head_sure(cfg, capsys):
    assert min(sureness(replace(cfg, soft_labels=False))) > .95
    assert 'votes: trained on the majority; --soft-labels trains on their distribution' in capsys.readouterr().out


@pytest.mark.parametrize('kind', (dict(classification='focal'), dict(classification='adjusted'), dict(mixup=.4),
                                  dict(class_weight_gamma=.5, label_smoothing=.1), dict(train_sampler='weighted')))
def test_every_kind_of_loss_takes_votes(cfg, kind):
    sure = sureness(replace(cfg, epochs=20, **kind))
    assert all(.5 < p < .9 for p in sure)


def test_without_votes_there_is_no_table():
    us = [Utterance(str(i), 'train', 'Oh.', 'joy', None) for i in range(3)]
    assert soft_labels(us, torch.tensor([1, 1, 1]), ('anger', 'joy')) is None
    us[1].votes = (('anger', 1), ('joy', 3))
    assert soft_labels(us, torch.tensor([1, 1, 1]), ('anger', 'joy')).tolist() == [[0, 1], [.25, .75], [0, 1]]


def test_two_processes_learn_what_one_does(cfg, tmp_path, capfd):
    "The shares of a step are gathered with its labels."
    cfg = replace(cfg, epochs=3, mixup=.4)
    assert launch_processes(to_flags(replace(cfg, batch_size=8, save_path=str(tmp_path/'two'))), 2) == 0, (
        capfd.readouterr().err)
    a, b = (load_checkpoint(path) for path in (train(cfg)['last'], tmp_path/'two'/'last.pt'))
    for k in a.model: assert torch.allclose(a.model[k], b.model[k], atol=1e-3), k


@pytest.mark.parametrize('soft', (True, False))
def test_folds_learn_from_the_votes_of_their_own_rows(cfg, tmp_path, soft):
    "The rows are in no order, so that the votes of others would teach nothing."
    table = Path(cfg.root)
    head, *rows = table.read_text().splitlines()
    rows = [row.rsplit(',', 1)[0] for row in rows]
    np.random.default_rng(0).shuffle(rows)
    table.write_text('\n'.join(['text,votes', *rows]) + '\n')
    train_folds(replace(cfg, folds='2', split_by='random', epochs=30, soft_labels=soft), processes=1,
                say=lambda *_: None)
    with open(tmp_path/'run'/'out-of-fold.csv', newline='') as f: rows = list(csv.DictReader(f))
    sure = [max(float(row['anger']), float(row['joy'])) for row in rows]
    assert len(sure) == 100 and (max(sure) < .8 and min(sure) > .6 if soft else min(sure) > .9)
