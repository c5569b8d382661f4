"Corpora as streams: what is in a shard and what is broken in it, URLs, restarts, processes, EmoNet-Voice, transcripts."
import errno
import gzip
import http.server
import io
import json
import multiprocessing
import os
import random
import shutil
import sys
import tarfile
import threading
import tracemalloc
from collections import Counter
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
import transformers as tf

from tamers.data.audio import Clip, load_audio, probe
from tamers.core import TamersError, sha256
from tamers.store.emonet import emonet_label, is_emonet
from tamers.store.ingest import ingest
from tamers.store.listings import find_listing, open_listings, shard_corpus
from tamers.store.shards import expand_braces, find_shards, MOST_BYTES, read_shard, stamp
from tamers.data.files import FileIndex
from tamers.store.store import Item
from tamers.store.transcripts import Transcriber, Transcripts


def sound(pitch=200, seconds=0.3, format='WAV', rate=16_000):
    out = io.BytesIO()
    soundfile.write(out, 0.3 * np.sin(2 * np.pi * pitch * np.arange(int(rate * seconds)) / rate), rate, format=format)
    return out.getvalue()


def fields(**values): return json.dumps(values).encode()


def write_tar(path, members, mode='w'):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(data, tuple): info.type, info.linkname = data
            else: info.size = len(data)
            tar.addfile(info, None if isinstance(data, tuple) else io.BytesIO(data))
    return path


def samples(n, start=0, label='joy', **more):
    return {f'{i:05d}.{end}': data for i in range(start, start + n)
        for end, data in dict(json=fields(text=f'words {i}', label=label, **more), wav=sound(100 + i, 0.1)).items()}


