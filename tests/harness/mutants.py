"""Broken input of every kind: valid files are changed by chance, and whatever reads them must give a result or a
`TamersError`, soon and in little memory.

`python -m tests.harness.mutants 2000` prints its figures as JSON on the last line; `--only wav checkpoint` takes some
kinds, `--show wav 17` says what case 17 does. A case is a kind and a number, from which its bytes follow (ogg files
carry a number that is drawn anew each time). Cases run in forks of one process; a fork that dies or hangs is a failure
of the case it was at.
"""
import contextlib, copy, gzip, io, json, math, os, random, resource, select, signal, sqlite3, struct, sys
import tarfile, tempfile, time, traceback
from collections import Counter
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from tests.harness import last_line

for name, value in dict(OMP_NUM_THREADS='1', NUMBA_NUM_THREADS='1', HF_HUB_OFFLINE='1', MPLBACKEND='Agg',
    TOKENIZERS_PARALLELISM='false').items():
    os.environ.setdefault(name, value)
SECONDS, MEMORY = 10, 1.5e9      # of a case: processor time, and address space beyond what the process had
HUNG = 40                        # seconds on the clock after which a case is given up


def figures(n, *flags) -> dict:
    "Run `n` cases in a process of its own."
    return last_line('tests.harness.mutants', n, *flags)


# ---- how bytes are changed ----

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
VALUES = (None, True, False, -1, 0, 1, 7, 2**31 - 1, 2**31, 2**63, 2**64, 10**30, -2**63, 0.5, 1e308, -1e308, 1e-320,
    math.nan, math.inf, -math.inf, '', ' ', 'x', 'nan', '1e999', 'joy', 'a' * 200_000,
          '\0', '\ud83d', '\u202e\u0301\ufeff', '../../../etc/passwd', '/etc/passwd', '/dev/zero', '=cmd()',
          '<script>alert(1)</script>', "'; DROP TABLE files; --", [], {}, [[]], [None] * 1000, {'a': {}},
          ['x', 1, None], {'': ''}, '9' * 5000, '٣', '1_000', [[[[[[[[]]]]]]]])


def flip(rng, data):
    for _ in range(rng.choice((1, 1, 2, 8, 64))): data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data

def overwrite(rng, data):
    "A number at its extreme, in the header more often than not."
    number, size, order = rng.choice(NUMBERS), rng.choice((1, 2, 4, 8)), rng.choice(('little', 'big'))
    at = rng.randrange(min(len(data), rng.choice((48, 128, len(data)))))
    data[at:at + size] = (number % 256**size).to_bytes(size, order)
    return data

