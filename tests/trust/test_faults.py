"What breaks while a corpus is read, encoded or trained on is named; a second start ends as if nothing had been."
import contextlib, itertools, json, multiprocessing, os, signal, subprocess, sys, time
from collections import Counter
from pathlib import Path
import pytest
import torch
import tamers.data.files, tamers.model.checkpoint, tamers.training.loop
import tamers.store.ingest, tamers.store.listings, tamers.store.store, tamers.store.transcripts
from tests.training.test_processes import free_port
from tests.store.test_shards import nan_clip, sound, write_parquet, write_tar
from tests.store.test_streams import encoders  # noqa: F401, a fixture
from tests.store.test_streams import made_rows, members, save_whisper, table, write_manifest
from tamers import commands
from tamers.model.checkpoint import load_checkpoint
from tamers.core import atomic_path
from tamers.encoders.encoder import Encoder
from tamers.store.store import Pending, read_block
from tamers.training.watch import read_log

resource = pytest.importorskip('resource', reason='limits on a process exist on Unix alone')
TRAIN, DEV, BATCH = 29, 15, 4    # 44 rows in 11 batches: not to be divided by 2 or 3


def rows(): return [*made_rows('train', train=TRAIN), *made_rows('dev', dev=DEV)]


def argv(root, folder, encoders, *flags, run='run'):
    return ['--root', str(root), '--audio-encoder', str(encoders['audio']), '--text-encoder', str(encoders['text']),
        '--store-path', str(folder/'store'), '--save-path', str(folder/run),
        '--device', 'cpu', '--num-workers', '0', '--epochs', '2', '--batch-size', '8', '--encode-batch-size',
        str(BATCH), '--fusion-dropout', '0', *map(str, flags)]


def code_of(flags):
    "The exit code of tamers-train."
    try: commands.tamers_train(flags)
    except SystemExit as e: return e.code
    return 0


def vectors(folder):
    "{(store, key): bits} of what is stored; every shard is whole, and nothing else lies about."
    assert not list(folder.rglob('*.tmp')), 'a file was left half written'
    assert not list(folder.rglob('*.damaged'))
    found = {}
    for path in sorted((folder/'store').rglob('*.safetensors')):
        keys, x, _ = read_block(path)
        assert keys
        for k, v in zip(keys, x):
            assert found.setdefault((path.parent.name, k), v.numpy().tobytes()) == v.numpy().tobytes()
    for path in (folder/'store').glob('listings/*'):
        about, *lines = map(json.loads, path.read_text().splitlines())
        assert len(lines) == about['count']
    return found


def heard(folder): return sum(store.startswith('audio') for store, _ in vectors(folder))


def outcome(folder, run='run'):
    "What a run came to: dev metrics at each evaluation."
    return [(r['epoch'], r['step'], r['loss'], r['accuracy']) for r in read_log(folder/run/'metrics.jsonl')
        if r['event'] == 'eval']


def told(capsys, *words):
    "The one line on standard error, which has these words."
    err = capsys.readouterr().err
    assert 'Traceback' not in err and err.startswith('error: ') and len(err.strip().splitlines()) == 1, err
    for w in words: assert str(w) in err, err


@pytest.fixture(scope='module')
def corpus(tmp_path_factory): return write_manifest(tmp_path_factory.mktemp('corpus'), rows())


@pytest.fixture(scope='module')
def shards(tmp_path_factory):
    "Three tars; the splits are in the rows."
    folder, all_rows = tmp_path_factory.mktemp('shards'), rows()
    for i in range(3): write_tar(folder/f'{i}.tar', members(all_rows[i*16:i*16 + 16]))
    return folder


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory, corpus, shards, encoders):
    "{root: (vectors, outcome)} of runs in which nothing happened."
    found = {}
    with pytest.MonkeyPatch.context() as m:
        m.setitem(tamers.store.ingest.ingest.__kwdefaults__, 'chunk', 8)
        for root in (corpus, shards):
            folder = tmp_path_factory.mktemp('undisturbed')
            assert code_of(argv(root, folder, encoders)) == 0
            found[root] = vectors(folder), outcome(folder)
            assert len(found[root][0]) == 2 * (TRAIN + DEV) and len(found[root][1]) == 2
    return found


