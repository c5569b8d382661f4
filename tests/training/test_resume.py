"A run that is resumed with other settings measures by these, and keeps what still holds."
import os
from pathlib import Path
import pytest
import torch
from accelerate import Accelerator
from tamers.commands import tamers_train
from tamers.config import TrainConfig
from tamers.core import TamersError
from tamers.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tamers.model.fusion import FusionModel
from tamers.store.features import Split, StoredFeatures
from tamers.training.loop import Trainer
from tamers.training.run import train
from tamers.training.step import param_groups
from tamers.training.watch import BestScore, Plateau, read_log
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


def test_a_finished_run_may_be_resumed_until_it_is_done(first, tmp_path, capsys):
    "A script that resumes until the exit code is 0 ends; another folder takes nothing of what was done."
    run, common = first
    before = (run/'last.pt').read_bytes()
    result = train(TrainConfig(**common, load_checkpoint=str(run/'last.pt'), save_path=str(run), epochs=4,
                               best_metric='accuracy'))
    said = capsys.readouterr().out
    assert result['epochs'] == 4 and (run/'last.pt').read_bytes() == before
    assert 'has done 4 epochs; ask for more with --epochs' in said and 'all epochs done' in said
    with pytest.raises(TamersError, match='has done 4 epochs'):
        train(TrainConfig(**common, load_checkpoint=str(run/'last.pt'), save_path=str(tmp_path/'new'), epochs=4))


def test_the_next_command_names_dev_where_there_is_no_test(first, capsys):
    run, common = first
    again = TrainConfig(**common, load_checkpoint=str(run/'last.pt'), save_path=str(run), epochs=4)
    train(again)
    assert capsys.readouterr().out.rstrip().endswith('best.pt --split dev')
    table = Path(common['root'])
    tested = table.with_name('tested.csv')
    tested.write_text(table.read_text() + 'I am so glad to see you!,joy,test\n')
    train(TrainConfig(**common | dict(root=str(tested)), save_path=str(table.with_name('tested')), epochs=1))
    assert capsys.readouterr().out.rstrip().endswith('best.pt')


@pytest.mark.parametrize('before, after', [(16, 32), (32, 16), (16, 48)])
def test_another_batch_size_goes_on_where_the_rows_are(before, after):
    "Rows of the interrupted epoch: none is skipped, and at most those of a step come twice."
    def made(size, **kw):
        torch.manual_seed(0)
        model = FusionModel(audio_dim=4, text_dim=4, shared_dim=4)
        x = torch.randn(2, 200, 4)
        return Trainer(model=model, optimizer=torch.optim.AdamW(param_groups(model, 0.)), best=BestScore(0, 0.),
                       plateau=Plateau(2, 1e-3, .5, 1e-6, 2., .1), train=Split([None]*200, StoredFeatures(*x),
                       torch.arange(200) % 7), dev=None, accelerator=Accelerator(cpu=True), batch_size=size, **kw)
    t, again = made(before), made(after)
    whole = torch.cat(again.plan()).tolist()
    steps = iter(t.steps())
    seen = torch.cat([t.running.new[-1]['rows'] for _ in range(4) if next(steps)]).tolist()
    again.restore(Checkpoint(t.model.state_dict(), {}, {}, {}, {}, [], t.state()))
    rest = torch.cat(again.plan()).tolist()
    assert set(whole) <= set(seen) | set(rest)
    assert len(set(seen) & set(rest)) < after


@pytest.mark.parametrize('key', ['epoch', 'accuracy'])
def test_metrics_of_a_checkpoint_are_numbers(first, tmp_path, key):
    ckpt = load_checkpoint(first[0]/'last.pt')
    ckpt.metrics[key] = '\x1b[2J'
    save_checkpoint(ckpt, tmp_path/'odd.pt')
    with pytest.raises(TamersError, match=f'metrics.{key} is no number'): load_checkpoint(tmp_path/'odd.pt')


def test_a_log_elsewhere_is_left_alone(first, tmp_path, capsys):
    "A stranger's checkpoint that names your log as its own, at step 0, would empty it."
    victim = tmp_path/'mine'/'metrics.jsonl'
    victim.parent.mkdir()
    victim.write_bytes((first[0]/'metrics.jsonl').read_bytes())
    (tmp_path/'theirs').mkdir()
    ckpt = load_checkpoint(first[0]/'last.pt')
    ckpt.config['metrics_log'], ckpt.trainer['step'] = str(victim), 0
    save_checkpoint(ckpt, tmp_path/'theirs'/'last.pt')
    tamers_train(['--load-checkpoint', str(tmp_path/'theirs'/'last.pt'), '--epochs', '5'])
    assert victim.read_bytes() == (first[0]/'metrics.jsonl').read_bytes()
    assert (tmp_path/'theirs'/'metrics.jsonl').exists()


def test_a_pipe_is_no_log(tmp_path):
    os.mkfifo(tmp_path/'pipe')
    with pytest.raises(TamersError, match='a pipe'): read_log(tmp_path/'pipe')