def cut(rng, data): return data[:rng.randrange(len(data))]
def drop(rng, data):
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randrange(1, 1 + max(1, len(data) // 4)):]
def insert(rng, data):
    at = rng.randrange(len(data))
    return data[:at] + rng.choice((rng.randbytes(rng.choice((1, 4, 100, 5000))), bytes(rng.choice((1, 4, 100, 5000))),
        b'\xff' * 16)) + data[at:]
def repeat(rng, data):
    a, b = sorted(rng.randrange(len(data)) for _ in 'ab')
    return data[:b] + data[a:b] * rng.choice((1, 2, 30)) + data[b:]
def swap(rng, data):
    a, b, c = sorted(rng.randrange(len(data)) for _ in 'abc')
    return data[:a] + data[b:c] + data[a:b] + data[c:]

def by_bytes(rng, data):
    "One to three changes that know nothing of the format."
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if data:
            data = bytearray(rng.choice((flip, overwrite, overwrite, overwrite, cut, drop, insert, repeat, swap))(rng,
                data))
    return bytes(data)


SNIPPETS = (b'"', b'""', b"'", b'\0', b'\r', b'\n', b'\xef\xbb\xbf', b'\xff\xfe', b'\xed\xa0\xbd', b'\xf0\x9f\x98\x80',
    '\u202e\u0301'.encode(), b'\x85\x92', b',', b';' * 30, b'\t', b'\\', b'NaN', b'1e999', b'-1', b'9' * 5000,
            '٣'.encode(), '²'.encode(), b'=cmd()', b'../../../etc/passwd', b'/etc/passwd', b'/dev/zero',
            b'<script>alert(1)</script>', b'x' * 200_000, b'"' + b'y' * 150_000, b'[' * 60_000, b'{"a":' * 3000,
            b'null', b'true', b'{}', b'\\ud83d', b'~', b'\x1b[2J')

def by_lines(rng, data):
    "Changes to the words and lines of a table."
    lines = data.split(b'\n')
    for _ in range(rng.choice((1, 1, 2, 3))):
        i = rng.randrange(len(lines)) if rng.random() < .8 else 0
        cells, what = lines[i].split(b','), rng.randrange(9)
        j = rng.randrange(len(cells))
        if what == 0: cells[j] = rng.choice(SNIPPETS)
        elif what == 1:
            cells[j] = (at := rng.randrange(len(cells[j])
                + 1)) * b'' + cells[j][:at] + rng.choice(SNIPPETS) + cells[j][at:]
        elif what == 2: del cells[j]
        elif what == 3: cells.insert(j, rng.choice((b'', b'x', cells[j])))
        elif what == 4: cells[j] = rng.choice(rng.choice(lines).split(b','))
        lines[i] = b','.join(cells)
        if what == 5: del lines[i]; lines = lines or [b'']
        elif what == 6: lines.insert(rng.randrange(len(lines)), lines[i])
        elif what == 7: rng.shuffle(lines)
        elif what == 8:
            lines = [rng.choice((b'\xef\xbb\xbf', b'\xff\xfe', b''))
                + b'\n'.join(lines).decode('utf-8', 'replace').encode(rng.choice(('utf-8', 'utf-16', 'cp1252')),
                'replace')]
    return b'\n'.join(lines)


def places(tree, found=None):
    "(container, key) of every entry of nested dicts and lists."
    found = [] if found is None else found
    for k, v in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        found.append((tree, k))
        if isinstance(v, (dict, list)): places(v, found)
    return found

def by_tree(rng, tree, values=VALUES):
    "Entries of nested dicts and lists changed, deleted, or copied elsewhere."
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if not (all_of := places(tree)): return tree
        at, k = rng.choice(all_of)
        what = rng.randrange(8)
        if what == 0 and isinstance(at, dict): del at[k]
        # of this tree as it was: no value holds itself
        elif what == 1: at[k] = copy.deepcopy((other := rng.choice(all_of))[0][other[1]])
        elif what == 2 and isinstance(at[k], (int, float)) and not isinstance(at[k], bool):
            at[k] = rng.choice((at[k] * 10**6, -at[k], at[k] + 1, at[k] * 1000, at[k] / 3))
        else: at[k] = copy.deepcopy(rng.choice(values))
    return tree

def by_json(rng, data):
    "A changed tree, else changed text."
    if rng.random() < .3: return rng.choice((by_bytes, by_lines))(rng, data)
    return json.dumps(by_tree(rng, json.loads(data)), ensure_ascii=rng.random() < .8).encode('utf-8', 'surrogatepass')

def by_json_lines(rng, data):
    "The same for one line of several."
    if rng.random() < .4: return by_lines(rng, data)
    lines = data.strip().split(b'\n')
    i = rng.randrange(len(lines))
    lines[i] = by_json(rng, lines[i])
    return b'\n'.join(lines)


# ---- valid files ----

@lru_cache
def wave(seconds=.5, rate=16_000):
    import numpy as np
    return 0.3 * np.sin(2 * np.pi * 220 * np.arange(int(rate * seconds)) / rate)

def sound(format='WAV', subtype=None, rate=16_000, channels=1):
    import numpy as np, soundfile
    out = io.BytesIO()
    soundfile.write(out, np.stack([wave(rate=rate)] * channels, 1), rate, format=format, subtype=subtype)
    data = bytearray(out.getvalue())
    if (at := data.find(b'PEAK')) > 0: data[at + 12:at + 16] = bytes(4)     # the time of day
    return bytes(data)

def film():
    import av, numpy as np
    out = io.BytesIO()
    with av.open(out, 'w', format='mp4') as c:
        stream = c.add_stream('aac', rate=48_000, layout='stereo')
        frame = av.AudioFrame.from_ndarray(np.stack([wave(.3, 48_000)] * 2).astype(np.float32), format='fltp',
            layout='stereo')
        frame.sample_rate = 48_000
        for p in stream.encode(frame) + stream.encode(None): c.mux(p)
    return out.getvalue()

TABLE = 'Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime'

def meld():
    "A table of MELD, as text."
    emotions = 'joy anger neutral sadness fear disgust surprise'.split()
    rows = [f'{i},"Who put salt, salt! into my tea?",Olaf,{e},neutral,{i // 3},{i % 3},1,1,'
            f'"00:00:0{i},500","00:00:0{i + 1},250"' for i, e in enumerate(emotions)]
    return '\r\n'.join([TABLE, *rows, '']).encode()

def manifest():
    splits = (b'dev', b'train', b'train')
    rows = [b'clip.wav,"the %s line, number %d",%s,%s,Vera,d%d,%d\n' % (e, i, e, splits[i % 3], i // 4, i)
            for i, e in enumerate((b'joy', b'anger', b'neutral', b'fear') * 3)]
    return b'audio,text,label,split,speaker,dialogue,turn\n' + b''.join(rows)

def manifest_lines():
    return b''.join(json.dumps(dict(audio='clip.wav', text=f'line {i}', label=e, split='dev' if i % 3 == 0 else 'train',
        turn=i, dialogue=1)).encode() + b'\n' for i, e in enumerate(('joy', 'anger', 'neutral', 'fear') * 3))

def rows_of_shard(n=8):
    return {f'{i:03}.{end}': data for i in range(n)
        for end, data in dict(json=json.dumps(dict(text=f'words {i}', label=('joy', 'anger')[i % 2],
        split=('dev', 'train')[i % 3 > 0], turn=i)).encode(), wav=sound()).items()}

def tar():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as t:
        for name, data in rows_of_shard().items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
    return out.getvalue()

def table(columns=None):
    import pyarrow as pa, pyarrow.parquet as pq
    clips = pa.array([dict(bytes=sound(), path=f'{i}.wav') for i in range(8)],
        pa.struct(dict(bytes=pa.binary(), path=pa.string())))
    out, names = io.BytesIO(), json.dumps(dict(info=dict(features=dict(label=dict(names=['joy', 'anger'],
        _type='ClassLabel')))))
    given = columns or dict(audio=clips, text=[f'words {i}' for i in range(8)], label=[i % 2 for i in range(8)],
        split=['train', 'dev'] * 4)
    pq.write_table(pa.table(given).replace_schema_metadata(dict(huggingface=names)), out)
    return out.getvalue()

@lru_cache
def trained():
    "The parts of a small checkpoint, its trainer's state included."
    import torch
    from tamers.model.checkpoint import Checkpoint
    from tamers.config import TrainConfig
    from tamers.training.watch import BestScore, Plateau
    from tamers.model.fusion import FusionModel
    torch.manual_seed(0)
    args = dict(audio_dim=6, text_dim=5, shared_dim=4)
    model = FusionModel(**args)
    opt = torch.optim.AdamW([dict(params=[p for p in model.parameters() if p.ndim > 1]),
        dict(params=[p for p in model.parameters() if p.ndim < 2])])
    sum(p.sum() for p in model.parameters()).backward()
    opt.step()
    state = dict(optimizer=opt.state_dict(), plateau=asdict(Plateau(2, 1e-3, .5, 1e-6, 2., .1)),
        best=asdict(BestScore(8, 0.)), epoch=1, batch=0, step=3)
    spec = dict(schema=1, kind='audio', family='made', identity='x', window='1 s', pooling='mean', front_end='1',
        dtype='float32')
    metrics = dict(accuracy=.5, weighted_f1=.4, macro_f1=.3, uar=.3, loss=1.5, n=10, epoch=1, step=3)
    return asdict(Checkpoint({k: v.detach() for k, v in model.state_dict().items()}, args,
        {k: dict(spec=spec, name='made', revision=None) for k in ('audio', 'text')}, asdict(TrainConfig()), metrics,
        [1] * 7, state))

def saved(tree):
    import torch
    out = io.BytesIO()
    torch.save(tree, out)
    return out.getvalue()

def tensors():
    import torch
    z = torch.zeros(1)
    return (*VALUES, z, z.expand(2**40), z.expand(2, 2**33), torch.full((4, 4), math.nan), torch.zeros(0),
        torch.zeros(3, dtype=torch.complex64), torch.zeros(2, 2).to_sparse(), torch.zeros(3, dtype=torch.bool),
        z.half())

def vectors():
    import torch
    from tamers.store.store import write_block
    with tempfile.TemporaryDirectory() as tmp:
        write_block(Path(tmp)/'x.safetensors', [f'{i:064x}' for i in range(9)],
            torch.randn(9, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(9, dtype=torch.bool))
        return (Path(tmp)/'x.safetensors').read_bytes()

@lru_cache
def encoder_files(kind):
    "{name: bytes} of a tiny AST or GPT-2 in the hub's format."
    import torch
    from tests.encoders.test_encoder import MAKE
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as tmp:
        for part in MAKE[dict(audio='ast', text='gpt2')[kind]](): part.save_pretrained(tmp)
        return {p.name: p.read_bytes() for p in sorted(Path(tmp).iterdir())}

def log():
    return b''.join(json.dumps(dict(event='eval', epoch=i, step=3 * i, loss=1 / i, accuracy=.5, best=True)).encode()
        + b'\n' for i in range(1, 6))

def listing():
    rows = [dict(id=f'{i}', sha=f'{i:064x}', seconds=.5, text=f'words {i}',
        fields=dict(label='joy', split=('train', 'dev')[i % 2])) for i in range(6)]
    return '\n'.join(map(json.dumps, [dict(schema=1, shard='a.tar', stamp=dict(size='1', mtime='2'), complete=True,
        end=None, count=6, faults=0), *rows])).encode() + b'\n'

def database(table, row):
    with tempfile.TemporaryDirectory() as tmp:
        with contextlib.closing(sqlite3.connect(f'{tmp}/x')) as db, db:
            db.execute(table)
            for i in range(200):
                db.execute(f"INSERT INTO {table.split()[5]} VALUES ({','.join('?' * len(row))})",
                    [x(i) if callable(x) else x for x in row])
        return Path(f'{tmp}/x').read_bytes()


# ---- who reads them ----

def read_audio(name, data, here):
    "As a file and as bytes: both give finite sound of a bounded length, or refuse."
    import numpy as np
    from tamers.data.audio import Clip, load_audio, probe
    from tamers.core import TamersError
    (here/name).write_bytes(data)
    refused = []
    for source in (here/name, Clip(name, data)):
        for read in (probe, load_audio, partial(load_audio, max_seconds=.2)):
            try: x = read(source)
            except TamersError as e: refused.append(e); continue
            if isinstance(x, float): assert math.isfinite(x) and x > 0, x
            else: assert x.dtype == np.float32 and x.ndim == 1 and np.isfinite(x).all() and len(x) >= 400
    if len(refused) == 6: raise refused[0]

def check_corpus(corpus):
    from tamers.core import SPLITS
    for u in corpus.utterances:
        assert u.label in corpus.classes and u.split in SPLITS and u.id
        assert isinstance(u.text, str) and u.text.encode() is not None
    assert all(u.audio is None or os.path.isfile(u.audio) for u in corpus.utterances)
    corpus.summary().encode()

def read_table(name, data, here):
    "A corpus of which one table is changed."
    from tamers.data.load import load_corpus
    (here/'clip.wav').write_bytes(sound())
    for split in ('train', 'dev') if name.endswith('_sent_emo.csv') else ():
        (here/f'{split}_sent_emo.csv').write_bytes(meld())
        for d, u in ((i // 3, i % 3) for i in range(7)):
            (here/split).mkdir(exist_ok=True)
            (here/split/f'dia{d}_utt{u}.wav').write_bytes(sound())
    (here/name).write_bytes(data)
    check_corpus(load_corpus(here, skip_bad=True, probe=lambda path: 1.))

def read_shard_file(name, data, here):
    "A shard, streamed and listed."
    from tamers.store.ingest import ingest
    from tamers.store.listings import label_rule, shard_corpus
    (here/name).write_bytes(data)
    rule = label_rule(False)
    listings = ingest([str(here/name)], lambda records: {}, here/'listings', label_of=rule, progress=False,
        say=lambda line: None)
    check_corpus(shard_corpus(str(here), listings, label_of=rule))

def read_listing(name, data, here):
    "A listing that an earlier run left."
    from tamers.store.listings import _listing_path, find_listing, open_listings, shard_corpus
    shard = str(here/'a.tar')
    _listing_path(here, shard).write_bytes(data)
    if find_listing(here, shard) is not None: check_corpus(shard_corpus(str(here), open_listings(here, [shard])))

def read_checkpoint(name, data, here):
    "A checkpoint that is used, and resumed."
    import torch
    from types import SimpleNamespace
    from tamers.model.checkpoint import check_encoders, load_checkpoint
    from tamers.runs import find_checkpoint
    from tamers.config import TrainConfig
    from tamers.training.watch import BestScore, Plateau
    from tamers.training.step import param_groups
    from tamers.model.fusion import FusionModel
    from tamers.commands import config_from_flags
    from tamers.training.loop import Trainer
    from tamers.training.run import Run
    (here/'best.pt').write_bytes(data)
    ckpt = load_checkpoint(find_checkpoint(here))
    model = ckpt.build()
    args = ckpt.model_args
    with torch.no_grad(): model(*(torch.zeros(2, args[k]) if args.get(k) else None for k in ('audio_dim', 'text_dim')))
    check_encoders(ckpt, specs := {k: trained()['encoders'][k]['spec'] for k in ckpt.encoders}, 'x')
    config_from_flags(['--load-checkpoint', str(here/'best.pt')])
    model, encoders = FusionModel(**trained()['model_args']), {k: SimpleNamespace(spec=spec) for k,
        spec in specs.items()}
    train = SimpleNamespace(utterances=[], counts=torch.zeros(7, dtype=torch.long), classes=ckpt.classes)
    t = Trainer(model=model, optimizer=torch.optim.AdamW(param_groups(model, 0.)), best=BestScore(8, 0.),
        plateau=Plateau(2, 1e-3, .5, 1e-6, 2., .1), train=train, dev=None, batch_size=2,
        accelerator=SimpleNamespace(num_processes=1))
    cfg = TrainConfig(load_checkpoint=str(here/'best.pt'), save_path=str(here), epochs=10**6)
    Run(cfg=cfg, trainer=t, model_args=trained()['model_args'], encoders=encoders).resume(ckpt)
    sum(p.sum() for p in model.parameters()).backward()
    t.optimizer.step()

def read_store(name, data, here):
    "A shard of embeddings beside a valid one."
    from tamers.store.store import EmbeddingStore
    EmbeddingStore(here, dict(kind='audio'))
    folder, = here.glob('audio-*')
    (folder/'0.safetensors').write_bytes(data)
    (folder/'1.safetensors').write_bytes(vectors())
    with contextlib.redirect_stdout(io.StringIO()): store = EmbeddingStore(here, dict(kind='audio'))
    keys = [f'{i:064x}' for i in range(9)]
    assert store.has(keys).all() and store.get(keys).shape == (9, 5)

def read_encoder(kind, name, data, here):
    "An encoder of which one file is changed."
    import torch
    from tamers.encoders.encoder import Encoder
    for n, d in encoder_files(kind).items(): (here/n).write_bytes(d)
    (here/name).write_bytes(data)
    encoder = Encoder(kind, str(here))
    x = encoder.encode(encoder.prepare([wave().astype('float32')] * 2 if kind == 'audio' else ['some words', '']))
    assert x.shape[0] == 2 and x.dtype == torch.float32

def read_metrics(name, data, here):
    from tamers.training.watch import MetricsLog, read_log
    (here/'metrics.jsonl').write_bytes(data)
    read_log(here/'metrics.jsonl')
    MetricsLog(here/'metrics.jsonl', 6)(event='eval', step=9)

def read_flags(name, data, here):
    "A command line: argparse ends the process with 2 and a line of its own."
    from tamers.config import to_flags
    from tamers.core import TamersError
    from tamers.commands import config_from_flags
    argv = [a.decode('utf-8', 'surrogateescape') for a in data.split(b'\n')]
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            cfg = config_from_flags(argv)
    except SystemExit as e:
        assert e.code in (0, 2)
        if e.code: raise TamersError("argparse's own message") from e
        return
    to_flags(cfg)

def read_root(name, data, here):
    "Something given as a place of a corpus."
    from tamers.data.load import load_corpus
    from tamers.store.shards import find_shards
    root = data.decode('utf-8', 'surrogateescape')
    if '://' not in root and not find_shards(root): load_corpus(root)

def read_label(name, data, here):
    "The label of a row, as strangers write it."
    from tamers.store.listings import label_rule
    from tamers.store.shards import flatten
    try: row = json.loads(data)
    except (ValueError, RecursionError): row = dict(label=data.decode('utf-8', 'replace'))
    for weak in (False, True): label_rule(weak)(flatten(row))

def read_files(name, data, here):
    "What is remembered of files."
    from tamers.data.files import FileIndex
    (here/'files.sqlite').write_bytes(data)
    (here/'a.wav').write_bytes(sound())
    with contextlib.redirect_stdout(io.StringIO()): index = FileIndex(here/'files.sqlite', lambda path: 1.)
    for _ in range(2): index(here/'a.wav'); index.save()

def read_texts(name, data, here):
    "Transcripts of a recogniser."
    from tamers.store.transcripts import Transcripts
    Transcripts(here, dict(kind='transcript'))
    path, = here.rglob('texts.sqlite')
    path.write_bytes(data)
    t = Transcripts(here, dict(kind='transcript'))
    t.lookup([f'{i:064x}' for i in range(200)]); t.add({'a' * 64: 'words'})


def by_columns(rng, data):
    "A table whose columns have other types, names or contents."
    import pyarrow as pa
    if rng.random() < .5: return by_bytes(rng, data)
    value = lambda: rng.choice([['x'] * 8, list(range(8)), [None] * 8, [1.5] * 8, [[1, 2]] * 8,
        [dict(bytes=b'x', path='y')] * 8, [dict(bytes=None, path='../../x')] * 8, [dict(bytes='x', path=1)] * 8,
                                [dict(bytes=sound(), path='/etc/passwd')] * 8, [dict(bytes=sound(), path=None)] * 8,
                                [b'x'] * 8, [2**62] * 8, [-1] * 8, [True] * 8, ['\0'] * 8, ['joy'] * 8,
                                [dict(a=dict(b='joy'))] * 8])
    columns = dict(audio=[dict(bytes=sound(), path=f'{i}.wav') for i in range(8)], text=['a'] * 8, label=['joy'] * 8,
        split=['train', 'dev'] * 4)
    for _ in range(rng.choice((1, 2))):
        columns[rng.choice([*columns, 'id', 'turn', 'emotion', 'Label', 'x.y'])] = value()
    if rng.random() < .3: del columns[rng.choice(list(columns))]
    try: return table({k: pa.array(v) for k, v in columns.items()})
    except pa.ArrowException: return by_bytes(rng, data)

def by_members(rng, data):
    "A tar whose members have other names, kinds, sizes or contents, with checksums that fit; else changed bytes."
    if rng.random() < .4: return by_bytes(rng, data)
    out, names = io.BytesIO(), list(rows_of_shard())
    odd = ['../../x.wav', '/etc/x.wav', '.wav', 'x', '', 'a' * 300 + '.wav', '\udcff.wav', 'é\u202e.wav', '0/1/2.json',
        '000.wav', '000.json', 'x.cls', 'y.txt', 'a\nb.wav', '000.WAV', '.', '..']
    with tarfile.open(fileobj=out, mode='w',
        format=rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)),
        errors='surrogateescape') as t:
        chosen = {rng.randrange(len(names)): rng.randrange(5) for _ in range(rng.choice((1, 2, 3)))}
        for i, (name, data) in enumerate(rows_of_shard().items()):
            info, what = tarfile.TarInfo(name), chosen.get(i)
            if what == 0: info.name = rng.choice(odd)
            if what == 1:
                info.type, info.linkname = rng.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
                    tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE,
                    b'Z')), rng.choice(('/etc/passwd', '000.wav', '../x'))
            if what == 2: data = by_json(rng, data) if name.endswith('json') else by_bytes(rng, data)
            if what == 3:
                info.pax_headers = {rng.choice(('size', 'path', 'mtime', 'GNU.sparse.size', 'GNU.sparse.map', 'charset',
                    'hdrcharset')): rng.choice(('-1', '9' * 30, 'x', '1e9', '\0', '0,5'))}
            info.size = len(data) if what != 4 else rng.choice((0, 1, 2**33 - 1, len(data) * 2, 511))
            try: t.addfile(info, None if what == 1 else io.BytesIO(data) if what != 4 else None)
            except (ValueError, UnicodeError, OSError): pass
            if what == 4: t.fileobj.write(data); t.offset += len(data)
    return out.getvalue()

def by_contents(rng, data):
    "A checkpoint whose entries are changed, saved as a whole file; else changed bytes."
    return by_bytes(rng, data) if rng.random() < .35 else saved(by_tree(rng, trained(), tensors()))

def by_header(rng, data):
    "The JSON in front of a safetensors file changed, with a length that fits; else changed bytes."
    if rng.random() < .5: return by_bytes(rng, data)
    n = struct.unpack('<Q', data[:8])[0]
    head = json.dumps(by_tree(rng, json.loads(data[8:8 + n]))).encode('utf-8', 'surrogatepass')
    return struct.pack('<Q', len(head)) + head + data[8 + n:]

def by_flags(rng, data):
    "Some flags with values that are not meant for them."
    from dataclasses import fields
    from tamers.config import TrainConfig, flag_of
    flags = [f for f in fields(TrainConfig) if f.name != 'load_checkpoint']
    values = [str(v).encode('utf-8', 'surrogateescape') if '\ud83d' not in str(v) else b'\xff' for v in VALUES
        if not isinstance(v, (list, dict))]
    return b'\n'.join(x for _ in range(rng.choice((1, 2, 4)))
        for x in (flag_of(rng.choice(flags).name).encode(),
        rng.choice((*values, b'true', b'1,2', b'none', b'last', b'1e-3'))) [:rng.choice((1, 2, 2, 2))])

def by_place(rng, data):
    return rng.choice((b'', b'.', b'/nowhere', b'a\0b', b'x' * 900, b'{0..999999999999}.tar', b'{a,b,c}' * 40 + b'.tar',
        b'*' * 50 + b'.tar', b'[', b'[!', b'{', b'{1..0}.tar', b'/dev/zero', b'/dev/null', b'/etc/passwd', b'\xff\xfe',
        b'~nobody/x', b'~', b'/proc/self/mem', b'**/*.tar', b'a//..//b.csv', b'{9..1}.parquet',
        b'{000..1e9}.tar')) + rng.choice((b'', b'', b'.csv', b'.tar', b'.jsonl', b'/', b'/*.tar'))

def text_of(tree): return json.dumps(tree).encode()

FILES = 'CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, sha TEXT, seconds REAL)'
TEXTS = 'CREATE TABLE IF NOT EXISTS texts (sha TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID'
BENCH = dict(label="[{'rater': {'Anger': 2}}, {'rater': {'Anger': 1}}]", text='words')
BIG = dict(text='words') | {k: 1.5 for k in ('Elation', 'Amusement', 'Triumph', 'Fear', 'Distress', 'Sadness', 'Anger',
    'Disgust', 'Contempt', 'Awe', 'Relief')}
KINDS = {  # share of the cases; bytes; how they are changed; who reads them
    'wav': (10, sound, by_bytes, partial(read_audio, 'a.wav')),
    'float wav': (6, partial(sound, subtype='FLOAT', channels=2), by_bytes, partial(read_audio, 'a.wav')),
    'flac': (8, partial(sound, 'FLAC'), by_bytes, partial(read_audio, 'a.flac')),
    'mp3': (8, partial(sound, 'MP3'), by_bytes, partial(read_audio, 'a.mp3')),
    'ogg': (8, partial(sound, 'OGG'), by_bytes, partial(read_audio, 'a.ogg')),
    'opus': (4, partial(sound, 'OGG', 'OPUS', 48_000), by_bytes, partial(read_audio, 'a.opus')),
    'aiff': (3, partial(sound, 'AIFF'), by_bytes, partial(read_audio, 'a.aiff')),
    'mp4': (8, film, by_bytes, partial(read_audio, 'a.mp4')),
    'table of MELD': (8, meld, by_lines, partial(read_table, 'train_sent_emo.csv')),
    'manifest': (8, manifest, by_lines, partial(read_table, 'manifest.csv')),
    'manifest of lines': (6, manifest_lines, by_json_lines, partial(read_table, 'manifest.jsonl')),
    'tar': (8, tar, by_members, partial(read_shard_file, 'a.tar')),
    'tar.gz': (3, lambda: gzip.compress(tar(), mtime=0), by_bytes, partial(read_shard_file, 'a.tar.gz')),
    'parquet': (8, table, by_columns, partial(read_shard_file, 'a.parquet')),
    'label': (3, partial(text_of, BENCH), by_json, partial(read_label, None)),
    'scores': (2, partial(text_of, BIG), by_json, partial(read_label, None)),
    'checkpoint': (12, lambda: saved(trained()), by_contents, partial(read_checkpoint, None)),
    'store': (8, vectors, by_header, partial(read_store, None)),
    'listing': (3, listing, by_json_lines, partial(read_listing, None)),
    'log': (3, log, by_json_lines, partial(read_metrics, None)),
    'flags': (6, bytes, by_flags, partial(read_flags, None)), 'root': (2, bytes, by_place, partial(read_root, None)),
    'files.sqlite': (2, partial(database, FILES, (lambda i: f'/{i}', 1, 1, lambda i: f'{i:064x}', .5)), by_bytes,
    partial(read_files, None)),
    'texts.sqlite': (2, partial(database, TEXTS, (lambda i: f'{i:064x}', 'words')), by_bytes,
    partial(read_texts, None)),
    **{f'{kind} {name}': (share, lambda kind=kind, name=name: encoder_files(kind)[name],
    by_header if name.endswith('safetensors') else by_json, partial(read_encoder, kind, name)) for share, kind, name in
       ((4, 'audio', 'config.json'), (4, 'audio', 'preprocessor_config.json'), (3, 'audio', 'model.safetensors'),
       (4, 'text', 'config.json'), (3, 'text', 'tokenizer.json'), (2, 'text', 'tokenizer_config.json'))}}


# ---- cases ----

def make(kind, i) -> bytes:
    "The bytes of a case; number 0 is the valid file."
    _, valid, change, _ = KINDS[kind]
    return change(random.Random(f'{kind} {i}'), base(kind)) if i else base(kind)

@lru_cache
def base(kind): return KINDS[kind][1]()

def attempt(kind, i, root) -> tuple[str, str]:
    "What comes of a case: read, refused, or the place and name of another error."
    from tamers.core import TamersError
    with tempfile.TemporaryDirectory(dir=root) as here:
        data, before = make(kind, i), time.process_time()
        try: KINDS[kind][3](data, Path(here)); end = 'read', ''
        except TamersError as e:
            end = 'refused', str(e)
            if not end[1].strip() or len(end[1]) > 5000: end = 'unclear', end[1][:300]
        except BaseException as e:
            where = [f for f in traceback.extract_tb(e.__traceback__) if '/tamers/' in f.filename
                and '/tests/' not in f.filename]
            if where: place = f'at {where[-1].filename.rpartition("/")[2]}:{where[-1].lineno} {where[-1].name}'
            else: place = f'in {traceback.format_exc()[-600:]}'
            end = 'error', f'{type(e).__name__}: {str(e)[:200]} {place}'
    if (took := time.process_time() - before) > SECONDS: return 'slow', f'{took:.1f} s'
    return end

def work(cases, out, root):
    "A fork: cases one after the other, each told before and after."
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2), os.dup2(devnull, 1)
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    limit = int(pages * resource.getpagesize() + MEMORY)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**28, 2**28))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for case in cases:
        os.write(out, (json.dumps([*case, 'begins', '']) + '\n').encode())
        os.write(out, (json.dumps([*case, *attempt(*case, root)]) + '\n').encode())

