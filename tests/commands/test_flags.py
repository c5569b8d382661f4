"Each flag of tamers-train changes what it says. A tiny corpus, cut from the demo corpus, makes a run a second long."
import csv, json
from dataclasses import fields
import pytest
import torch
from tamers.commands import config_from_flags, tamers_train
from tamers.config import TrainConfig, flag_of
from tamers.core import EMOTIONS, TamersError
from tamers.data.demo import demo_corpus
from tamers.encoders import encoder
from tamers.model.checkpoint import load_checkpoint
from tamers.model.losses import Objective, class_weights
from tamers.runs import make_accelerator
from tamers.store.store import Workers
from tamers.training import loop
from tamers.training.run import train
from tamers.training.watch import read_log
from tests.harness.corpora import demo_rows


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "Folder of a manifest with 84 training and 42 dev rows, and its store."
    folder, source = tmp_path_factory.mktemp('tiny'), demo_corpus()
    (folder/'clips').symlink_to(source)
    with open(folder/'manifest.csv', 'w', newline='') as f:
        w = csv.writer(f)
        w.writerow(['audio', 'text', 'label', 'split', 'dialogue', 'turn'])
        for split, per_class in (('train', 12), ('dev', 6)):
            taken = dict.fromkeys(EMOTIONS, 0)
            for row in demo_rows(split):
                if taken[row['Emotion']] == per_class: continue
                taken[row['Emotion']] += 1
                dialogue, turn = row['Dialogue_ID'], row['Utterance_ID']
                clip = f'clips/{split}/dia{dialogue}_utt{turn}.wav'
                w.writerow([clip, row['Utterance'], row['Emotion'], split, dialogue, turn])
    return folder


@pytest.fixture
def base(tiny):
    "The flags that every run here shares."
    return ['--root', str(tiny), '--store-path', str(tiny/'store'), '--audio-encoder', 'mini', '--text-encoder', 'mini',
            '--device', 'cpu']


@pytest.fixture
def run(base, tmp_path, capsys):
    "Train with these flags; gives the rows of the log and the last checkpoint."
    short = ['--num-workers', '0', '--epochs', '2', '--batch-size', '21']
    def go(*flags, name='run'):
        train(config_from_flags([*base, *short, '--save-path', str(tmp_path/name), *map(str, flags)]))
        capsys.readouterr()
        log = tmp_path/name/'metrics.jsonl'
        return (read_log(log) if log.exists() else []), load_checkpoint(tmp_path/name/'last.pt')
    return go


def evals(rows): return [r for r in rows if r['event'] == 'eval']
def weights(ckpt): return torch.cat([v.flatten() for v in ckpt.model.values()])


def test_same_flags_same_numbers(run):
    assert run(name='a')[0] == run(name='b')[0]


def test_epochs(run): assert [r['epoch'] for r in evals(run('--epochs', 3)[0])] == [1, 2, 3]
def test_seed(run): assert not torch.equal(weights(run('--seed', 1)[1]), weights(run('--seed', 2, name='b')[1]))


def test_batch_size(run):
    large, small = (run('--batch-size', n, name=str(n))[0][-1]['step'] for n in (42, 21))
    assert (large, small) == (4, 8)


def test_lr(run):
    small, large = run('--lr', 1e-5, '--min-lr', 1e-6)[0], run('--lr', 1e-3, name='b')[0]
    assert small[-1]['lr'] == 1e-5 and large[-1]['lr'] == 1e-3
    assert large[-1]['train_loss'] < small[-1]['train_loss']


def test_weight_decay(run):
    def norm(decay):
        flags = '--weight-decay', decay, '--max-weight-decay', 50, '--epochs', 4, '--lr', 1e-2
        return run(*flags, name=str(decay))[1].model['audio_projection.weight'].norm()
    assert norm(20) < 0.5 * norm(0)


def test_plateau_flags(run):
    "A tolerance that no loss can meet makes every second evaluation a fall, down to the floor and up to the ceiling."
    rows = evals(run('--epochs', 7, '--hp-patience', 2, '--hp-tolerance', 100, '--early-stop-patience', 0,
                     '--lr', 8e-4, '--lr-decay-factor', 0.5, '--min-lr', 3e-4,
                     '--weight-decay', 0.01, '--wd-growth-factor', 3, '--max-weight-decay', 0.05)[0])
    assert [r['lr'] for r in rows] == pytest.approx([8e-4, 8e-4, 8e-4, 4e-4, 4e-4, 3e-4, 3e-4])
    assert [r['weight_decay'] for r in rows] == pytest.approx([.01, .01, .01, .03, .03, .05, .05])


