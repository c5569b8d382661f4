"A run that is resumed with other settings measures by these, and keeps what still holds."
import pytest
from tamers.config import TrainConfig
from tamers.model.checkpoint import load_checkpoint
from tamers.training.run import train
from tamers.training.watch import read_log
from tests.harness.corpora import demo_lines


@pytest.fixture(scope='module')
def first(tmp_path_factory):
    "A run of four epochs on the lines of the demo, chosen by accuracy, and its settings."
    home = tmp_path_factory.mktemp('resume')
    common = dict(root=str(demo_lines(home/'manifest.csv')), modality='text', num_workers=0, device='cpu',
                  store_path=str(home/'store'))
    train(TrainConfig(**common, save_path=str(home/'run'), epochs=4, best_metric='accuracy'))
    return home/'run', common


def resumed(first, tmp_path, **settings):
    "Go on elsewhere for one epoch: what `last.pt` knows of the best, and the best file."
    run, common = first
    train(TrainConfig(**common, load_checkpoint=str(run/'last.pt'), save_path=str(tmp_path), epochs=5, **settings))
    return load_checkpoint(tmp_path/'last.pt').trainer, load_checkpoint(tmp_path/'best.pt')


def test_another_score_is_measured_from_that_of_the_best_file(first, tmp_path):
    state, best = resumed(first, tmp_path, best_metric='loss')
    evals = [row for row in read_log(first[0]/'metrics.jsonl') if row['event'] == 'eval']
    kept = load_checkpoint(first[0]/'best.pt').metrics
    assert kept['accuracy'] == max(row['accuracy'] for row in evals)
    assert state['best']['best'] == max(-kept['loss'], -best.metrics['loss']) < 0
    assert best.metrics['epoch'] == 5  # the loss of an epoch more is lower: it was not measured against an accuracy


def test_another_loss_begins_the_plateau_anew(first, tmp_path):
    before = load_checkpoint(first[0]/'last.pt').trainer['plateau']['best']
    state, _ = resumed(first, tmp_path, best_metric='accuracy', label_smoothing=0.5)
    assert state['plateau']['best'] > before and state['plateau']['stale'] == 0


def test_the_same_settings_forget_nothing(first, tmp_path):
    state, _ = resumed(first, tmp_path, best_metric='accuracy')
    before = load_checkpoint(first[0]/'last.pt').trainer
    assert state['best']['best'] >= before['best']['best'] and state['plateau']['best'] <= before['plateau']['best']
