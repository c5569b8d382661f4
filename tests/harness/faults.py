"""What a run survives: killed at any moment, or with a full disk, and started again until it ends; and what 300
epochs leave behind.

`python -m tests.harness.faults kills 100`, `full 50` and `soak 300 20 --draw` print their figures as JSON on the last
line; `--seed` draws other moments.
Everything is imported once, and each life of a run is a fork of that process.
"""
import contextlib, io, json, os, random, resource, select, signal, sys, tempfile, time, traceback
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from tests.harness import last_line

for name, value in dict(OMP_NUM_THREADS='1', NUMBA_NUM_THREADS='1', HF_HUB_OFFLINE='1', MPLBACKEND='Agg',
    TOKENIZERS_PARALLELISM='false').items():
    os.environ.setdefault(name, value)
EPOCHS, TRAIN, DEV = 3, 29, 15      # 44 rows in batches of 4 and of 8: no end is even
FLAGS = dict(device='cpu', num_workers=0, epochs=EPOCHS, batch_size=8, encode_batch_size=4, fusion_shared_dim=32,
    weight_averaging=0.9, train_sampler='weighted',
             eval_frequency='step', eval_every=1, contrastive_weight=0.5)


def figures(*command) -> dict:
    "Run one of the harnesses in a process of its own."
    return last_line('tests.harness.faults', *command)


# ---- a run that can be started again ----

def make_inputs(folder):
    "A manifest and three tars with the same made utterances, a tiny AST and a tiny GPT-2; the flags of a run on each."
    import torch
    from tests.encoders.test_encoder import MAKE
    from tests.store.test_shards import write_tar
    from tests.store.test_streams import made_rows, members, write_manifest
    rows = [*made_rows('train', train=TRAIN), *made_rows('dev', dev=DEV)]
    roots = [write_manifest(folder/'files', rows), folder/'shards']
    for i in range(3): write_tar(folder/'shards'/f'{i}.tar', members(rows[i*16:i*16 + 16]))
    torch.manual_seed(0)
    for kind, name in dict(audio='ast', text='gpt2').items():
        for part in MAKE[name](): part.save_pretrained(folder/kind)
    given = [x for k, v in FLAGS.items() for x in (f"--{k.replace('_', '-')}", str(v))]
    return [['--root', str(root), '--audio-encoder', str(folder/'audio'), '--text-encoder', str(folder/'text'),
        '--store-path', 'store', '--save-path', 'run', *given] for root in roots]


def live(folder, flags, before=lambda: None) -> tuple[int, int]:
    "One life of tamers-train, in a fork that works in `folder`: its process id, and the pipe in which its words are."
    sys.stdout.flush(), sys.stderr.flush()
    reader, writer = os.pipe()                  # not a file, which a full disk would cut
    if pid := os.fork():
        os.close(writer)
        return pid, reader
    code = 70
    try:
        os.chdir(folder)
        os.dup2(writer, 1), os.dup2(writer, 2)
        import tamers.store.ingest
        from tamers import commands
        from tamers.store.store import Pending
        # a shard after each batch, a tar in pieces of 8
        Pending.__init__.__kwdefaults__['every'], tamers.store.ingest.ingest.__kwdefaults__['chunk'] = -1., 8
        before()
        commands.tamers_train(flags)
        code = 0
    except SystemExit as e: code = e.code
    except BaseException: traceback.print_exc()
    finally:
        with contextlib.suppress(Exception): sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def ended(pid, reader, limit=120) -> tuple[int, str]:
    "The exit code of a life, negative for a signal, and what it said."
    end, said = time.monotonic() + limit, b''
    while select.select([reader], [], [], max(0, end - time.monotonic()))[0] and (some := os.read(reader, 65536)):
        said += some
    os.close(reader)
    if time.monotonic() >= end: os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if time.monotonic() >= end: raise RuntimeError(f'a life did not end: {said[-2000:]}')
    return code, said.decode()


def again(folder, flags):
    "The flags with which a run goes on: from last.pt if there is one, else from the start."
    last = folder/'run'/'last.pt'
    return ['--load-checkpoint', 'run/last.pt'] if last.exists() else [*flags, '--overwrite']


def held(folder) -> dict:
    "All that is valid in a folder: vectors by store and key, the checkpoints, the log; and the names of what is not."
    from tamers.model.checkpoint import load_checkpoint
    from tamers.store.store import read_block
    from tamers.training.watch import read_log
    found, bad = dict(vectors={}, checkpoints={}, log=[]), [str(p.name) for p in folder.rglob('*.damaged')]
    def tried(path, read):
        try: return read(path)
        except Exception as e: bad.append(f'{path.relative_to(folder)}: {e}')
    for path in sorted((folder/'store').rglob('*.safetensors')):
        keys, x, _ = tried(path, read_block) or ([], [], [])
        found['vectors'] |= {(path.parent.name, k): v.numpy().tobytes() for k, v in zip(keys, x)}
    for path in (folder/'store').glob('listings/*.jsonl'):
        tried(path, lambda p: [json.loads(line) for line in p.read_text().splitlines()])
    for path in (folder/'run').glob('*.pt'): found['checkpoints'][path.name] = tried(path, load_checkpoint)
    if (folder/'run'/'metrics.jsonl').exists(): found['log'] = tried(folder/'run'/'metrics.jsonl', read_log) or []
    return dict(found, bad=bad)