def run(cases, root):
    "Yield (kind, number, end, message) of each case."
    cases = list(cases)
    while cases:
        reader, writer = os.pipe()
        if not (pid := os.fork()):
            try: os.close(reader); work(cases, writer, root)
            except BaseException: (Path(root)/'died').write_text(traceback.format_exc())
            finally: os._exit(0)
        os.close(writer)
        buffer, at, why = b'', None, None
        while True:
            if not select.select([reader], [], [], HUNG)[0]:
                why = 'hung', f'more than {HUNG} s'
                os.kill(pid, signal.SIGKILL)
                break
            if not (some := os.read(reader, 65536)): break
            buffer += some
            while b'\n' in buffer:
                line, _, buffer = buffer.partition(b'\n')
                *case, end, message = json.loads(line)
                if end == 'begins': at = tuple(case)
                else: at = None; cases.remove(tuple(case)); yield *case, end, message
        os.close(reader)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if at is None: assert not cases, (code, 'ended between two cases')
        else:
            cases.remove(at)
            yield *at, *(why or ('died', f'exit code {code} ' + (Path(root)/'died').read_text() if not code
                else f'exit code {code}'))

def choose(n, only=()):
    "Numbers of cases by kind, in proportion to the shares, and at least the valid file and one more."
    shares = {k: v[0] for k, v in KINDS.items() if not only or k in only}
    return [(kind, i) for kind, share in shares.items()
        for i in range(KINDS[kind][1] is bytes, max(1, round(n * share / sum(shares.values()))) + 1)]