def write_parquet(path, columns, names=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if names:
        table = table.replace_schema_metadata(dict(huggingface=json.dumps(dict(info=dict(features={k: dict(names=v,
            _type='ClassLabel') for k, v in names.items()})))))
    pq.write_table(table, path, **options)
    return path


def clips(n, start=0):
    return pa.array([dict(bytes=sound(100 + i, 0.1), path=f'{i}.wav') for i in range(start, start + n)],
        pa.struct(dict(bytes=pa.binary(), path=pa.string())))


def read_all(url):
    "The records before any error, and the error."
    records = []
    try:
        for r in read_shard(str(url)): records.append(r)
    except TamersError as e: return records, str(e)
    return records, None


class Encoder:
    "Stands in for the lead of the pipeline: remembers what it was given, fails or stops where it is told."
    def __init__(self, bad=(), stop_at=None): self.seen, self.pieces, self.bad, self.stop_at = [], [], bad, stop_at

    def __call__(self, records):
        if self.stop_at and any(r.id == self.stop_at for r in records): raise KeyboardInterrupt
        assert all(r.sha == sha256(r.data) and r.seconds > 0 for r in records)
        self.seen += [r.id for r in records]
        self.pieces.append(len(records))
        return {r.sha: 'not decoded' for r in records if r.id in self.bad}


def run(shards, folder, encode=None, **options):
    return ingest([str(s) for s in shards], encode or Encoder(), folder, progress=False, say=lambda line: None,
        **options)


# ---- tars ----

@pytest.mark.parametrize('name, mode', [('a.tar', 'w'), ('a.tar.gz', 'w:gz'), ('a.tgz', 'w:gz')])
def test_tar_of_several_formats(tmp_path, name, mode):
    kinds = dict(wav='WAV', flac='FLAC', mp3='MP3', ogg='OGG')
    members = {f'{end}.{x}': data for end, f in kinds.items()
        for x, data in {end: sound(format=f), 'txt': end.encode(), 'cls': b'joy'}.items()}
    records, error = read_all(write_tar(tmp_path / name, members, mode))
    assert error is None and [r.id for r in records] == list(kinds)
    for r in records:
        assert (r.fields, r.data) == (dict(text=r.id, label='joy'), members[f'{r.id}.{r.id}'])
        (tmp_path / f'x.{r.id}').write_bytes(r.data)
        np.testing.assert_array_equal(load_audio(r.clip), load_audio(tmp_path / f'x.{r.id}'))
        assert probe(r.clip) == probe(tmp_path / f'x.{r.id}')
        assert FileIndex(tmp_path / 'f.sqlite', probe)(tmp_path / f'x.{r.id}').sha == sha256(r.data)


def test_names_are_only_ids_and_links_are_nothing(tmp_path):
    outside = tmp_path / 'outside.wav'
    outside.write_bytes(sound(999))
    members = {'../outside.wav': sound(), '../outside.cls': b'joy', '/abs/b.wav': sound(300), '/abs/b.cls': b'joy',
        'link.wav': (tarfile.SYMTYPE, str(outside)),
               'hard.wav': (tarfile.LNKTYPE, '../outside.wav'), 'null.wav': (tarfile.CHRTYPE, ''),
               'pipe.wav': (tarfile.FIFOTYPE, ''), 'folder': (tarfile.DIRTYPE, ''), '._b.wav': b'\0'}
    before = sorted(p.name for p in tmp_path.iterdir())
    records, error = read_all(write_tar(tmp_path / 'in' / 'a.tar', members))
    assert error is None and [r.id for r in records] == ['../outside', '/abs/b']
    assert outside.read_bytes() == sound(999) and sorted(p.name for p in tmp_path.iterdir()) == sorted([*before, 'in'])
    listing, = run([tmp_path / 'in' / 'a.tar'], tmp_path / 'listings')
    assert (listing.count, listing.faults) == (2, 0)


def test_broken_members_are_named_and_counted(tmp_path, monkeypatch):
    monkeypatch.setitem(MOST_BYTES, 'clip', 20_000)
    members = samples(1) | {'big.wav': sound(seconds=2), 'big.cls': b'joy', 'noise.mp3': b'no sound at all',
        'noise.cls': b'joy', 'empty.wav': b'', 'empty.cls': b'joy', 'alone.json': fields(label='joy'),
        'json.wav': sound(250), 'json.json': b'{"label": ', 'take.1.wav': sound(260), 'take.2.wav': sound(270),
        'half.wav': sound(280), 'half.json': b'{"text": "\\ud83d", "label": "joy"}',
        'blip.wav': sound(seconds=0.01), 'blip.cls': b'joy', 'list.wav': sound(290), 'list.json': b'[1, 2]',
        'LICENSE': b'', 'deep.wav': sound(295), 'deep.json': b'[' * 15_000}
    encode = Encoder(bad=['00000'])
    listing, = run([write_tar(tmp_path / 'a.tar', members)], tmp_path / 'listings', encode)
    faults = {r['id']: r.get('fault') for r in listing.records()}
    told = dict(big='.wav is too large: 64044 bytes, and 20000 are allowed', noise='cannot be decoded', empty='no clip',
        alone='no clip', json='.json is not JSON', take='more than one clip',
                half='half a character', blip='0.0100 s of sound', deep='.json is not JSON')
    assert {'00000', 'list', *told} == set(faults) and faults['00000'] == 'not decoded' and faults['list'] is None
    for id, part in told.items(): assert part in faults[id], (id, faults[id])
    # `list` has no label
    assert (listing.complete, listing.count, listing.faults) == (True, 11, 10) and encode.seen == ['00000']


@pytest.mark.parametrize('name, mode', [('a.tar', 'w'), ('a.tar.gz', 'w:gz')])
def test_truncated_anywhere_is_never_silent(tmp_path, name, mode):
    path = write_tar(tmp_path / name, samples(4), mode)
    whole, good = path.read_bytes(), [(r.id, r.data) for r in read_all(path)[0]]
    end = len(whole.rstrip(b'\0'))
    cuts = {0, 100, 511, 512, *range(512, end - 64, 2048), *(random.Random(0).randrange(end - 64) for _ in range(20))}
    for cut in cuts:
        path.write_bytes(whole[:cut])
        records, error = read_all(path)
        assert error and name in error and 'cannot be read to its end' in error, cut
        assert [(r.id, r.data) for r in records] == good[:len(records)], cut
    assert len(records) < 4


def test_damaged_header_in_the_middle(tmp_path):
    path = write_tar(tmp_path / 'a.tar', samples(4))
    data = bytearray(path.read_bytes())
    at = data.index(b'00002.wav')
    data[at:at + 512] = os.urandom(512)
    path.write_bytes(data)
    records, error = read_all(path)
    assert [r.id for r in records] == ['00000', '00001'] and 'end mark' in error


def test_memory_does_not_grow_with_the_shard(tmp_path):
    def peak(n):
        path = write_tar(tmp_path / f'{n}.tar',
            {f'{i}.{end}': d for i in range(n) for end, d in dict(wav=clip, cls=b'joy').items()})
        tracemalloc.start()
        encode = Encoder()
        run([path], tmp_path / 'listings', encode, chunk=16)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(encode.pieces) == n and max(encode.pieces) == 16
        return used
    clip = sound(seconds=0.5)
    peak(64)                                                                      # what is loaded once
    few, many = peak(128), peak(1024)
    # bytes a record: its row of the listing, not its 16 kB of sound
    assert (many - few) / (1024 - 128) < 1500, (few, many)


def test_pieces_are_bounded_in_bytes(tmp_path, monkeypatch):
    import tamers.store.ingest
    monkeypatch.setattr(tamers.store.ingest, 'PIECE_BYTES', 3 * len(sound(seconds=0.1)))
    encode = Encoder()
    run([write_tar(tmp_path / 'a.tar', samples(8))], tmp_path / 'listings', encode)
    assert encode.pieces == [3, 3, 2]


# ---- parquet ----

def test_parquet_columns_by_type_and_class_labels(tmp_path):
    n = 40
    path = write_parquet(tmp_path / 'a.parquet',
        dict(clip=clips(n), Emotion=pa.array([i % 2 for i in range(n)]), Speaker_ID=pa.array([i % 3 for i in range(n)]),
        tokens=[[1, 2]] * n,
        Sentence=[f'words {i}' for i in range(n)], kind=pa.array(['a'] * n).dictionary_encode(), blob=[b'xx'] * n),
        dict(Emotion=['anger', 'joy']), row_group_size=7)
    records, error = read_all(path)
    assert error is None and [r.id for r in records] == [f'{i}.wav' for i in range(n)]
    assert records[3].fields == dict(emotion='joy', speaker_id=0, sentence='words 3', kind='a')
    assert records[3].data == sound(103, 0.1)


def test_parquet_that_is_not_as_expected(tmp_path):
    ints = write_parquet(tmp_path / 'ints.parquet', dict(audio=clips(2), label=[0, 1]))
    assert 'column label holds integers' in read_all(ints)[1] and 'ints.parquet' in read_all(ints)[1]
    bare = write_parquet(tmp_path / 'bare.parquet', dict(path=['a.wav'], label=['joy']))
    assert 'no column of clips' in read_all(bare)[1] and 'path (string), label (string)' in read_all(bare)[1]
    audio = pa.array([None, dict(bytes=None, path='b.wav'), dict(bytes=sound(), path=None)],
        pa.struct(dict(bytes=pa.binary(), path=pa.string())))
    holes = write_parquet(tmp_path / 'holes.parquet',
        dict(audio=audio, label=pa.array([None, 1, -1]), text=['a', None, '']), dict(label=['joy', 'fear']))
    listing, = run([holes], tmp_path / 'listings')
    rows = list(listing.records())
    assert [r['id'] for r in rows] == ['row1', 'b.wav', 'row3']
    assert [r.get('fault') for r in rows] == ['no clip', 'no clip', None]
    assert [r['fields'].get('label') for r in rows] == [None, 'fear', -1]
    assert [r['text'] for r in rows] == ['a', None, None]
    whole = holes.read_bytes()
    for cut in (0, 3, len(whole) // 2, len(whole) - 1):
        holes.write_bytes(whole[:cut])
        assert read_all(holes)[0] == [] and 'holes.parquet: cannot be read to its end' in read_all(holes)[1]


def test_parquet_broken_in_the_middle_keeps_what_came_before(tmp_path):
    path = write_parquet(tmp_path / 'a.parquet', dict(audio=clips(64), label=['joy'] * 64), row_group_size=16,
        compression='gzip')
    at = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[at:at + 2000] = b'\xff' * 2000
    path.write_bytes(data)
    records, error = read_all(path)
    assert len(records) == 32 and 'cannot be read to its end' in error
    listing, = run([path], tmp_path / 'listings')
    assert (listing.complete, listing.count) == (False, 32)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / 'a.parquet', dict(audio=clips(1), label=['joy']))
    for name in ('aiohttp', *(m for m in list(sys.modules) if m.split('.')[0] == 'pyarrow')):
        monkeypatch.setitem(sys.modules, name, None)
    for root in (path, 'https://localhost/a-*.tar'):
        with pytest.raises(TamersError, match=r"not installed .*; pip install 'tamers\[shards\]'"): find_shards(root)


# ---- finding ----

def test_braces():
    assert expand_braces('a') == ['a'] and expand_braces('{1..3}') == ['1', '2', '3']
    assert expand_braces('x{098..101}y') == ['x098y', 'x099y', 'x100y', 'x101y']
    assert expand_braces('{a,b}/{0..1}') == ['a/0', 'a/1', 'b/0', 'b/1'] and expand_braces('{3..1}') == []
    assert expand_braces('{a}') == ['{a}']


def test_find_shards(tmp_path):
    for name in ('train/x-001.tar', 'train/x-000.tar', 'dev/y.parquet', 'README.md', '.gitattributes',
        'dataset_infos.json'):
        (tmp_path / 'c' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'c' / name).touch()
    names = lambda found: [os.path.relpath(f, tmp_path / 'c') for f in found]
    assert names(find_shards(tmp_path / 'c')) == ['dev/y.parquet', 'train/x-000.tar', 'train/x-001.tar']
    for pattern in ('train/x-{000..001}.tar', '*/x-*.tar', 'train/x-00[01].tar'):
        assert names(find_shards(tmp_path / 'c' / pattern)) == ['train/x-000.tar', 'train/x-001.tar']
    assert names(find_shards(tmp_path / 'c/train/{x-001,x-000}.tar')) == ['train/x-001.tar', 'train/x-000.tar']
    assert names(find_shards(tmp_path / 'c/dev/y.parquet')) == ['dev/y.parquet']
    for pattern in ('c/train/x-{000..002}.tar', 'c/test/*.tar', 'c/*.md', 'c/x-{5..1}.tar'):
        with pytest.raises(TamersError, match='no shard matches'): find_shards(tmp_path / pattern)
    for odd in ('weird{0..1}.tar', 'some[1].tar'):
        (tmp_path / odd).touch()
        assert find_shards(tmp_path / odd) == [str(tmp_path / odd)]                # a file of that very name
    (tmp_path / 'c' / 'manifest.csv').touch()
    assert find_shards(tmp_path / 'c') is None and find_shards(tmp_path / 'c' / 'manifest.csv') is None
    assert find_shards(tmp_path / 'none') is None
    (tmp_path / 'void').mkdir()
    assert find_shards(tmp_path / 'void') is None
    with pytest.raises(TamersError, match='foo://x: '): find_shards('foo://x')


def test_a_folder_of_memory(tmp_path):
    import fsspec
    fs = fsspec.filesystem('memory')
    for name in ('corpus/train/a.tar', 'corpus/dev/b.tar', 'corpus/notes.txt'):
        fs.pipe(f'/{name}', write_tar(tmp_path / 'a.tar', samples(2, label='fear')).read_bytes())
    found = find_shards('memory://corpus')
    assert found == ['memory:///corpus/dev/b.tar',
        'memory:///corpus/train/a.tar'] == find_shards('memory://corpus/*/*.tar')
    corpus = shard_corpus('memory://corpus', run(found, tmp_path / 'l'))
    assert Counter(u.split for u in corpus.utterances) == dict(train=2, dev=2)


# ---- URLs ----

class Handler(http.server.BaseHTTPRequestHandler):
    root, pieces, asked, cut = None, True, None, None
    protocol_version = 'HTTP/1.1'

    def do_HEAD(self): self.do_GET(body=False)

    def do_GET(self, body=True):
        path = self.root / self.path.split('?')[0].lstrip('/')
        type(self).asked.append((self.command, self.path))
        if not path.is_file():
            self.send_response(404); self.send_header('Content-Length', '0'); self.end_headers()
            return
        data, span = path.read_bytes(), self.headers.get('Range') if self.pieces else None
        start, end = (int(x) for x in span.removeprefix('bytes=').split('-')) if span else (0, len(data) - 1)
        part = data[start:end + 1]
        self.send_response(206 if span else 200)
        if span: self.send_header('Content-Range', f'bytes {start}-{start + len(part) - 1}/{len(data)}')
        self.send_header('Content-Length', str(len(part)))
        self.send_header('ETag', sha256(data)[:8])
        self.end_headers()
        if not body: return
        if self.cut is not None and start + len(part) > self.cut:
            self.close_connection = True
            part = part[:max(0, self.cut - start)]
        self.wfile.write(part)

    def log_message(self, *args): pass


@pytest.fixture
def server(tmp_path):
    "A function that serves a folder; gives its URL and the handler, where each request is noted."
    servers = []
    def start(root, **settings):
        handler = type('H', (Handler,), dict(root=root, asked=[], **settings))
        servers.append(http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.05,), daemon=True).start()
        return f'http://127.0.0.1:{servers[-1].server_port}', handler
    yield start
    for s in servers: s.shutdown(); s.server_close()


