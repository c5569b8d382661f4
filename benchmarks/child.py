"""What the benchmarks run in fresh processes: `python child.py NAME JSON`; the last line of its output is what it
measured."""
import time
BEGAN = time.time()
import json, os, resource, sys


def peak_mb() -> float:
    """The largest resident memory so far, in MB; from Linux's own count, since getrusage gives a process that of the
    one which started it."""
    try:
        return next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')) * 1024 / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024) / 1e6


def encode(root, store, encoders, batch_size):
    """Encode a corpus as tamers-train does, alone or as a process of torchrun; the weights are loaded before the
    clock starts."""
    from tamers.data.audio import SAMPLE_RATE, probe
    from tamers.store.features import encode_corpus
    from tamers.encoders.encoder import make_encoders
    from tamers.data.files import open_corpus
    from tamers.store.splits import gather_failures
    from tamers.data.files import FileIndex
    from tamers.store.store import Workers
    from tamers.runs import make_accelerator
    import numpy as np
    acc, made = make_accelerator('cpu', True), make_encoders(*encoders)
    for e, x in zip(made.values(), (np.zeros(SAMPLE_RATE, np.float32), 'words')): e.encode(e.prepare([x]))
    peaks = dict(loaded=peak_mb())
    index = FileIndex(f'{store}/files.sqlite', probe)
    with acc.main_process_first(): corpus = open_corpus(root, index)
    peaks['corpus'] = peak_mb()
    acc.wait_for_everyone()
    start = time.perf_counter()
    corpus, stores = encode_corpus(corpus, made, index, store, splits=('train', 'dev'), batch_size=batch_size,
        workers=Workers(2), rank=acc.process_index,
        world=acc.num_processes, merge=gather_failures, progress=False, say=lambda *_: None)
    acc.wait_for_everyone()
    peaks['encoded'] = peak_mb()
    if any(len(s) < len(corpus.utterances) for s in stores.values()): raise SystemExit('not everything was encoded')
    return dict(seconds=time.perf_counter() - start, peak_mb=peaks) if acc.is_main_process else None


def start(flags):
    """tamers-train up to its first step: when Python ran, the package was imported, the corpus read, the embeddings
    there, the step made."""
    from tamers.commands import tamers_train
    import tamers.store.splits, tamers.training.loop
    marks = dict(python=BEGAN, imports=time.time())
    def mark(module, name, key):
        "Note the time whenever the function returns."
        f = getattr(module, name)
        def timed(*args, **kwargs):
            out = f(*args, **kwargs)
            marks[key] = time.time()
            if key == 'step':
                print(json.dumps(marks), flush=True)
                os._exit(0)
            return out
        setattr(module, name, timed)
    mark(tamers.store.splits, 'open_corpus', 'corpus')
    mark(tamers.store.splits, 'make_split', 'store')
    mark(tamers.training.loop, 'train_step', 'step')
    tamers_train(flags)


def command(flags):
    "tamers-train from the start of its process to its end."
    from tamers.commands import tamers_train
    tamers_train(flags)
    return dict(ended=time.time())


def train(settings, epochs, folder):
    "Everything that `train` does, after one epoch elsewhere, for which Python imports what it needs."
    import contextlib, io
    from tamers.config import TrainConfig
    from tamers.training.run import train
    def seconds(n):
        "Of a run of `n` epochs."
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            train(TrainConfig(**settings, epochs=n, batch_size=256, early_stop_patience=0, save_path=f'{folder}/{n}'))
        return time.perf_counter() - start
    seconds(1)
    return dict(seconds=seconds(epochs))


def epoch(stores, n):
    "Load `n` pairs of embeddings and train one epoch on them, with an evaluation of a tenth."
    import torch
    from tamers.config import TrainConfig
    from tamers.core import sha256
    from tamers.store.features import Split, StoredFeatures
    from tamers.store.store import EmbeddingStore
    from tamers.runs import few_threads, make_accelerator
    from tamers.training.run import make_trainer
    cfg, acc = TrainConfig(batch_size=256, device='cpu'), make_accelerator('cpu', True)
    def run(features, n):
        "An epoch and an evaluation."
        labels = torch.arange(n) % 7
        dev = Split([], StoredFeatures(features.audio[:n//10], features.text[:n//10]), labels[:n//10])
        t = make_trainer(cfg, acc, Split([], features, labels), dev, {})[0]
        with few_threads(acc.device, cfg.batch_size):
            for _ in t.steps(): pass
            t.score(dev)
    small = torch.randn(64, 768)
    run(StoredFeatures(small, small), 64)   # the first run of a process imports much of torch
    base, start, keys = peak_mb(), time.perf_counter(), [sha256(str(i)) for i in range(n)]
    features = StoredFeatures(*(EmbeddingStore(stores, dict(kind=k)).get(keys) for k in ('audio', 'text')))
    loaded = time.perf_counter()
    run(features, n)
    return dict(load=loaded - start, epoch=time.perf_counter() - loaded, peak_mb=peak_mb(), base_mb=base)


def predict(seconds):
    "Import the package, load the model that ships, answer; what each took."
    import tamers
    model = tamers.load(device='cpu')
    load = time.time() - BEGAN
    from made import utterance
    from tamers.data.voice import generator
    import torch
    text, wave = utterance(seconds, generator(0, 77))
    def ms():
        "One answer."
        began = time.perf_counter()
        model.predict(wave, text, rate=16_000)
        return 1000 * (time.perf_counter() - began)
    times = [ms() for _ in range(11)]
    from measure import flops
    return dict(load=load, first_ms=times[0], next_ms=sorted(times[1:])[5], gflop=flops(ms) / 1e9, peak_mb=peak_mb())


if __name__ == '__main__':
    found = dict(encode=encode, start=start, command=command, train=train, epoch=epoch,
        predict=predict)[sys.argv[1]](**json.loads(sys.argv[2]))
    if found: print(json.dumps(found), flush=True)
