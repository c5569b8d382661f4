"Errors without a noise: numbers that are none, encoders that changed, and runs that should have been the same."
import itertools
import os
import shutil
import signal
import subprocess
import sys
import numpy as np
import pytest
import safetensors.torch
import soundfile as sf
import torch
from tests.trust.test_faults import argv, code_of, corpus, told  # noqa: F401, fixtures are used by name
from tests.store.test_streams import encoders  # noqa: F401
import tamers.training.loop, tamers.store.splits
from tamers import commands
from tamers.data.demo import demo_corpus
from tamers.model.checkpoint import load_checkpoint, save_checkpoint
from tamers.runs import shipped_checkpoint
from tamers.core import EMOTIONS
from tamers.encoders.encoder import Encoder
from tamers.store.store import read_block, write_block
from tamers.training.watch import read_log


def analyze_dev(checkpoint):
    commands.tamers_analyze(['--checkpoint', str(checkpoint), '--split', 'dev', '--device', 'cpu', '--no-figures'])


def bytes_of(folder): return {p.name: p.read_bytes() for p in folder.glob('*.pt')}


# ---- numbers that are none ----

@pytest.mark.parametrize('value', ['nan', 'inf'])
@pytest.mark.parametrize('store', [True, False], ids=['store', 'no-store'])
def test_an_embedding_stops_the_run_and_names_its_clip(value, store, tmp_path, corpus, encoders, monkeypatch, capsys):
    encode, seen = Encoder.encode, []
    def spoilt(self, batch):
        x = encode(self, batch).clone()
        if self.kind == 'audio' and len(x) > 1 and not seen: x[1, 3] = float(value); seen.append(True)
        return x
    monkeypatch.setattr(Encoder, 'encode', spoilt)
    assert code_of(argv(corpus, tmp_path, encoders, *([] if store else ['--no-store']))) == 2
    err = capsys.readouterr().err
    said = f'{encoders["audio"]}: values that are not finite for 1 of ', '.wav)', '--no-amp'
    assert all(s in err for s in said) and 'Traceback' not in err
    assert not (tmp_path/'run').exists()


def test_an_embedding_in_the_store_is_looked_at_when_it_is_read(tmp_path, corpus, encoders, capsys):
    "With a checksum that fits: it was written so."
    assert code_of(argv(corpus, tmp_path, encoders)) == 0
    path = next((tmp_path/'store').glob('text-*/*.safetensors'))
    keys, x, cut = read_block(path)
    x[0, 0] = float('-inf')
    write_block(path, keys, x, cut)
    capsys.readouterr()
    assert code_of(argv(corpus, tmp_path, encoders, '--overwrite')) == 2
    told(capsys, path.parent, 'not finite for 1 of', 'delete this folder')


@pytest.mark.parametrize('what', ['loss', 'gradient'])
def test_a_step_that_goes_wrong_keeps_the_last_good_checkpoint(what, tmp_path, corpus, encoders, monkeypatch, capsys):
    "In the third of four epochs, in the second of its three steps."
    assert code_of(argv(corpus, tmp_path, encoders, '--epochs', 4, run='well')) == 0
    real, calls = tamers.training.loop.train_step, itertools.count(1)
    def spoilt(model, *args, **kw):
        if next(calls) != 8: return real(model, *args, **kw)
        hook = model.text_projection.weight.register_hook(lambda g: g * float('nan'))
        out = real(model, *args, **kw)
        hook.remove()
        return out | dict(loss=out['loss'] * float('inf')) if what == 'loss' else out
    monkeypatch.setattr(tamers.training.loop, 'train_step', spoilt)
    capsys.readouterr()
    assert code_of(argv(corpus, tmp_path, encoders, '--epochs', 4)) == 2
    err = capsys.readouterr().err
    said = f'error: step 8: the training {what} is not finite; utterances: train0', 'What was saved before is kept'
    assert all(s in err for s in (*said, 'smaller --lr'))
    last = load_checkpoint(tmp_path/'run'/'last.pt')
    assert last.trainer['epoch'] == 2 and all(v.isfinite().all() for v in last.model.values())
    well, log = read_log(tmp_path/'well'/'metrics.jsonl'), read_log(tmp_path/'run'/'metrics.jsonl')
    assert log == well[:2]
    monkeypatch.undo()
    assert code_of(['--load-checkpoint', str(tmp_path/'run'/'last.pt')]) == 0
    assert read_log(tmp_path/'run'/'metrics.jsonl') == well


