"""Benchmarks of whole commands in fresh processes: the memory that encoding takes, and the time until training
begins."""
from __future__ import annotations
import shutil, statistics, tempfile
from made import Made, noise_corpus
from measure import child, row


def memory(made: Made) -> dict:
    """Largest resident memory after each stage of a command on corpora of growing size, each in a fresh process.

    Counted: the imports, the corpus from its manifest, hashes and durations of the clips, both stores, two tiny
    encoders (16 numbers a vector). Not counted: decoding workers, which hold a batch each."""
    points, sizes = [], (100, 400) if made.quick else (1_000, 5_000, 50_000)
    for n in sizes:
        root = noise_corpus(made.folder/f'memory{n}', dict(train=n, dev=1))
        with tempfile.TemporaryDirectory(dir=made.folder) as store:
            points.append(dict(n=n) | child('encode', cache=made.cache, threads=1, root=str(root), store=store,
                encoders=made.tiny, batch_size=16))
        shutil.rmtree(root)
    a, b = points[-2:]
    growth = {stage: (b['peak_mb'][stage] - a['peak_mb'][stage]) * 1e6 / (b['n'] - a['n']) for stage in a['peak_mb']}
    return dict(points=points, growth=growth,
        rows=[row(f"memory of encoding, growth an utterance ({a['n']:,} to {b['n']:,})", growth['encoded'],
        unit='bytes', wants={'ours <=': 1000})])


def start(made: Made) -> dict:
    """tamers-train from the start of its process to its first step, store complete, files in the cache of the
    system: the median of 5 second starts, and the first."""
    flags = [x for k, v in made.stored.items() for x in (f"--{k.replace('_', '-')}", v)]
    def once():
        with tempfile.TemporaryDirectory(dir=made.folder) as folder:
            marks = child('start', cache=made.folder/'start-cache',
                flags=[*flags, '--epochs', '1', '--save-path', f'{folder}/run'])
        times = [marks[k] for k in ('started', 'python', 'imports', 'corpus', 'store', 'step')]
        return dict(zip(('python', 'imports', 'corpus', 'store', 'rest', 'all'),
            [b - a for a, b in zip(times, times[1:])] + [times[-1] - times[0]]))
    first, *again = [once() for _ in range(3 if made.quick else 6)]
    parts = {k: statistics.median(run[k] for run in again) for k in first}
    rows = 'a hundredth of 13,708' if made.quick else '13,708'
    return dict(rows=[row(f'second start on {rows} rows until the first step', parts['all'], first['all'], unit='s',
        versus='the first start, which hashes clips and encoders', wants={'ours <=': 5})],
                parts=parts, first=first, all=[run['all'] for run in again])


def folds(made: Made) -> dict:
    """Twenty folds of 13,708 rows from a complete store, against twenty runs, each in a process of its own: of these
    the median of two is taken twenty times. Every head is trained for ten epochs; processes as there are cores."""
    n, epochs = (3, 1) if made.quick else (20, 10)
    flags = [x for k, v in made.stored.items() for x in (f"--{k.replace('_', '-')}", v)]
    flags += ['--epochs', str(epochs), '--early-stop-patience', '0', '--split-seed', '0']
    def seconds(*more):
        "Of one command."
        with tempfile.TemporaryDirectory(dir=made.folder) as folder:
            done = child('command', cache=made.cache, threads=1, flags=[*flags, '--save-path', f'{folder}/run', *more])
        return done['ended'] - done['started']
    seconds()   # clips and encoders are hashed
    one = [seconds() for _ in range(2)]
    all_folds = seconds('--folds', str(n), '--split-by', 'random', '--no-price')
    rows = 'a hundredth of 13,708' if made.quick else '13,708'
    return dict(rows=[row(f'{n} folds of {rows} rows, {epochs} epochs each', all_folds, n * statistics.median(one),
        unit='s', versus=f'{n} runs one after the other', wants={'ratio >=': 2.5})], one=one)