@pytest.fixture
def small_steps(monkeypatch):
    "Shards of the store are written after each batch, and tars are read in pieces of eight records."
    monkeypatch.setitem(Pending.__init__.__kwdefaults__, 'every', -1.)
    monkeypatch.setitem(tamers.store.ingest.ingest.__kwdefaults__, 'chunk', 8)


# ---- input that is broken ----

def test_broken_members_of_a_tar(tmp_path, encoders, capsys):
    bad = {'noise.mp3': b'no sound at all', 'noise.json': b'{"label": "joy", "text": "x", "split": "train"}',
        'nan.wav': nan_clip(), 'nan.json': b'{"label": "joy", "text": "y", "split": "train"}',
           'half.wav': sound(), 'half.json': b'{"label": '}
    root = write_tar(tmp_path/'x.tar', members(rows()) | bad)
    assert code_of(argv(root, tmp_path, encoders, '--no-skip-bad')) == 2
    err = capsys.readouterr().err
    assert 'x.tar: broken rows: 3' in err
    assert all(words in err for words in ('train noise: cannot be decoded',
        'train nan: holds 8000 samples that are not finite', ' half: .json is not JSON'))
    assert '--skip-bad' in err
    assert not (tmp_path/'run').exists() and heard(tmp_path) == TRAIN + DEV, 'the others were encoded'
    assert code_of(argv(root, tmp_path, encoders)) == 0
    out = capsys.readouterr().out
    assert 'Left out (3):' in out and all(name in out for name in ('train noise', 'train nan', ' half'))
    assert sum(load_checkpoint(tmp_path/'run'/'best.pt').train_counts) == TRAIN


def test_a_tar_that_ends_early(tmp_path, shards, encoders, undisturbed, small_steps, capsys):
    for p in sorted(shards.iterdir()):
        (tmp_path/'c').mkdir(exist_ok=True)
        (tmp_path/'c'/p.name).write_bytes(p.read_bytes())
    whole = (tmp_path/'c'/'1.tar').read_bytes()
    (tmp_path/'c'/'1.tar').write_bytes(whole[:whole.index(b'train022')])  # the seventh; the sixth may not be all there
    assert code_of(argv(tmp_path/'c', tmp_path, encoders, '--no-skip-bad')) == 2
    err = capsys.readouterr().err
    assert '1.tar: cannot be read to its end' in err and 'the 5 records before that are used' in err
    assert '--skip-bad' in err
    assert len(vectors(tmp_path)) == 2 * (16 + 5 + 12) and not (tmp_path/'run').exists()
    assert code_of(argv(tmp_path/'c', tmp_path, encoders)) == 0
    out = capsys.readouterr().out
    assert out.count('1.tar: cannot be read to its end') == 2 and 'its first 5 records are used' in out
    (tmp_path/'c'/'1.tar').write_bytes(whole)
    assert code_of(argv(tmp_path/'c', tmp_path, encoders, run='mended')) == 0
    got, want = vectors(tmp_path), undisturbed[shards][0]
    assert got.keys() == want.keys()
    assert outcome(tmp_path, 'mended') == [pytest.approx(row, abs=1e-3) for row in undisturbed[shards][1]]


@pytest.mark.parametrize('columns, words', [
    (lambda t: dict(path=t['text'], label=t['label']),
    ['no column of clips, a struct of bytes and path', 'path (string), label (string)']),
    (lambda t: dict(t, label=list(range(len(t['label'])))), ['column label holds integers', 'anger, disgust']),
    (lambda t: {k: v for k, v in t.items() if k != 'label'}, ['no usable row in train: no label (29)']),
    (lambda t: {k: v for k, v in t.items() if k != 'text'}, ['no usable row in train: no transcript (29)']),
], ids=['clips', 'integers', 'label', 'text'])
def test_a_parquet_without_what_is_needed(columns, words, tmp_path, encoders, capsys):
    root = write_parquet(tmp_path/'x.parquet', columns(table(rows())))
    assert code_of(argv(root, tmp_path, encoders)) == 2
    told(capsys, 'x.parquet: ', *words)
    assert not (tmp_path/'run').exists() and not any(store.startswith('text') for store, _ in vectors(tmp_path))