@pytest.mark.parametrize('pieces', [True, False])
def test_tar_and_parquet_by_url(tmp_path, server, pieces):
    write_tar(tmp_path / 'web/train-0.tar', samples(5))
    write_tar(tmp_path / 'web/train-1.tar.gz', samples(5, 5), 'w:gz')
    write_parquet(tmp_path / 'web/dev.parquet', dict(audio=clips(4, 20), label=['fear'] * 4, text=['a', 'b', 'c', 'd']))
    url, handler = server(tmp_path / 'web', pieces=pieces)
    root = url + '/{train-0.tar,train-1.tar.gz,dev.parquet}?token=secret'
    shards = find_shards(root)
    listings = run(shards, tmp_path / 'listings')
    assert [x.count for x in listings] == [5, 5, 4 if pieces else 0]
    assert [x.complete for x in listings] == [True, True, pieces]
    assert not pieces or {u.split for u in shard_corpus(root, listings).utterances} == {'train', 'dev'}
    assert pieces or 'its server gives only whole files' in listings[2].end
    assert 'secret' not in ''.join(p.read_text() for p in (tmp_path / 'listings').iterdir())
    handler.asked.clear()
    run(shards[:2], tmp_path / 'listings')
    assert [method for method, _ in handler.asked] == ['HEAD', 'HEAD']             # the tags, and nothing else
    write_tar(tmp_path / 'web/train-0.tar', samples(6))
    assert run(shards[:1], tmp_path / 'listings')[0].count == 6                    # another tag: read again


