"""Benchmarks of what is done once for each utterance: the log-mel picture and the two encoders."""
from __future__ import annotations
import sys, tempfile
from pathlib import Path
import torch
import torch.multiprocessing as mp
from tamers.data.logmel import log_mel
from tamers.data.audio import probe
from tamers.store.features import encode_corpus, make_items
from tamers.encoders.encoder import make_encoders
from tamers.data.files import open_corpus
from tamers.data.files import FileIndex
from tamers.store.store import Workers, plan_batches
from made import Made, speech, spoken_corpus
from measure import CORES, alternate, child, flops, matmul_peaks, row
from plain import BATCH, Loop, log_mels


def logmel(made: Made) -> dict:
    "256 clips of MELD's lengths, to batches of 16 by length, as they are encoded; median of 5 (quick: 2)."
    waves = sorted((w for _, w in speech(16 if made.quick else 256)), key=len)
    batches = [waves[i:i + BATCH] for i in range(0, len(waves), BATCH)]
    def ours(): return [log_mel(b) for b in batches]
    def theirs(): return [log_mels(b) for b in batches]
    difference = max((x - y).abs().max().item() for x, y in zip(ours(), theirs()))
    s = {k: 1000 * sorted(v)[len(v)//2] for k, v in alternate(2 if made.quick else 5, ours=ours, theirs=theirs).items()}
    return dict(rows=[row(f'log-mel of {len(waves)} clips', s['ours'], s['theirs'], unit='ms',
        versus='ASTFeatureExtractor in a loop', difference=difference,
                          wants={'ratio >=': 3.5, 'difference <=': 1e-5})])


def centred_cosine(x: torch.Tensor, y: torch.Tensor) -> dict:
    "Cosine of each row with its counterpart after the means are taken away: plain cosine flatters."
    c = torch.cosine_similarity(x - x.mean(0), y - y.mean(0))
    return dict(mean=c.mean().item(), least=c.min().item())


def work_done(encoder, kind: str, items: list, load) -> float:
    """Operations of the batches as they are planned; of one clip for each bucket, since a batch costs as many times
    more as it has clips."""
    batches, known = plan_batches(items, BATCH), {}
    if kind == 'text': return sum(flops(encoder.encode, encoder.prepare([load(i.source) for i in b])) for b in batches)
    total = 0.
    for item in (i for b in batches for i in b):
        batch = encoder.prepare([load(item.source)])
        frames = int(batch['bucket'][0]) if encoder.buckets else 0
        if frames not in known: known[frames] = flops(encoder.encode, batch)
        total += known[frames]
    return total


def encode(made: Made, peak: dict) -> dict:
    """64 made utterances; the loop, TAMERS, and TAMERS with buckets in turn, three times, the fastest pass of each;
    models loaded before. `peak`: GFLOP/s by precision, measured again beside them; the highest counts."""
    from tamers.store.features import make_load
    index = FileIndex(made.folder/'files.sqlite', probe)
    corpus, loop = open_corpus(str(made.spoken), index), Loop(*made.encoders)
    rows, kinds = corpus.split('train'), ('audio', 'text')
    sources = dict(audio=[u.audio for u in rows], text=[u.text for u in rows])
    full, buckets = (make_encoders(*made.encoders, buckets=b) for b in (False, True))
    used = dict(full_audio=full['audio'], full_text=full['text'], buckets_audio=buckets['audio'])
    items = {k: make_items(k, rows, index) for k in kinds}
    found, done = {}, {}
    # loads the weights, too
    for name, e in used.items():
        done[name] = work_done(e, e.kind, items[e.kind], make_load(e)) / len(rows) / 1e9
    # of one clip: every one is padded to the window
    done['loop_audio'] = flops(loop.audio, sources['audio'][:1]) / 1e9
    done['loop_text'] = flops(loop.text, sources['text']) / len(rows) / 1e9
    def ours(name):
        e = used[name]
        with tempfile.TemporaryDirectory(dir=made.folder) as folder:
            stores = encode_corpus(corpus, {e.kind: e}, index, folder, splits=('train',), batch_size=BATCH,
                workers=Workers(2), progress=False, say=lambda *_: None)[1]
            found[name] = stores[e.kind].get([i.key for i in items[e.kind]])
    def plain(kind): found[f'loop_{kind}'] = getattr(loop, kind)(sources[kind])
    calls = {f'loop_{k}': lambda k=k: plain(k) for k in kinds} | {n: lambda n=n: ours(n) for n in used}
    def limit(): peak.update({k: max(v, peak[k]) for k, v in matmul_peaks(made.quick).items()})
    ms = {n: 1000 * min(s) / len(rows) for n, s in alternate(1 if made.quick else 3, **calls, limit=limit).items()
        if n in calls}
    made.loop = (ms['loop_audio'] + ms['loop_text']) / 1000
    near = {n: centred_cosine(found[n], found[f'loop_{e.kind}']) for n, e in used.items()}
    precision = 'bf16' if full['audio'].dtype == torch.bfloat16 else 'fp32'
    theirs, text = ms['loop_audio'] + ms['loop_text'], ms['full_text']
    share = {n: (done[f'{n}_audio'] + done['full_text']) / (ms[f'{n}_audio'] + text) * 1000 / peak[precision]
        for n in ('full', 'buckets')}
    loop_share = (done['loop_audio'] + done['loop_text']) / theirs * 1000 / peak['fp32']
    table = [row('encode an utterance, AST at full length', ms['full_audio'] + text, theirs, unit='ms',
        versus='a loop with transformers in fp32',
                 cosine=min(near['full_audio']['mean'], near['full_text']['mean']), wants={'ratio >=': 3,
                     'cosine >=': 0.997}),
             row('encode an utterance, AST in buckets', ms['buckets_audio'] + text, theirs, unit='ms',
                 versus='the same loop',
                 cosine=near['buckets_audio']['mean'], wants={'ratio >=': 12}),
             *(row(f'share of the {precision} peak ({peak[precision]:.0f} GFLOP/s), {label}', 100 * share[n],
                 100 * loop_share, unit='%', versus="the loop's share of the fp32 peak", more=True,
                   share=100 * share[n], wants={'share >=': 55}) for n, label in (('full', 'full length'), ('buckets',
                       'buckets')))]
    return dict(rows=table, ms=ms, gflop=done, cosine=near, utterances=len(rows), dtype=precision, batch=BATCH,
                seconds=sum(u.seconds for u in rows) / len(rows))


def processes(made: Made) -> dict:
    """32 clips at full length in two processes against one, two threads each, in turn, the faster of two; and the
    gradients of 2 and 4 processes against one."""
    result = dict(rows=[gradients(made)])
    if CORES < 4:
        return result | dict(skipped=f'encoding in 2 processes with 2 threads each needs 4 cores, here are {CORES}')
    few = spoken_corpus(made.folder/'few', 3 if made.quick else 31)
    def run(world):
        launcher = ('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(world)) if world > 1 else ()
        with tempfile.TemporaryDirectory(dir=made.folder) as store:
            return child('encode', launcher=launcher, threads=2, cache=made.cache, root=str(few), store=store,
                encoders=made.encoders, batch_size=8)
    seconds = {1: [], 2: []}
    for _ in range(1 if made.quick else 2):
        for world, taken in seconds.items(): taken.append(run(world)['seconds'])
    result['rows'].append(row('encode in 2 processes, 2 threads each', min(seconds[2]), min(seconds[1]), unit='s',
        versus='1 process, 2 threads', wants={'ratio >=': 1.7}))
    return result


def gradients(made: Made) -> dict:
    "The step of the tests, taken by 1, 2 and 4 processes: the largest difference of a gradient."
    sys.path.append(str(Path(__file__).parents[1]/'tests'))
    from test_processes import free_port, gradients as step
    worlds = (1, 2) if made.quick else (1, 2, 4)
    for world in worlds: mp.spawn(step, (world, 1, free_port(), str(made.folder)), nprocs=world)
    one, *others = (torch.load(made.folder/f'{w}-1-{rank}.pt') for w in worlds for rank in range(w))
    worst = max((other[k] - one[k]).abs().max().item() for other in others for k in one)
    return row('gradients of 2 and 4 processes, largest difference', worst, unit='', wants={'ours <=': 1e-5})