def test_one_bad_shard_among_good_ones(tmp_path, shards, encoders, capsys):
    for p in sorted(shards.iterdir()):
        (tmp_path/'c').mkdir(exist_ok=True)
        (tmp_path/'c'/p.name).write_bytes(p.read_bytes())
    write_parquet(tmp_path/'c'/'9.parquet', dict(path=['a.wav'], label=['joy']))
    (tmp_path/'c'/'8.tar').write_bytes(b'')
    assert code_of(argv(tmp_path/'c', tmp_path, encoders)) == 0
    out = capsys.readouterr().out
    assert '9.parquet: has no column of clips' in out and '8.tar: cannot be read to its end' in out
    assert out.count('the 0 records before that are used') == 2
    assert len(vectors(tmp_path)) == 2 * (TRAIN + DEV)


# ---- a disk that is full ----

@contextlib.contextmanager
def small_files():
    "No file grows beyond 100 bytes: the error is the operating system's, as on a full disk."
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try: yield
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def full_disk(module, n):
    "The disk is full once `module` has begun the `n`-th of its files."
    calls = itertools.count(1)
    @contextlib.contextmanager
    def limited(path):
        with atomic_path(path) as tmp, small_files() if next(calls) >= n else contextlib.nullcontext(): yield tmp
    with pytest.MonkeyPatch.context() as m:
        m.setattr(module, 'atomic_path', limited)
        yield


WRITERS = dict(store=tamers.store.store, listings=tamers.store.listings, checkpoint=tamers.model.checkpoint)


@pytest.mark.parametrize('kind, module, n',
    [('corpus', 'store', 1), ('corpus', 'store', 17), ('shards', 'store', 1), ('shards', 'store', 4),
    ('shards', 'listings', 1), ('shards', 'listings', 3),
                                             ('corpus', 'checkpoint', 1), ('shards', 'checkpoint', 3)])
def test_a_full_disk(kind, module, n, request, tmp_path, encoders, undisturbed, small_steps, capsys):
    # the stores' own spec.json are its first files
    root, started = request.getfixturevalue(kind), 2 if module == 'store' else 0
    with full_disk(WRITERS[module], n + started): assert code_of(argv(root, tmp_path, encoders)) == 2
    told(capsys, tmp_path/'run' if module == 'checkpoint' else tmp_path/'store')
    got, want = vectors(tmp_path), undisturbed[root][0]
    assert all(want[k] == v for k, v in got.items())
    assert len(got) == len(want) if (module, n) in (('checkpoint', n), ('listings', 3)) else len(got) < len(want)
    assert got or n == 1, 'what was written before stays'
    for p in (tmp_path/'run').glob('*.pt'): load_checkpoint(p)
    assert code_of(argv(root, tmp_path, encoders, '--overwrite')) == 0
    assert vectors(tmp_path) == want and outcome(tmp_path) == undisturbed[root][1]


@pytest.mark.parametrize('name, n', [('replace', 1), ('fsync', 5), ('replace', 12), ('fsync', 24), ('replace', 28)])
def test_a_disk_that_fails_at_any_file(name, n, tmp_path, corpus, encoders, undisturbed, small_steps, monkeypatch,
    capsys):
    "The n-th file and all later ones cannot be finished: specs, shards of both stores, the log, checkpoints."
    real, calls = getattr(os, name), itertools.count(1)
    def fails(*args, **kwargs):
        if next(calls) >= n: raise OSError(28, 'No space left on device')
        return real(*args, **kwargs)
    with monkeypatch.context() as m:
        m.setattr(tamers.core.os, name, fails)
        assert code_of(argv(corpus, tmp_path, encoders)) == 2
    told(capsys, 'No space left on device', tmp_path)
    got, want = vectors(tmp_path), undisturbed[corpus][0]
    assert all(want[k] == v for k, v in got.items()) and (n < 5 or got)
    assert code_of(argv(corpus, tmp_path, encoders, '--overwrite')) == 0
    assert vectors(tmp_path) == want and outcome(tmp_path) == undisturbed[corpus][1]