def test_a_connection_that_breaks(tmp_path, server):
    path = write_tar(tmp_path / 'web/a.tar', samples(5))
    url, handler = server(tmp_path / 'web', cut=path.read_bytes().index(b'00003.json') + 100, pieces=False)
    records, error = read_all(f'{url}/a.tar')
    assert [r.id for r in records] == ['00000', '00001', '00002'][:len(records)]
    assert 'a.tar: cannot be read to its end' in error


def test_names_that_do_not_exist_are_known_before_anything_is_read(tmp_path, server):
    write_tar(tmp_path / 'web/a-0.tar', samples(2))
    url, handler = server(tmp_path / 'web')
    encode = Encoder()
    with pytest.raises(TamersError, match=r'a-1.tar: cannot be read.*\n.*a-2.tar: cannot be read'):
        run(find_shards(url + '/a-{0..2}.tar'), tmp_path / 'l', encode)
    assert encode.seen == []


def test_a_complete_corpus_needs_no_network(tmp_path, server):
    write_tar(tmp_path / 'web/a.tar', samples(2))
    url, handler = server(tmp_path / 'web')
    run([f'{url}/a.tar'], tmp_path / 'l')
    (tmp_path / 'web/a.tar').unlink()
    assert run([f'{url}/a.tar'], tmp_path / 'l')[0].count == 2
    with pytest.raises(TamersError, match='a.tar: cannot be read'):
        run([f'{url}/a.tar'], tmp_path / 'l', done=lambda listing: False)