def lost(then, now) -> list:
    "What was valid and is no longer there, or no longer valid."
    gone = [*now['bad'], *(f'vector {k}' for k, v in then['vectors'].items() if now['vectors'].get(k) != v),
        *(f'{n} is gone' for n in then['checkpoints'].keys() - now['checkpoints'].keys())]
    steps = [x['checkpoints'].get('last.pt') and x['checkpoints']['last.pt'].trainer['step'] for x in (then, now)]
    if all(s is not None for s in steps) and steps[1] < steps[0]:
        gone.append(f'last.pt went back from step {steps[0]} to {steps[1]}')
    step = steps[0] or 0
    if [r for r in then['log'] if r['step'] <= step] != [r for r in now['log'] if r['step'] <= step]:
        gone.append(f'log up to step {step}')
    return gone


def flat(x, name=''):
    "(name, value) of every leaf of nested dicts and lists; tensors as their bits."
    import torch
    if isinstance(x, dict): return [y for k, v in x.items() for y in flat(v, f'{name}.{k}')]
    if isinstance(x, (list, tuple)): return [y for i, v in enumerate(x) for y in flat(v, f'{name}.{i}')]
    return [(name, (str(x.dtype), tuple(x.shape), x.contiguous().numpy().tobytes()) if isinstance(x, torch.Tensor)
        else x)]


def outcome(found) -> dict:
    "What must be the same to the bit, however often a run was started: but for the flags that say how it was started."
    ckpts = {name: asdict(c) for name, c in found['checkpoints'].items() if c}
    for c in ckpts.values():
        c['config'] = {k: v for k, v in c['config'].items() if k not in ('load_checkpoint', 'overwrite')}
    return dict(vectors=found['vectors'], log=[tuple(flat(r)) for r in found['log']], checkpoints=dict(flat(ckpts)))


def differences(a, b) -> list:
    "Names of what differs between two outcomes."
    return [f'{part}: {k}' for part in ('vectors', 'checkpoints')
        for k in sorted(a[part].keys() | b[part].keys(), key=str)
        if a[part].get(k) != b[part].get(k)] + ['log'] * (a['log'] != b['log'])


def undisturbed(folder, flags):
    "The outcome of a run in which nothing happens, how long it takes, and what it asks of the disk."
    folder.mkdir(parents=True)
    start = time.monotonic()
    code, said = ended(*live(folder, flags, lambda: count_events(folder)))
    if code: raise RuntimeError(f'{code}: {said}')
    took, found = time.monotonic() - start, held(folder)
    assert not found['bad'] and len(found['vectors']) == 2 * (TRAIN + DEV)
    assert set(found['checkpoints']) == {'best.pt', 'last.pt'} and len(found['log']) >= EPOCHS
    return dict(outcome=outcome(found), took=took, events=json.loads((folder/'events').read_text()))


def until_it_ends(folder, flags, want, then, figures):
    "Start a run until it ends, and compare."
    for _ in range(20):
        code, said = ended(*live(folder, again(folder, flags)))
        now = held(folder)
        figures['lost'] += lost(then, now)
        then = now
        if not code: break
    else: figures['stuck'].append(said[-500:])
    figures['runs'] += 1
    if differ := differences(want, outcome(now)): figures['differing'].append([str(folder.name), *differ[:6]])


# ---- killed ----

def phase(found) -> str:
    "Where a run was killed."
    if len(found['vectors']) < 2 * (TRAIN + DEV): return 'encoding'
    return 'training' if found['log'] or found['checkpoints'] else 'starting to train'


def kills(n, seed, folder) -> dict:
    "Kill runs at `n` random moments, each run as often as it takes; half of them read files, half tars."
    rng, figures = random.Random(seed), dict(kills=0, runs=0, lost=[], differing=[], stuck=[], phases=Counter())
    both = [(flags, undisturbed(folder/f'undisturbed{i}', flags)) for i, flags in enumerate(make_inputs(folder))]
    for i in range(10 * n):
        if figures['kills'] >= n: break
        (flags, want), here = both[i % 2], folder/f'run{i}'
        here.mkdir()
        then = held(here)
        for _ in range(min(rng.randint(1, 6), n - figures['kills'])):
            pid, reader = live(here, again(here, flags))
            time.sleep(rng.uniform(0, want['took']))
            with contextlib.suppress(ProcessLookupError): os.kill(pid, signal.SIGKILL)
            code, now = ended(pid, reader)[0], held(here)
            figures['lost'] += lost(then, now)
            then = now
            if code == -signal.SIGKILL: figures['kills'] += 1; figures['phases'][phase(now)] += 1
            else: break
        until_it_ends(here, flags, want['outcome'], then, figures)
    return dict(figures, seconds_of_a_run=round(both[0][1]['took'], 2))