def full_in(monkeypatch, owner, name):
    "The disk is full whenever this method runs."
    method = getattr(owner, name)
    def limited(*args, **kwargs):
        with small_files(): return method(*args, **kwargs)
    monkeypatch.setattr(owner, name, limited)


def test_a_full_disk_under_tables_and_the_log(tmp_path, encoders, capsys):
    "The facts of files and the transcripts lie in SQLite, which has errors of its own; the log only grows."
    root, whisper = write_manifest(tmp_path/'c', rows(), ('label', 'split')), save_whisper(tmp_path/'whisper')
    flags = argv(root, tmp_path, encoders, '--transcribe', whisper)
    for owner, name, words in ((tamers.data.files.FileIndex, 'save', [tmp_path/'store'/'files.sqlite']),
        (tamers.store.transcripts.Transcripts, 'add', ['texts.sqlite', 'free some space']),
                               (tamers.training.watch.MetricsLog, '__call__',
                               [tmp_path/'run'/'metrics.jsonl', 'File too large'])):
        with pytest.MonkeyPatch.context() as m:
            full_in(m, owner, name)
            assert code_of(flags) == 2
        told(capsys, *words)
    assert heard(tmp_path) == TRAIN + DEV and code_of([*flags, '--overwrite']) == 0 and len(outcome(tmp_path)) == 2


@pytest.mark.parametrize('kind', ['corpus', 'shards'])
def test_a_damaged_file_of_the_store_is_made_again(kind, request, tmp_path, encoders, undisturbed, small_steps, capsys):
    root = request.getfixturevalue(kind)
    assert code_of(argv(root, tmp_path, encoders)) == 0
    files = sorted((tmp_path/'store').glob('audio-*/*.safetensors'))
    data = bytearray(files[2].read_bytes())
    data[-5] ^= 1
    files[2].write_bytes(data)
    capsys.readouterr()
    assert code_of(argv(root, tmp_path, encoders, '--overwrite')) == 0
    assert f'{files[2]}: the checksum does not match, the file is damaged; it is set aside' in capsys.readouterr().out
    files[2].with_suffix('.damaged').unlink()
    assert vectors(tmp_path) == undisturbed[root][0] and outcome(tmp_path) == undisturbed[root][1]


# ---- encoding that is interrupted ----

def stop_at(k, how):
    "`Encoder.encode` that ends its process at its `k`-th batch: by an exception, or by a signal to itself."
    calls, encode = itertools.count(1), Encoder.encode
    def limited(self, batch):
        if next(calls) == k:
            if isinstance(how, signal.Signals): os.kill(os.getpid(), how)
            else: raise how
        return encode(self, batch)
    Encoder.encode = limited


@pytest.mark.parametrize('kind, how, code',
    [('corpus', KeyboardInterrupt(), 130), ('shards', KeyboardInterrupt(), 130),
    ('shards', RuntimeError('out of memory'), None)], ids=['corpus', 'shards', 'shards-error'])
def test_interrupted_encoding_goes_on_to_the_bit(kind, how, code, request, tmp_path, encoders, undisturbed, monkeypatch,
    capsys):
    root = request.getfixturevalue(kind)
    monkeypatch.setitem(tamers.store.ingest.ingest.__kwdefaults__, 'chunk', 8)
    want, seen = undisturbed[root][0], 0
    for k in (1, 4, 9):                                                               # three interruptions of one run
        with monkeypatch.context() as m:
            m.setattr(Encoder, 'encode', Encoder.encode)
            stop_at(k, how)
            if code: assert code_of(argv(root, tmp_path, encoders)) == code
            else: pytest.raises(RuntimeError, commands.tamers_train, argv(root, tmp_path, encoders))
        got = vectors(tmp_path)
        assert all(want[k] == v for k, v in got.items())
        assert seen + (k - 1) * BATCH >= len(got) >= seen + (k - 1) * (BATCH - 2)
        seen = len(got)
    assert 0 < seen < len(want) and not (tmp_path/'run').exists()
    assert code_of(argv(root, tmp_path, encoders)) == 0
    assert vectors(tmp_path) == want and outcome(tmp_path) == undisturbed[root][1]


# ---- several processes ----