# ---- restarts and processes ----

def own_threads():
    "Those of the package: the first progress bar of a process starts one that stays."
    return [t for t in threading.enumerate() if t.name != 'tqdm_monitor']


def test_interrupted_in_the_second_shard(tmp_path):
    shards = [write_tar(tmp_path / f'{i}.tar', samples(10, 10*i)) for i in range(3)]
    threads, encode = own_threads(), Encoder(stop_at='00014')
    with pytest.raises(KeyboardInterrupt): run(shards, tmp_path / 'l', encode, chunk=2)
    assert encode.seen == [f'{i:05d}' for i in range(14)] and own_threads() == threads
    assert [find_listing(tmp_path / 'l', str(s)) is None for s in shards] == [False, True, True]
    assert len(list((tmp_path / 'l').iterdir())) == 1
    with pytest.raises(TamersError, match='1.tar; .*2.tar: not read'):
        open_listings(tmp_path / 'l', [str(s) for s in shards])
    again = Encoder()
    listings = run(shards, tmp_path / 'l', again, chunk=2)
    assert again.seen == [f'{i:05d}' for i in range(10, 30)] and [x.count for x in listings] == [10] * 3
    assert listings == open_listings(tmp_path / 'l', [str(s) for s in shards])


def test_a_shard_is_read_again_when_it_changed_or_something_is_missing(tmp_path):
    path = write_tar(tmp_path / 'a.tar', samples(3))
    run([path], tmp_path / 'l')
    for changed, options in ((False, {}), (True, dict(done=lambda listing: False)),
        (True, dict(done=lambda listing: listing.count > 3))):
        encode = Encoder()
        run([path], tmp_path / 'l', encode, **options)
        assert bool(encode.seen) == changed
    os.utime(path, ns=(1, 1))
    encode = Encoder()
    run([path], tmp_path / 'l', encode)
    assert len(encode.seen) == 3
    listing = find_listing(tmp_path / 'l', str(path))
    for damage in ('', '{', '{"schema": 0}', '[]', '{"schema": 1}'):
        listing.path.write_text(damage)
        assert find_listing(tmp_path / 'l', str(path)) is None


def test_a_full_disk_leaves_no_half_listing(tmp_path, monkeypatch):
    path = write_tar(tmp_path / 'a.tar', samples(3))
    def full(handle): raise OSError(errno.ENOSPC, 'No space left on device')
    with monkeypatch.context() as m, pytest.raises(OSError, match='No space left'):
        m.setattr(os, 'fsync', full)
        run([path], tmp_path / 'l')
    assert list((tmp_path / 'l').iterdir()) == []
    assert run([path], tmp_path / 'l')[0].count == 3


def test_uneven_split_over_two_ranks(tmp_path):
    shards = [write_tar(tmp_path / f'{i}.tar', samples(i + 1, 10*i)) for i in range(3)]
    parts = [run(shards, tmp_path / 'l', rank=r, world=2) for r in range(2)]
    assert [[x.count for x in p] for p in parts] == [[1, 3], [2]]
    assert run(shards[:1], tmp_path / 'l', rank=1, world=2) == []
    assert [x.count for x in open_listings(tmp_path / 'l', [str(s) for s in shards])] == [1, 2, 3]


def test_an_error_of_the_encoder_is_not_a_fault_of_the_shard(tmp_path):
    def fails(records): raise TamersError('values that are not finite')
    with pytest.raises(TamersError, match='not finite'):
        run([write_tar(tmp_path / 'a.tar', samples(3))], tmp_path / 'l', fails)
    assert not (tmp_path / 'l').exists()


# ---- the corpus ----

def corpus_of(tmp_path, files, **options):
    for name, members in files.items(): write_tar(tmp_path / 'c' / name, members)
    return shard_corpus(str(tmp_path / 'c'), run(find_shards(tmp_path / 'c'), tmp_path / 'l'), **options)


