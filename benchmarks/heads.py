"""Benchmarks of what is done many times: steps of the head, epochs from the store, and their growth with the corpus."""
from __future__ import annotations
import contextlib, shutil, tempfile, time
import torch
from tamers.config import TrainConfig
from tamers.core import sha256
from tamers.store.features import Split, StoredFeatures
from tamers.store.store import EmbeddingStore
from tamers.runs import make_accelerator
from tamers.training.run import make_trainer
from made import MELD, Made, fill_store
from measure import CORES, alternate, child, row
from plain import Loop, bare_epochs, trainer_epochs


def made_data(n: int) -> tuple:
    "Embeddings of `n` utterances, 768 numbers each, and labels."
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, 768, generator=g), torch.randn(n, 768, generator=g), torch.randint(7, (n,), generator=g)


def our_epochs(data: tuple, batch_size: int, epochs: int) -> float:
    "Steps a second of TAMERS' trainer."
    split = Split([], StoredFeatures(*data[:2]), data[2])
    t, start = make_trainer(TrainConfig(batch_size=batch_size, device='cpu'), make_accelerator('cpu', True), split,
        split, {})[0], time.perf_counter()
    for _ in range(epochs):
        for _ in t.steps(): pass
    return t.step / (time.perf_counter() - start)


def head(made: Made) -> dict:
    """The same head, losses and data three ways, in turn, with one thread and with all; the best of 3 rounds and of
    both (quick: 1 round). A fourth way has torch's own layers in the head."""
    data, rates, table = made_data(1100 if made.quick else MELD['train']), {}, []
    for size, epochs in ((64, 2), (1024, 4)):
        ways = dict(ours=our_epochs, bare=bare_epochs, trainer=lambda *a: trainer_epochs(*a, made.folder),
            torchs=lambda *a: bare_epochs(*a, torchs=True))
        for _ in range(1 if made.quick else 3):
            for threads in sorted({1, torch.get_num_threads()}):
                with limited(threads):
                    for name, way in ways.items(): rates.setdefault((name, size), []).append(way(data, size, epochs))
    best = {k: max(v) for k, v in rates.items()}
    for size in (64, 1024):
        for name, versus, least in (('bare', 'a bare loop over tensors', 0.9),
            ('trainer', "transformers' Trainer", 1.3 if size == 64 else 0.9),
            ('torchs', "a bare loop with torch's own layers", None)):
            table.append(row(f'head at batch {size}, vs {versus}', best['ours', size], best[name, size], unit='steps/s',
                versus=versus, more=True, wants={'ratio >=': least} if least else {}))
    return dict(rows=table, rates={f'{n} {s}': v for (n, s), v in rates.items()})


@contextlib.contextmanager
def limited(threads: int):
    "Torch with so many threads."
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try: yield
    finally: torch.set_num_threads(before)


def loop_seconds(made: Made) -> float:
    "Seconds an utterance of the plain loop over the 64 made ones; measured once in a run."
    if made.loop is None:
        import csv
        loop = Loop(*made.encoders)
        with open(made.spoken/'manifest.csv', newline='', encoding='utf-8') as f:
            rows = [r for r in csv.DictReader(f) if r['split'] == 'train']
        taken = alternate(1, audio=lambda: loop.audio([made.spoken/r['audio'] for r in rows]),
            text=lambda: loop.text([r['text'] for r in rows]))
        made.loop = sum(sum(s) for s in taken.values()) / len(rows)
    return made.loop


def epochs(made: Made) -> dict:
    """20 epochs from a full store, everything that `train` does but its imports, median of 3 fresh processes;
    against the plain loop's time an utterance, times rows and epochs."""
    n, rounds = (2, 1) if made.quick else (20, 3)
    def once():
        with tempfile.TemporaryDirectory(dir=made.folder) as folder:
            return child('train', cache=made.cache, settings=made.stored, epochs=n, folder=folder)['seconds']
    seconds = sorted(once() for _ in range(rounds))
    rows = MELD['train'] // (100 if made.quick else 1)
    return dict(rows=[row(f'{n} epochs of {rows:,} utterances from the store', seconds[len(seconds)//2],
        loop_seconds(made) * rows * n, unit='s',
                          versus='encoding in every step, extrapolated', wants={'ours <=': 6,
                              'ratio >=': 20_000})], seconds=seconds, loop_ms=1000 * made.loop)


def scale(made: Made) -> dict:
    """One epoch from stores of 1,000 to 100,000 made pairs of embeddings, each in a fresh process; `base_mb`: what
    the imports take."""
    points = []
    for n in (100, 300) if made.quick else (1_000, 3_000, 10_000, 30_000, 100_000):
        stores = made.folder/f'scale{n}'
        for kind in ('audio', 'text'):
            fill_store(EmbeddingStore(stores, dict(kind=kind)), [sha256(str(i)) for i in range(n)], 768, shard=2000)
        size = sum(f.stat().st_size for f in stores.rglob('*.safetensors'))
        points.append(dict(n=n, bytes=size) | child('epoch', cache=made.cache, stores=str(stores), n=n))
        shutil.rmtree(stores)
    first, last = points[0], points[-1]
    grown = (last['peak_mb'] - first['peak_mb']) * 1e6 / (last['n'] - first['n'])
    return dict(points=points, rows=[row(f"memory of training, growth an utterance ({first['n']:,} to {last['n']:,})",
        grown, unit='bytes'),
                                     row(f"load and train an epoch of {last['n']:,}", last['load'] + last['epoch'],
                                         unit='s')])