@pytest.fixture(scope='module')
def fork():
    "Starts processes that have imported everything and share no thread with the tests."
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['tamers.training.run', 'tamers.store.ingest', 'tamers.encoders.sources',
        'transformers.models.gpt2.modeling_gpt2', 'transformers.models.auto.feature_extraction_auto',
        'tests.trust.test_faults'])
    return context


def one_rank(rank, world, port, flags, log, faults):
    "A process of tamers-train as torchrun starts it, with something that happens to it."
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port))
    if world == 1: del os.environ['WORLD_SIZE'], os.environ['RANK']
    torch.set_num_threads(1)
    with open(log, 'w') as f:
        os.dup2(f.fileno(), 1), os.dup2(f.fileno(), 2)
    tamers.store.ingest.ingest.__kwdefaults__['chunk'] = 8
    for fault, args in faults: fault(*args)
    commands.tamers_train(flags)


def slow_to_start(seconds):
    "Another process has finished its share before this one looks at the store."
    reload = tamers.store.store.EmbeddingStore.reload
    def late(self):
        if not self.blocks: time.sleep(seconds)
        reload(self)
    tamers.store.store.EmbeddingStore.reload = late


def run_ranks(fork, world, flags, tmp_path, faults={}, limit=60):
    "Exit codes and what was printed, of all processes; none may be left after `limit` seconds."
    port, logs = free_port(), [tmp_path/f'rank{r}.log' for r in range(world)]
    ranks = [fork.Process(target=one_rank, args=(r, world, port, flags, logs[r], faults.get(r, [])))
        for r in range(world)]
    for p in ranks: p.start()
    end = time.monotonic() + limit
    for p in ranks: p.join(max(0, end - time.monotonic()))
    late = [r for r, p in enumerate(ranks) if p.is_alive()]
    for p in ranks: p.kill(); p.join()
    out = [log.read_text() for log in logs]
    assert not late, (late, out)
    return [p.exitcode for p in ranks], out


def test_sigterm_while_encoding_writes_what_was_encoded(fork, tmp_path, corpus, encoders, undisturbed):
    codes, out = run_ranks(fork, 1, argv(corpus, tmp_path, encoders), tmp_path, {0: [(stop_at, (6, signal.SIGTERM))]})
    assert codes == [130] and out[0].endswith('interrupted\n') and 'Traceback' not in out[0], out
    got, want = vectors(tmp_path), undisturbed[corpus][0]
    assert len(got) in (5 * BATCH, 6 * BATCH) and all(want[k] == v for k, v in got.items())
    assert code_of(argv(corpus, tmp_path, encoders)) == 0
    assert vectors(tmp_path) == want and outcome(tmp_path) == undisturbed[corpus][1]


@pytest.mark.parametrize('kind, world, size',
    [('corpus', 3, 16), ('shards', 2, 8),
    *(pytest.param(*x, marks=pytest.mark.slow) for x in (('corpus', 2, 8), ('shards', 3, 16)))])
def test_uneven_ends(kind, world, size, request, fork, tmp_path, encoders, undisturbed):
    "11 batches or 3 shards of other sizes, and batches of 29 rows, are shared by 2 and by 3 processes."
    root = request.getfixturevalue(kind)
    codes, out = run_ranks(fork, world, argv(root, tmp_path, encoders, '--batch-size', size), tmp_path)
    assert codes == [0] * world, out
    assert vectors(tmp_path) == undisturbed[root][0], 'the same bits as from one process'
    assert set(Counter((p.parent, k) for p in (tmp_path/'store').rglob('*.safetensors')
        for k in read_block(p)[0]).values()) == {1}, 'nothing was encoded twice'
    assert [r[:2] for r in outcome(tmp_path)] == [(1, 1), (2, 2)]


def test_fewer_shards_than_processes(fork, tmp_path, shards, encoders, undisturbed):
    codes, out = run_ranks(fork, 3, argv(shards/'{0,2}.tar', tmp_path, encoders), tmp_path)
    assert codes == [0, 0, 0], out
    want = undisturbed[shards][0]
    assert len(got := vectors(tmp_path)) == 2 * (16 + 12) and all(want[k] == v for k, v in got.items())