def test_splits_by_field_by_name_and_by_hash(tmp_path):
    corpus = corpus_of(tmp_path / '1', {'a.tar': samples(2, split='train') | samples(1, 2, split='validation')
        | samples(1, 3, split='TEST')})
    assert [u.split for u in corpus.utterances] == ['train', 'train', 'dev', 'test']
    assert not any('dealt' in n for n in corpus.notes)
    corpus = corpus_of(tmp_path / '2', {'train-000.tar': samples(2), 'val-000.tar': samples(1, 2),
        'x/testing/a.tar': samples(1, 3)})
    assert [u.split for u in corpus.utterances] == ['train', 'train', 'dev', 'test']
    # words in folders count for nothing
    assert {u.split for u in corpus_of(tmp_path / 'test_of_train' / '2',
        {'dev/a.tar': samples(1), 'z.tar': samples(9, 3)}).utterances} == {'train', 'dev', 'test'}
    # as on the hub: no dev
    corpus = corpus_of(tmp_path / '3', {'train-000.tar': samples(60), 'test-000.tar': samples(5, 60)})
    assert Counter(u.split for u in corpus.utterances) == dict(train=57, dev=3, test=5)
    assert any('dealt out by the hash of their clip' in n for n in corpus.notes)
    voices = {k: v for i in range(11) for k, v in samples(3, 3*i, speaker=f'voice{i}').items()}
    corpus = corpus_of(tmp_path / '4', {'a.tar': voices})
    assert Counter(u.split for u in corpus.utterances) == dict(train=27, dev=3, test=3)
    assert len({(u.speaker, u.split) for u in corpus.utterances}) == 11
    assert [(u.id, u.split) for u in corpus.utterances] == [(u.id, u.split)
        for u in corpus_of(tmp_path / '5', {'other.tar': voices}).utterances]
    twins = {f'{i}.{end}': d for i in range(50)
        for end, d in dict(wav=sound(100 + i//2, 0.1), cls=b'joy', txt=b'hey').items()}
    corpus = corpus_of(tmp_path / '6', {'a.tar': twins})
    assert len({(u.sha, u.split) for u in corpus.utterances}) == 25  # a clip is on one side


def test_ids_order_and_evaluation(tmp_path):
    talk = {f'{i}.{end}': d for i, (dialogue, turn) in enumerate([('x', 1), ('y', 0), ('x', 0)])
        for end, d in dict(wav=sound(300 + i),
        json=fields(text='hm', label='fear', dialogue=dialogue, turn=turn)).items()}
    files = {'train-0.tar': talk, 'train-1.tar': samples(1)
        | {'0.wav': sound(), '0.json': fields(text='no', label='anger')}, 'dev.tar': samples(2)}
    corpus = corpus_of(tmp_path, files)
    assert [u.id for u in corpus.split('train')] == ['2', 'train-0.tar/0', '1', '00000', 'train-1.tar/0']
    assert corpus.split('train')[0].turn == 0
    listings = run(find_shards(tmp_path / 'c'), tmp_path / 'l')
    assert {u.split for u in shard_corpus(str(tmp_path / 'c'), listings, split='dev').utterances} == {'dev'}
    with pytest.raises(TamersError, match='no usable row in test'):
        shard_corpus(str(tmp_path / 'c'), listings, split='test')


def test_labels_texts_and_strictness(tmp_path):
    odd = {'a.wav': sound(500), 'a.json': fields(text='x', label='happy'), 'b.wav': sound(501),
        'b.json': fields(text='x'), 'c.wav': sound(502), 'c.json': fields(text=' ', label='Joy'),
           'd.mp3': b'noise', 'd.json': fields(text='x', label='joy'), 'e.wav': sound(503),
           'e.json': fields(text='it\x92s\xa0me', label='joy')}
    files = {'train.tar': samples(2) | odd, 'dev.tar': samples(2, 5)}
    corpus = corpus_of(tmp_path, files)
    reasons = {id: reason for _, id, reason in corpus.left_out}
    assert reasons['a'] == "label 'happy' is none of --classes." and reasons['b'] == 'no label'
    assert reasons['c'] == 'no transcript' and 'cannot be decoded' in reasons['d'] and len(reasons) == 4
    assert [u.text for u in corpus.utterances if u.id == 'e'] == ['it’s me']
    listings = run(find_shards(tmp_path / 'c'), tmp_path / 'l')
    assert 'c' in {u.id for u in shard_corpus(str(tmp_path / 'c'), listings, texts=False).utterances}
    with pytest.raises(TamersError, match='(?s)broken rows: 2.*train c: no transcript.*train d: cannot be decoded'):
        shard_corpus(str(tmp_path / 'c'), listings, strict=True)
    cut = (tmp_path / 'c/dev.tar').read_bytes()[:3000]
    (tmp_path / 'c/dev.tar').write_bytes(cut)
    listings = run(find_shards(tmp_path / 'c'), tmp_path / 'l')
    with pytest.raises(TamersError, match='(?s)dev.tar: cannot be read to its end.*--skip-bad'):
        shard_corpus(str(tmp_path / 'c'), listings, strict=True)
    with pytest.raises(TamersError, match='no usable row in dev'):
        shard_corpus(str(tmp_path / 'c'),
            [x for x in listings if x.complete] + [x for x in listings if not x.complete and not x.count])


def test_a_corpus_of_nothing(tmp_path):
    write_tar(tmp_path / 'a.tar', {'README.md': b'hello', 'train.tar.gz': gzip.compress(b'x')})
    with pytest.raises(TamersError, match='no record in 1 shards: .*a.tar: holds no clip'):
        shard_corpus(str(tmp_path / 'a.tar'), run([tmp_path / 'a.tar'], tmp_path / 'l'))


# ---- EmoNet-Voice ----

EMOTION = 'Impatience%20and%20Irritability'


def test_emonet_bench(tmp_path):
    votes = [(1, 2), (2, 1, 1), (0, 1), (2, 2)]
    labels = [str([{f'human-{i}': {name: v}} for i, v in enumerate(vs, 1)])
        for name, vs in zip([EMOTION, 'Elation', 'Fear', 'Shame'], votes)] * 30
    path = write_parquet(tmp_path / 'train-00000-of-00001.parquet', dict(audioId=clips(120), label=labels))
    assert all(is_emonet(r.fields) for r in read_all(path)[0])
    encode = Encoder()
    listings = run([path], tmp_path / 'l', encode, label_of=emonet_label)
    assert len(encode.seen) == 60  # rows without a class of ours are not encoded
    corpus = shard_corpus(str(path), listings, label_of=emonet_label, texts=False)
    assert Counter(u.label for u in corpus.utterances) == dict(anger=30, joy=30)
    assert Counter(reason.split(':')[0] for *_, reason in corpus.left_out) == {'not heard by every rater': 30,
        'a weaker sign of its class, off by default': 30}
    weak = shard_corpus(str(path), listings, label_of=partial(emonet_label, weak=True), texts=False)
    assert Counter(u.label for u in weak.utterances) == dict(anger=30, joy=30, sadness=30)
    shares = Counter(u.split for u in weak.utterances)
    assert sum(shares.values()) == 90 and min(shares.values()) >= 1 and set(shares) == {'train', 'dev', 'test'}


def test_emonet_big(tmp_path):
    from tamers.store.emonet import CORE, DROPPED, WEAKER
    names = [n.lower().replace('/', '_').replace(' ', '_') for part in (CORE, WEAKER) for ns in part.values()
        for n in ns] + [d.replace(' ', '-') for d in DROPPED]
    def row(**scores):
        return fields(**{n: 0 for n in names},
            **{}) if not scores else json.dumps({n: 0 for n in names} | scores | dict(language='de')).encode()
    rows = [row(anger=2), row(contempt=3, disgust=3), row(sadness=1, fear=1), row(doubt=2), row(),
        json.dumps(dict(emotions=json.loads(row(awe=1, fear=2)))).encode()]
    path = write_tar(tmp_path / 'big-000.tar',
        {f'{i}.{end}': d for i, r in enumerate(rows)
        for end, d in dict(mp3=sound(200 + i, format='MP3'), json=r).items()})
    records, _ = read_all(path)
    assert all(is_emonet(r.fields) for r in records)
    assert [emonet_label(r.fields)[0] for r in records] == ['anger', 'disgust', None, None, None, 'fear']
    listing, = run([path], tmp_path / 'l', label_of=emonet_label)
    assert [emonet_label(r['fields'])[0] for r in listing.records()] == ['anger', 'disgust', None, None, None, 'fear']


@pytest.mark.parametrize('label', ["__import__('os').system('touch /tmp/x')", '[{', "[{'human-1': {'Fear': 'x'}}]",
    '[' * 5000, "[{'a': {}}]", '[]', "{'a': 1}", "[{'a': [1]}]", '9' * 5000])
def test_labels_from_strangers(label):
    assert emonet_label(dict(label=label))[0] is None and not is_emonet(dict(label=label))


# ---- transcripts ----

@pytest.fixture(scope='module')
def ctc(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ctc')
    torch.manual_seed(0)
    letters = {c: i for i, c in enumerate(['<pad>', '|', '<unk>', *'abcdefgh'])}
    (folder / 'vocab.json').write_text(json.dumps(letters))
    tokenizer = tf.Wav2Vec2CTCTokenizer(str(folder / 'vocab.json'), unk_token='<unk>', pad_token='<pad>',
        word_delimiter_token='|', bos_token=None, eos_token=None)
    config = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4)
    model = tf.Wav2Vec2ForCTC(tf.Wav2Vec2Config(**config, vocab_size=len(letters), pad_token_id=0))
    for part in (model, tokenizer, tf.Wav2Vec2FeatureExtractor()): part.save_pretrained(folder)
    return folder


def noise(seconds, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(int(16_000 * seconds))).astype(np.float32)


def test_ctc_writes_the_same_in_any_company(ctc, tmp_path):
    transcriber = Transcriber(ctc, tmp_path)
    waves = [noise(s, i) for i, s in enumerate((0.03, 0.5, 2, 3.7, 70))]
    together = transcriber(waves)
    assert together == [transcriber([w])[0] for w in waves] and all(together)
    assert len(together[4]) > 2 * len(together[3])
    low = Transcriber(ctc, tmp_path, dtype=torch.bfloat16)
    assert low.spec != transcriber.spec and all(low(waves[:2]))


def test_the_spec_knows_the_weights_and_the_habits(ctc, tmp_path):
    before = Transcriber(ctc, tmp_path).spec
    changes = {'generation_config.json': lambda p: p.write_text('{"max_length": 7}'),
               'model.safetensors': lambda p: p.write_bytes(p.read_bytes()[:-1] + b'\1')}
    for name, change in changes.items():
        shutil.copytree(ctc, tmp_path / name)
        change(tmp_path / name / name)
        assert Transcriber(tmp_path / name, tmp_path).spec != before


def test_a_spec_stays_what_it_was(ctc, tmp_path):
    "The words of an earlier version are found again."
    spec = Transcriber(ctc, tmp_path).spec
    assert {k: v for k, v in spec.items() if k != 'identity'} == dict(schema=1, kind='transcript', family='wav2vec2',
        dtype='float32', decoding='greedy, 30 s', generation=None)


def test_recognisers_that_are_broken(ctc, tmp_path):
    bad = tmp_path / 'bad'
    shutil.copytree(ctc, bad)
    (bad / 'model.safetensors').write_bytes(b'rubbish')
    words = 'speech recogniser .*bad: its weights, tokenizer or feature extractor cannot be read'
    with pytest.raises(TamersError, match=words): Transcriber(bad, tmp_path)([noise(1)])
    config = json.loads((bad / 'config.json').read_text())
    (bad / 'config.json').write_text(json.dumps(config | dict(num_hidden_layers=3)))
    shutil.copy(ctc / 'model.safetensors', bad / 'model.safetensors')
    words = r'bad: \d+ of its weights are missing \(wav2vec2.encoder.layers.2'
    with pytest.raises(TamersError, match=words): Transcriber(bad, tmp_path)([noise(1)])
    (bad / 'config.json').write_text(json.dumps(config))
    about = json.loads((bad / 'preprocessor_config.json').read_text())
    (bad / 'preprocessor_config.json').write_text(json.dumps(about | dict(sampling_rate=8000)))
    with pytest.raises(TamersError, match='bad: wants sound at 8000 Hz'): Transcriber(bad, tmp_path)([noise(1)])
    (bad / 'config.json').write_text(json.dumps(config | dict(architectures=['Wav2Vec2ForPreTraining'])))
    with pytest.raises(TamersError, match='Wav2Vec2ForPreTraining.*writes no text'): Transcriber(bad, tmp_path)


def test_shards_without_words_are_transcribed_once(ctc, tmp_path):
    mute = {f'{i}.{end}': d for i in range(5) for end, d in dict(wav=sound(200 + 60*i, 0.5), cls=b'joy').items()}
    odd = {'spoken.wav': sound(900), 'spoken.json': fields(text='hello', label='joy'),
           'nan.wav': (nan := nan_clip()), 'nan.cls': b'joy'}
    path = write_tar(tmp_path / 'a.tar', mute | odd)
    transcriber, asked, texts = Transcriber(ctc, tmp_path / 'store'), [], {}

    def transcribe(records):
        asked.append(len(records))
        failures = transcriber.listen([Item(r.sha, r.clip, r.seconds) for r in records], batch_size=2, progress=False)
        return transcriber.texts.lookup(r.sha for r in records), failures

    def encode(records):
        texts.update({r.id: r.text for r in records})
        return {}

    listings = run([path], tmp_path / 'l', encode, transcribe=transcribe)
    assert asked == [6] and texts['spoken'] == 'hello' and len(texts) == 6
    assert all(isinstance(t, str) for t in texts.values())
    rows = {r['id']: r for r in listings[0].records()}
    assert rows['0']['text'] is None and rows['nan']['sha'] == sha256(nan)
    assert rows['nan']['fault'].startswith('holds 8000') and 'not finite' in rows['nan']['fault']
    lookup = Transcripts(tmp_path / 'store', transcriber.spec).lookup
    assert {u.id: u.text for u in shard_corpus(str(path), listings, lookup=lookup).utterances} == texts


def nan_clip():
    out = io.BytesIO()
    soundfile.write(out, np.full(8000, np.nan), 16_000, format='WAV', subtype='FLOAT')
    data = bytearray(out.getvalue())
    at = data.index(b'PEAK') + 12
    data[at:at + 4] = bytes(4)                # the time of day, by which a clip would be dealt to dev now and then
    return bytes(data)


class Tired(Transcriber):
    "Writes the length of a clip, and gives up at its third batch."
    def __init__(self, root, calls=0): self.texts, self.calls = Transcripts(root, dict(kind='transcript')), calls

    def __call__(self, waves):
        self.calls += 1
        if self.calls == 3: raise KeyboardInterrupt
        return [f'{len(w)}' for w in waves]


def test_interrupted_transcribing_keeps_what_was_written(tmp_path):
    lengths = range(1000, 2000, 100)
    clips = [Clip(str(n), sound(seconds=n / 16_000)) for n in lengths]
    items = [Item(sha256(c.data), c, n) for c, n in zip(clips, lengths)]
    tired, again = Tired(tmp_path), Tired(tmp_path, -99)
    with pytest.raises(KeyboardInterrupt): tired.listen(items, batch_size=2, progress=False)
    assert sorted(tired.texts.lookup(i.key for i in items).values()) == ['1600', '1700', '1800', '1900']
    assert again.listen(items, batch_size=2, progress=False) == {}
    assert again.calls == -96 and list(again.texts.lookup(i.key for i in items).values()).count('1900') == 1
    assert len(again.texts.lookup(i.key for i in items)) == 10


def write_many(root, rank):
    for i in range(20): Transcripts(root, dict(kind='transcript')).add({f'{rank}-{i}': 'x', f'both-{i}': 'y'})


def test_two_processes_write_transcripts(tmp_path):
    fork = multiprocessing.get_context('fork')
    processes = [fork.Process(target=write_many, args=(tmp_path, r)) for r in range(2)]
    for p in processes: p.start()
    for p in processes: p.join(60)
    assert [p.exitcode for p in processes] == [0, 0]
    written = Transcripts(tmp_path, dict(kind='transcript'))
    assert len(written.lookup([f'{k}-{i}' for k in ('0', '1', 'both') for i in range(400)])) == 60
    written.path.write_bytes(b'rubbish' * 1000)
    with pytest.raises(TamersError, match='texts.sqlite: cannot be read or written .*delete it'): written.lookup(['x'])