def measure(n, only=(), also=(), folder=None) -> dict:
    "Run `n` cases and some others; how they ended by kind, and the failures."
    ends, failures, cases = {}, [], choose(n, only)
    for kind, i, end, message in run(dict.fromkeys([*cases, *also]), folder):
        if i == 0: end = 'read' if end == 'read' else 'valid file not read'
        else: ends.setdefault(kind, Counter())[end] += 1
        if end not in ('read', 'refused'): failures.append([kind, i, end, message])
    return dict(cases=sum(map(Counter.total, ends.values())), ends=ends, failures=failures)


if __name__ == '__main__':
    import argparse
    p = argparse.ArgumentParser()
    p.add_argument('n', type=int)
    p.add_argument('--only', nargs='*', default=[])
    p.add_argument('--also', nargs='*', default=[], help='kind:number of cases beside these')
    p.add_argument('--show', nargs=2)
    a = p.parse_args()
    import torch, pyarrow.parquet, tamers.training.run  # noqa: E401, F401, every fork has them
    import transformers.models.auto.feature_extraction_auto, transformers.models.gpt2.modeling_gpt2  # noqa: E401, F401
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as tmp:
        os.environ['TAMERS_CACHE'] = f'{tmp}/cache'
        if a.show:
            kind, i = a.show[0], int(a.show[1])
            print(len(make(kind, i)), make(kind, i)[:400])
            KINDS[kind][3](make(kind, i), Path(tempfile.mkdtemp(dir=tmp)))
            sys.exit()
        began = time.monotonic()
        print(json.dumps(dict(measure(a.n, a.only, [(k, int(i)) for k, _, i in (x.rpartition(':') for x in a.also)],
            tmp), seconds=round(time.monotonic() - began, 1))))