def test_a_process_that_comes_late_does_its_own_share(fork, tmp_path, corpus, encoders, undisturbed):
    codes, out = run_ranks(fork, 2, argv(corpus, tmp_path, encoders), tmp_path, {1: [(slow_to_start, (2,))]})
    assert codes == [0, 0], out
    assert vectors(tmp_path) == undisturbed[corpus][0], 'nothing was left to nobody'
    assert sum(load_checkpoint(tmp_path/'run'/'best.pt').train_counts) == TRAIN, 'nothing was left to nobody'


@pytest.mark.parametrize('kind', ['corpus', 'shards'])
def test_interrupted_in_one_of_two_processes(kind, request, fork, tmp_path, encoders, undisturbed):
    root = request.getfixturevalue(kind)
    want = undisturbed[root][0]
    for k in (2, 5):
        codes, out = run_ranks(fork, 2, argv(root, tmp_path, encoders), tmp_path,
            {1: [(stop_at, (k, KeyboardInterrupt()))]})
        assert codes[1] == 130 and codes[0] != 0, out
        assert (got := vectors(tmp_path)) and all(want[k] == v for k, v in got.items())
        assert not (tmp_path/'run').exists()
    codes, out = run_ranks(fork, 2, argv(root, tmp_path, encoders), tmp_path)
    assert codes == [0, 0], out
    assert vectors(tmp_path) == want


# ---- a rank that dies under torchrun ----

DIES = '''
import os, signal, time
if rank := os.environ.get('RANK'):
    import itertools, pathlib, {module}
    calls, real, mark = itertools.count(1), {module}.{name}, pathlib.Path(__file__).with_name('{name}')
    def dies(*args, **kwargs):
        n = next(calls)
        if rank == '1' and n == {n}:
            while not mark.exists(): time.sleep(0.02)     # the other process has done something, too
            os.kill(os.getpid(), signal.SIGKILL)
        out = real(*args, **kwargs)
        if rank == '0': mark.touch()
        return out
    {module}.{name} = dies
'''


def torchrun(folder, flags, limit=150):
    "Exit code and output of two processes, by torchrun."
    env = dict(os.environ, PYTHONPATH=f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2',
        str(Path(sys.executable).with_name('tamers-train')), *flags]
    p = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True)
    try: return p.communicate(timeout=limit)[0], p.returncode
    finally:
        with contextlib.suppress(ProcessLookupError): os.killpg(p.pid, signal.SIGKILL)


def test_a_rank_that_is_killed_while_encoding(tmp_path, corpus, encoders, undisturbed):
    (tmp_path/'sitecustomize.py').write_text(DIES.format(module='tamers.encoders.encoder', name='Encoder.encode', n=4))
    out, code = torchrun(tmp_path, argv(corpus, tmp_path, encoders))
    assert code == 1 and 'Signal 9 (SIGKILL) received by PID' in out and 'rank      : 1' in out, out
    got, want = vectors(tmp_path), undisturbed[corpus][0]
    assert got and all(want[k] == v for k, v in got.items()), 'what the other process had encoded stays'
    assert not (tmp_path/'run').exists()
    assert code_of(argv(corpus, tmp_path, encoders)) == 0 and vectors(tmp_path) == want
    assert outcome(tmp_path) == undisturbed[corpus][1]


@pytest.mark.slow
def test_a_rank_that_is_killed_while_training(tmp_path, corpus, encoders, undisturbed):
    # in the second epoch
    (tmp_path/'sitecustomize.py').write_text(DIES.format(module='tamers.training.loop', name='train_step', n=2))
    out, code = torchrun(tmp_path, argv(corpus, tmp_path, encoders, '--epochs', 4))
    assert code == 1 and 'rank      : 1' in out, out
    assert vectors(tmp_path) == undisturbed[corpus][0]
    assert load_checkpoint(tmp_path/'run'/'last.pt').trainer['epoch'] == 1
    (tmp_path/'sitecustomize.py').unlink()
    out, code = torchrun(tmp_path, ['--load-checkpoint', str(tmp_path/'run'/'last.pt'), '--epochs', '4'])
    assert code == 0 and [r[0] for r in outcome(tmp_path)] == [1, 2, 3, 4], out