def test_hp_patience_and_tolerance(run):
    def last_lr(patience, tolerance):
        flags = '--epochs', 5, '--early-stop-patience', 0, '--hp-patience', patience, '--hp-tolerance', tolerance
        return run(*flags, name=f'{patience}-{tolerance}')[0][-1]['lr']
    assert last_lr(1, 100) < last_lr(4, 100) <= last_lr(1, 0)


def test_eval_frequency_and_every(run):
    assert [r['step'] for r in evals(run('--eval-frequency', 'step', '--eval-every', 3)[0])] == [3, 6, 8]
    assert [r['epoch'] for r in evals(run('--eval-every', 2, '--epochs', 5, name='b')[0])] == [2, 4, 5]


def test_eval_batches_and_shuffle(run):
    whole = evals(run(name='a')[0])
    first = evals(run('--eval-batches', 1, name='b')[0])
    drawn = evals(run('--eval-batches', 1, '--eval-shuffle', name='c')[0])
    assert [r[-1]['n'] for r in (whole, first, drawn)] == [42, 21, 21]
    assert first[0]['train_loss'] == drawn[0]['train_loss'] and first[0]['loss'] != drawn[0]['loss']


def test_fusion_shape_flags(run):
    c = run('--fusion-shared-dim', 24, '--fusion-hidden-mult', 0.5, '--fusion-classifier-depth', 2)[1]
    assert c.model['audio_projection.weight'].shape[0] == 24
    matrices = [tuple(v.shape) for k, v in c.model.items() if k.startswith('classifier') and v.ndim == 2]
    assert matrices == [(24, 48), (24, 24), (7, 24)]


def test_fusion_dropout(run):
    none, much = (evals(run('--fusion-dropout', p, name=str(p))[0])[0]['train_loss'] for p in (0.0, 0.8))
    assert none != much


def test_grad_accum_steps_keeps_the_batch(run):
    "Two parts of 21 and one batch of 42 are the same step (dropout off, since the masks differ)."
    a = run('--batch-size', 21, '--grad-accum-steps', 2, '--fusion-dropout', 0)
    b = run('--batch-size', 42, '--fusion-dropout', 0, name='b')
    assert a[0][-1]['step'] == b[0][-1]['step'] == 4
    assert torch.allclose(weights(a[1]), weights(b[1]), atol=1e-4)