# ---- a full disk ----

SPACE = ('open', 'fsync', 'replace', 'write')   # what fails: making a file, syncing it, renaming it; its bytes


def watch(event):
    "Call `event(kind)` before each thing that needs space on the disk: opening a file to write, syncing, renaming."
    def hook(name, args):
        if name == 'open' and isinstance(args[2],
            int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and '/dev/' not in str(args[0]):
            event('open')
        if name == 'os.rename': event('replace')
    sys.addaudithook(hook)
    real = os.fsync
    def fsync(f): event('fsync'); return real(f)
    os.fsync = fsync


def count_events(folder):
    "Leave the number of each in a file when the process ends."
    counts, real = Counter(), os._exit
    def leave(code):
        (folder/'events').write_text(json.dumps(counts))
        real(code)
    watch(lambda kind: counts.update([kind]))
    os._exit = leave


def fill(kind, n, room):
    "From the `n`-th time on the disk is full: that call fails, or (write) no file grows beyond `room` bytes."
    seen = Counter()
    def event(what):
        seen[what] += 1
        if kind == 'write' and what == 'open' and seen[what] == n:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        if kind == what and seen[what] >= n: raise OSError(28, 'No space left on device')
    watch(event)


def full(n, seed, folder) -> dict:
    "Fill the disk at `n` random points, see what is there, free it, and go on."
    rng, figures = random.Random(seed), dict(faults=0, runs=0, lost=[], differing=[], stuck=[], unclear=[],
        codes=Counter(), kinds=Counter())
    both = [(flags, undisturbed(folder/f'undisturbed{i}', flags)) for i, flags in enumerate(make_inputs(folder))]
    for i in range(n):
        (flags, want), here, kind = both[i % 2], folder/f'run{i}', SPACE[i // 2 % 4]
        here.mkdir()
        point, room = rng.randint(1, want['events']['open' if kind == 'write' else kind]), rng.randint(0, 3000)
        (code, said), found = ended(*live(here, flags, lambda: fill(kind, point, room))), held(here)
        figures['faults'] += 1
        figures['kinds'][kind] += 1
        figures['codes'][str(code)] += 1
        if code not in (0, 2) or 'Traceback' in said: figures['unclear'].append([kind, point, room, code, said[-2000:]])
        figures['lost'] += found['bad']
        until_it_ends(here, flags, want['outcome'], found, figures)
    return figures


# ---- a long life ----

def resident() -> float:
    "Resident memory of this process in MB, after what Python could free."
    import gc
    gc.collect()
    return int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize() / 1e6


class Watcher(io.StringIO):
    "Standard output that notes memory and open files at each line about an epoch."
    def __init__(self): super().__init__(); self.notes = []
    def write(self, text):
        if text.startswith('epoch'): self.notes.append((resident(), len(os.listdir('/proc/self/fd'))))


def soak(epochs, evaluations, folder, draw=False) -> dict:
    "Train and evaluate in one process; memory (MB) and open files after each epoch and each evaluation."
    from tamers.config import AnalyzeConfig, TrainConfig
    from tamers.evaluation.analyze import analyze
    from tamers.commands import config_from_flags
    from tamers.training.run import train
    os.chdir(folder)
    flags, said, after = make_inputs(folder)[0], Watcher(), []
    with contextlib.redirect_stdout(said):
        run = train(config_from_flags([*flags, '--epochs', str(epochs), '--eval-frequency', 'epoch',
            '--early-stop-patience', '0']))
        for _ in range(evaluations):
            analyze(AnalyzeConfig(checkpoint=str(run['best']), split='dev', out='out', figures=draw, store_path='store',
                device='cpu', num_workers=0), say=lambda line: None)
            after.append((resident(), len(os.listdir('/proc/self/fd'))))
    return dict(epochs=said.notes, evaluations=after)


def growth(mb) -> float:
    "By what share the second half of some measurements exceeds the end of the first quarter, which is to warm up."
    warm, late = mb[:max(1, len(mb) // 4)][-1], mb[len(mb) // 2:]
    return max(late) / warm - 1


if __name__ == '__main__':
    import argparse
    p = argparse.ArgumentParser()
    p.add_argument('what', choices=['kills', 'full', 'soak'])
    p.add_argument('n', nargs='+', type=int)
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--draw', action='store_true', help='soak: draw the figures of each evaluation, too')
    a = p.parse_args()
    import torch, sklearn.metrics, tamers.evaluation.analyze, tamers.training.run  # noqa: E401, F401, for every fork
    import transformers.models.auto.feature_extraction_auto, transformers.models.gpt2.modeling_gpt2  # noqa: E401, F401
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1)])      # imports much
    with tempfile.TemporaryDirectory() as tmp:
        os.environ['TAMERS_CACHE'] = f'{tmp}/cache'
        began = time.monotonic()
        if a.what == 'soak': found = soak(*a.n, Path(tmp), a.draw)
        else: found = dict(kills=kills, full=full)[a.what](*a.n, a.seed, Path(tmp))
        print(json.dumps(dict(found, seconds=round(time.monotonic() - began, 1))))