def test_a_signal_after_a_bad_step_saves_nothing(tmp_path, corpus, encoders, monkeypatch, capsys):
    real, calls = tamers.training.loop.train_step, itertools.count(1)
    def spoilt(model, *args, **kw):
        out, n = real(model, *args, **kw), next(calls)
        if n == 4: model.text_projection.weight.data.fill_(float('nan'))
        if n == 5: os.kill(os.getpid(), signal.SIGINT)
        return out
    monkeypatch.setattr(tamers.training.loop, 'train_step', spoilt)
    assert code_of(argv(corpus, tmp_path, encoders)) == 2
    assert 'step 5: the training loss is not finite' in capsys.readouterr().err
    assert load_checkpoint(tmp_path/'run'/'last.pt').trainer['step'] == 3


@pytest.mark.parametrize('value', ['nan', 'inf'])
def test_a_head_that_lost_its_way_is_not_evaluated(value, tmp_path, corpus, encoders, capsys):
    assert code_of(argv(corpus, tmp_path, encoders)) == 0
    best = tmp_path/'run'/'best.pt'
    ckpt = load_checkpoint(best)
    ckpt.model['classifier.0.weight'][2] = float(value)
    save_checkpoint(ckpt, best)
    capsys.readouterr()
    with pytest.raises(SystemExit): analyze_dev(best)
    told(capsys, best, 'classifier.0.weight holds values that are not finite')
    assert not (tmp_path/'run'/'dev').exists()


def test_dev_scores_that_are_no_numbers_end_the_run(tmp_path, corpus, encoders, monkeypatch, capsys):
    "Training is sound and dev is not: the file of one clip of dev holds enormous values, say."
    make_split = tamers.store.splits.make_split
    def spoilt(corpus, name, *args, **kw):
        split = make_split(corpus, name, *args, **kw)
        if name == 'dev': split.features.audio[4] = float('inf')
        return split
    monkeypatch.setattr(tamers.store.splits, 'make_split', spoilt)
    assert code_of(argv(corpus, tmp_path, encoders)) == 2
    told(capsys, 'scores of the classes: values that are not finite for 1 of 15 inputs (')
    assert not bytes_of(tmp_path/'run') if (tmp_path/'run').exists() else True


# ---- what changed behind its name ----

def test_an_encoder_that_changed_under_the_same_name(tmp_path, corpus, encoders, capsys):
    folder = tmp_path/'gpt2'
    shutil.copytree(encoders['text'], folder)
    flags = argv(corpus, tmp_path, dict(encoders, text=folder))
    assert code_of(flags) == 0
    weights = safetensors.torch.load_file(folder/'model.safetensors')
    name = next(k for k in weights if k.endswith('ln_f.weight'))
    weights[name] = weights[name] * 1.5
    safetensors.torch.save_file(weights, folder/'model.safetensors', metadata=dict(format='pt'))
    capsys.readouterr()
    with pytest.raises(SystemExit): analyze_dev(tmp_path/'run')
    told(capsys, 'trained on the text encoder', 'identity: sha256:', 'then', 'now')
    assert code_of(['--load-checkpoint', str(tmp_path/'run'/'last.pt'), '--epochs', '3']) == 2
    told(capsys, 'identity')
    assert len(list((tmp_path/'store').glob('text-*'))) >= 1 and code_of([*flags, '--overwrite']) == 0
    assert len(list((tmp_path/'store').glob('text-*'))) == 2, 'its embeddings are kept apart from those of before'


OTHERS = {'fewer': (EMOTIONS[:6], 'names 6 classes, and its head chooses among 7'),
          'another': ([*EMOTIONS[:6], 'startle'], "unknown label 'surprise'"),
          'numbers': (list(range(7)), 'no name of a class'), 'text': ('anger', 'no list')}


@pytest.mark.parametrize('case', OTHERS)
def test_classes_are_stored_by_name_and_compared(case, tmp_path, corpus, encoders, capsys):
    source, (classes, said) = tmp_path/'best.pt', OTHERS[case]
    data = torch.load(shipped_checkpoint(), weights_only=True)
    assert data['classes'] == list(EMOTIONS)
    torch.save(dict(data, classes=classes if isinstance(classes, str) else list(classes)), source)
    asked = ['--checkpoint', str(source), '--root', str(demo_corpus()), '--device', 'cpu', '--num-workers', '0']
    with pytest.raises(SystemExit): commands.tamers_analyze(asked)
    told(capsys, said)