def test_max_grad_norm(run, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step
    def watch(self, *a, **kw):
        grads = [p.grad.flatten() for g in self.param_groups for p in g['params'] if p.grad is not None]
        norms.append(torch.cat(grads).norm().item())
        return step(self, *a, **kw)
    monkeypatch.setattr(torch.optim.AdamW, 'step', watch)
    run('--max-grad-norm', 0.01)
    clipped = max(norms)
    norms.clear()
    run('--max-grad-norm', 0, name='b')
    assert clipped < 0.0101 < min(norms)


def test_class_weight_gamma(run):
    losses = {gamma: evals(run('--class-weight-gamma', gamma, name=str(gamma))[0])[0]['loss'] for gamma in (0, 1)}
    assert losses[0] == pytest.approx(losses[1], abs=1e-5), 'even classes: weights are 1'
    assert class_weights(torch.tensor([1, 4]), 1.).tolist() == pytest.approx([1.6, 0.4])


def test_train_sampler_and_period(run, monkeypatch):
    seen = []
    monkeypatch.setattr(loop, 'epoch_batches', lambda labels, size, **kw: seen.append(kw) or [torch.arange(size)])
    run('--train-sampler', 'interleaved', '--interleave-period', 3, '--epochs', 1)
    assert (seen[0]['sampler'], seen[0]['period']) == ('interleaved', 3)


def test_samplers_differ(run):
    samplers = ('shuffle', 'weighted', 'interleaved')
    assert len({evals(run('--train-sampler', s, name=s)[0])[0]['train_loss'] for s in samplers}) == 3


def test_log_eval_per_class(run):
    assert 'per_class' not in evals(run()[0])[0]
    assert set(evals(run('--log-eval-per-class', name='b')[0])[0]['per_class']) == set(EMOTIONS)


def test_train_metrics(run):
    rows = [r for r in run('--train-metrics-every', 3, '--train-metrics-batches', 2)[0] if r['event'] == 'train']
    assert [(r['step'], r['n']) for r in rows] == [(3, 42), (6, 42)]
    assert run('--train-metrics-every', 8, '--train-metrics-batches', 0, name='b')[0][-2]['n'] == 84


def test_early_stop(run):
    stopped = evals(run('--epochs', 9, '--early-stop-patience', 2, '--early-stop-threshold', 2.0)[0])
    assert len(stopped) == 3, 'the first evaluation sets the mark, none can beat it by 2'
    assert len(evals(run('--epochs', 5, '--early-stop-patience', 0, '--early-stop-threshold', 2.0, name='b')[0])) == 5


def test_best_metric(run):
    for metric in ('loss', 'uar'):
        rows, _ = run('--best-metric', metric, '--epochs', 4, name=metric)
        values = [(-r['loss'] if metric == 'loss' else r[metric]) for r in evals(rows)]
        assert [r['best'] for r in evals(rows)] == [v > max(values[:i], default=-9e9) for i, v in enumerate(values)]


def test_contrastive_weight(run):
    on, off = (evals(run('--contrastive-weight', w, name=str(w))[0])[0] for w in (1, 0))
    assert on['contrastive'] > 0 and off['contrastive'] == 0
    assert on['loss'] == pytest.approx(on['contrastive'] + on['classification'])
    assert off['loss'] == pytest.approx(off['classification'])


def test_contrastive(run):
    kinds = ('infonce', 'duplicates', 'supervised', 'sigmoid')
    first = {k: evals(run('--contrastive', k, name=k)[0])[0]['contrastive'] for k in kinds}
    assert len({round(v, 6) for k, v in first.items() if k != 'duplicates'}) == 3 and first['sigmoid'] > 5
    assert 'logit_bias' in run('--contrastive', 'sigmoid', name='b')[1].model


def test_classification_and_its_parameters(run):
    start = lambda *f: evals(run(*f, '--fusion-dropout', 0, name='-'.join(map(str, f)).replace('/', ''))[0])[0]
    plain, focal = start('--classification', 'ce'), start('--classification', 'focal')
    hard = start('--classification', 'focal', '--focal-gamma', 5)
    smooth = start('--classification', 'ce', '--label-smoothing', 0.3)
    assert hard['classification'] < focal['classification'] < plain['classification']
    assert smooth['classification'] != plain['classification'] and smooth['accuracy'] <= 1


def test_adjust_tau(tiny, run):
    "Classes are even here: the same is added to all scores, which changes nothing. Rare classes get less."
    adjusted = lambda tau: run('--classification', 'adjusted', '--adjust-tau', tau, name=str(tau))[0]
    none, twice = (evals(adjusted(tau))[0]['classification'] for tau in (0, 2))
    assert none == pytest.approx(twice, abs=1e-4)
    rare = dict(classification='adjusted', counts=torch.tensor([1, 3]))
    prior = lambda tau: Objective(**rare, adjust_tau=tau).kind['log_prior']
    assert prior(1.).exp().tolist() == pytest.approx([0.25, 0.75]) and torch.allclose(prior(2.), 2*prior(1.))


def test_fusion(run):
    c = run('--fusion', 'gated', '--fusion-shared-dim', 24)[1]
    assert c.model_args['fusion'] == 'gated'
    assert c.model['gate.weigh.1.weight'].shape == (24, 48) and c.model['classifier.0.weight'].shape == (24,)


@pytest.mark.parametrize('flag, value', [('--modality-dropout', 0.5), ('--mixup', 0.4)])
def test_modality_dropout_and_mixup(run, flag, value):
    a, b = evals(run()[0])[0], evals(run(flag, value, name='b')[0])[0]
    assert b['train_loss'] != a['train_loss']
    if flag == '--modality-dropout': assert run(flag, value, name='c')[1].model_args['modality_dropout'] == 0.5


def test_weight_averaging(run):
    "Training goes on as if there were no average; dev and the checkpoint have it."
    off, on = run(), run('--weight-averaging', 0.5, name='b')
    assert [r['train_loss'] for r in evals(on[0])] == [r['train_loss'] for r in evals(off[0])]
    assert on[0][-1]['loss'] != off[0][-1]['loss']
    trained = torch.cat([v.flatten() for v in on[1].trainer['weights'].values()])
    assert torch.equal(trained, weights(off[1])) and not torch.equal(weights(on[1]), weights(off[1]))
    assert on[1].trainer['averaged'] == 8


@pytest.mark.parametrize('modality, other', [('audio', 'text'), ('text', 'audio')])
def test_modality(run, modality, other):
    c = run('--modality', modality)[1]
    assert list(c.encoders) == [modality] and not any(k.startswith(other) for k in c.model)


def test_save_path_overwrite_and_metrics_log(run, tmp_path):
    run()
    with pytest.raises(TamersError, match='holds an earlier run'): run()
    run('--overwrite', '--metrics-log', tmp_path/'elsewhere.jsonl')
    assert len(evals(read_log(tmp_path/'elsewhere.jsonl'))) == 2


def test_default_save_path_is_new(base, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in range(2): train(config_from_flags([*base, '--epochs', '1']))
    assert len(list((tmp_path/'checkpoints').glob('*/best.pt'))) == 2


def test_load_checkpoint_resumes(run, tmp_path):
    "Stopped after two of four epochs and resumed by naming the checkpoint and the epochs alone."
    whole = run('--epochs', 4, '--early-stop-patience', 0)
    run('--epochs', 2, '--early-stop-patience', 0, name='half')
    train(config_from_flags(['--load-checkpoint', str(tmp_path/'half'/'last.pt'), '--epochs', '4']))
    assert torch.equal(weights(load_checkpoint(tmp_path/'half'/'last.pt')), weights(whole[1]))
    assert [r['loss'] for r in read_log(tmp_path/'half'/'metrics.jsonl')] == [r['loss'] for r in whole[0]]


@pytest.mark.parametrize('flags', [(), ('--num-workers', 2, '--prefetch-factor', 3)])
def test_no_store_gives_the_same_numbers(run, flags):
    stored, streamed = run()[0], run('--no-store', '--epochs', 2, *flags, name='b')[0]
    for a, b in zip(evals(stored), evals(streamed)):
        assert (a['accuracy'], a['step']) == (b['accuracy'], b['step'])
        assert a['loss'] == pytest.approx(b['loss'], abs=1e-3)


def test_worker_flags_reach_the_loader(run, monkeypatch):
    seen = []
    real = Workers.loader
    monkeypatch.setattr(Workers, 'loader', lambda self, data: seen.append(self) or real(self, data))
    run('--no-store', '--epochs', 1, '--num-workers', 1, '--prefetch-factor', 5, '--no-pin-memory')
    assert {(w.num_workers, w.prefetch_factor, w.pin_memory) for w in seen} == {(1, 5, False)}


def test_loader_has_the_workers():
    w = Workers(num_workers=2, prefetch_factor=5).loader(list(range(8)))
    assert (w.num_workers, w.prefetch_factor) == (2, 5)
    assert Workers(num_workers=2).loader([1]).num_workers == 0


def test_amp(monkeypatch):
    "On a CPU the head trains in float32 either way; which precision the encoders take is tested beside them."
    assert make_accelerator('cpu', True).mixed_precision == make_accelerator('cpu', False).mixed_precision == 'no'
    seen = []
    monkeypatch.setattr(encoder, 'Encoder', lambda *a, dtype, **kw: seen.append(dtype))
    encoder.make_encoders('mini', 'mini', amp=False)
    encoder.make_encoders('mini', None, amp=True)
    assert seen == [torch.float32, torch.float32, None], 'None: the encoder takes the fastest precision that suits it'


@pytest.mark.parametrize('flag, value, words', [
    ('--batch-size', '0', 'at least 2'),
    ('--epochs', '0', 'at least 1'),
    ('--lr', '-1', 'above 0'),
    ('--fusion-dropout', '1', 'below 1'),
    ('--lr-decay-factor', '1.5', 'at most 1'),
    ('--wd-growth-factor', '0.5', 'at least 1'),
    ('--num-workers', '-1', 'at least 0'),
    ('--grad-accum-steps', '0', 'at least 1'),
    ('--min-lr', '1', 'at most --lr'),
    ('--max-weight-decay', '0.001', 'at least --weight-decay'),
    ('--device', 'cuda:7', 'no such device'),
    ('--interleave-period', '0', 'at least 1'),
    ('--weight-averaging', '1', 'below 1'),
    ('--mixup', '-1', 'at least 0'),
    ('--modality-dropout', '1.5', 'at most 1'),
    ('--label-smoothing', '1', 'below 1'),
])
def test_bad_values_are_refused(flag, value, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as e: tamers_train([flag, value])
    message = capsys.readouterr().err
    assert e.value.code == 2 and flag in message and value in message and words in message
    assert not list(tmp_path.iterdir()), 'nothing is written'


def test_every_flag_is_in_help(capsys):
    with pytest.raises(SystemExit): tamers_train(['--help'])
    text = capsys.readouterr().out
    for f in fields(TrainConfig): assert flag_of(f.name) in text
