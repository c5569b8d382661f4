"What was typed counts, even where it is the default or what the checkpoint says."
import shutil
import pytest
import torch
from tamers.commands import tamers_train
from tamers.config import TrainConfig
from tamers.training import run as training
from tamers.training.watch import read_log
from tests.harness.corpora import demo_lines


@pytest.fixture(scope='module')
def fallen(tmp_path_factory):
    "A run whose learning rate fell, and whose weight decay grew, after every epoch."
    home = tmp_path_factory.mktemp('typed')
    training.train(TrainConfig(root=str(demo_lines(home/'manifest.csv')), modality='text', num_workers=0, device='cpu',
                               store_path=str(home/'store'), save_path=str(home/'run'), epochs=3, hp_patience=1,
                               hp_tolerance=100., early_stop_patience=0))
    assert read_log(home/'run'/'metrics.jsonl')[-1]['lr'] < 5e-4
    return home/'run'


def last_row(fallen, tmp_path, *flags):
    "Go on for an epoch with these flags; what was logged."
    shutil.copytree(fallen, tmp_path/'run')
    tamers_train(['--load-checkpoint', str(tmp_path/'run'/'last.pt'), '--epochs', '4', *flags])
    return read_log(tmp_path/'run'/'metrics.jsonl')[-1]


def test_a_rate_that_is_typed_holds_though_it_is_the_saved_one(fallen, tmp_path):
    row = last_row(fallen, tmp_path, '--lr', '5e-4', '--weight-decay', '0.01')
    assert (row['lr'], row['weight_decay']) == (5e-4, 0.01)


def test_one_typed_rate_leaves_the_other_where_it_was_brought(fallen, tmp_path):
    before = read_log(fallen/'metrics.jsonl')[-1]
    row = last_row(fallen, tmp_path, '--weight-decay', '0.01')
    assert row['weight_decay'] == 0.01 and row['lr'] < before['lr']


@pytest.mark.parametrize('typed', [[], ['--lr', '5e-4']])
def test_the_processes_of_a_resumed_run_hear_of_rates_that_were_typed(fallen, tmp_path, monkeypatch, typed):
    given = []
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(training, 'launch_processes', lambda flags, processes: given.extend(flags) or 1)
    shutil.copytree(fallen, tmp_path/'run')
    with pytest.raises(SystemExit):
        tamers_train(['--load-checkpoint', str(tmp_path/'run'/'last.pt'), '--use-multi-gpu', '--epochs', '30', *typed])
    assert ('--lr' in given) == bool(typed) and '--weight-decay' not in given
    assert given[given.index('--epochs') + 1] == '30', 'a default that was typed reaches them, too'


def test_a_rate_of_python_counts_where_it_differs(fallen, tmp_path):
    row = last_row(fallen, tmp_path)
    assert row['lr'] < 5e-4
    cfg = TrainConfig(load_checkpoint=str(fallen/'last.pt'), lr=1e-4)
    saved = training.load_checkpoint(fallen/'last.pt').config
    assert training.given_rates(cfg, saved, ()) == {'lr'} and training.given_rates(TrainConfig(), saved, ()) == set()
    assert training.given_rates(TrainConfig(), saved, {'weight_decay', 'epochs'}) == {'weight_decay'}