# ---- the same again ----

def stop_after(step):
    "A signal arrives in this step of training."
    real = tamers.training.loop.train_step
    calls = itertools.count(1)
    def limited(*args, **kw):
        if next(calls) == step: os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kw)
    return limited


IDEAS = ['--mixup', 0.4, '--weight-averaging', 0.9, '--contrastive', 'duplicates', '--classification', 'focal',
         '--modality-dropout', 0.2]
WEIGHTED, INTERLEAVED = ['--train-sampler', 'weighted'], ['--train-sampler', 'interleaved']
def every(steps): return ['--eval-frequency', 'step', '--eval-every', steps]
def parts(n): return ['--batch-size', 4, '--grad-accum-steps', n]
CASES = {
    'shuffle': ([], 3),
    'weighted': (WEIGHTED, 6),
    'interleaved': ([*INTERLEAVED, '--interleave-period', 2], 5),
    'accumulated': ([*parts(2), *WEIGHTED], 5),
    'accumulated-interleaved': ([*parts(3), *INTERLEAVED], 2),
    'mid-epoch': ([*every(3), '--eval-batches', 1, '--eval-shuffle'], 7),
    'mid-epoch-at-an-evaluation': (every(3), 6),
    'end-of-epoch': ([], 3),
    'end-of-run': (every(5), 9),
    'plateau': (['--hp-patience', 1, '--hp-tolerance', 100, *every(2)], 7),
    'ideas': (IDEAS, 6),
    'everything': ([*IDEAS, *parts(2), *WEIGHTED, *every(3), '--train-metrics-every', 2, '--log-eval-per-class'], 7),
    'streamed': (['--no-store', *WEIGHTED], 6)}


@pytest.mark.parametrize('case', CASES)
def test_resumed_equals_undisturbed_to_the_bit(case, tmp_path, corpus, encoders, monkeypatch):
    "A signal in the middle of one of three epochs: log, weights, averages, optimizer and best are as undisturbed."
    flags, step = CASES[case]
    common = [*flags, '--epochs', 3, '--fusion-dropout', 0.3]
    assert code_of(argv(corpus, tmp_path, encoders, *common, run='whole')) == 0
    with monkeypatch.context() as m:
        m.setattr(tamers.training.loop, 'train_step', stop_after(step))
        assert code_of(argv(corpus, tmp_path, encoders, *common, run='cut')) == 130
    assert load_checkpoint(tmp_path/'cut'/'last.pt').trainer['step'] == step
    assert code_of(['--load-checkpoint', str(tmp_path/'cut'/'last.pt')]) == 0
    assert read_log(tmp_path/'cut'/'metrics.jsonl') == read_log(tmp_path/'whole'/'metrics.jsonl')
    for name in ('last.pt', 'best.pt'):
        a, b = (load_checkpoint(tmp_path/run/name) for run in ('whole', 'cut'))
        assert alike(vars(a) | dict(config=None), vars(b) | dict(config=None))


def alike(a, b):
    "Equal to the bit, however deep."
    if torch.is_tensor(a): return torch.equal(a, b)
    if isinstance(a, dict): return a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(alike, a, b))
    return a == b or a != a and b != b


WITH_A_BAR = '''
import sys, tqdm
real = tqdm.tqdm.__init__
tqdm.tqdm.__init__ = lambda s, *a, disable=None, **k: real(s, *a, disable=False, **k)
from tamers.commands import tamers_train
tamers_train(sys.argv[1:])
'''


def test_the_same_seed_gives_the_same_bits_in_other_processes(tmp_path, corpus, encoders):
    "Other hash seeds, another store, decoding in workers, and a progress bar that looks at the numbers when it likes."
    code_of(argv(corpus, tmp_path/'a', encoders, *IDEAS))
    flags = argv(corpus, tmp_path/'b', encoders, *IDEAS, '--num-workers', 2)
    run = [sys.executable, '-c', WITH_A_BAR, *flags]
    subprocess.run(run, env=dict(os.environ, PYTHONHASHSEED='7'), check=True, capture_output=True)
    assert read_log(tmp_path/'a'/'run'/'metrics.jsonl') == read_log(tmp_path/'b'/'run'/'metrics.jsonl')
    for name in ('last.pt', 'best.pt'):
        a, b = (load_checkpoint(tmp_path/x/'run'/name) for x in 'ab')
        assert alike(a.model, b.model) and alike(a.trainer, b.trainer) and alike(a.metrics, b.metrics)
