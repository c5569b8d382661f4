"Two processes on one folder: a run is refused, an encoder waits, nothing is done twice, the dead hold nothing."
import contextlib, errno, json, os, signal, socket, subprocess, sys, time
from collections import Counter
from pathlib import Path
import filelock
import pytest
import torch
from tests.trust.test_faults import argv, code_of, one_rank, outcome, run_ranks, vectors
from tests.trust.test_faults import corpus, fork, shards, undisturbed  # noqa: F401, fixtures
from tests.store.test_streams import encoders  # noqa: F401
import tamers.store.store
from tamers.training import seeds
from tamers.model.checkpoint import load_checkpoint
from tamers.config import TrainConfig
from tamers.core import TamersError, alone_in
from tamers.data.files import FileIndex
from tamers.store.store import EmbeddingStore, read_block, write_block

HOLD = '''
import sys, time
from tamers.core import alone_in
with alone_in(sys.argv[1]):
    print('in', flush=True)
    time.sleep(float(sys.argv[2]))
'''


@contextlib.contextmanager
def held(folder, seconds=60):
    "Another process holds the lock of `folder`; gives the process."
    p = subprocess.Popen([sys.executable, '-c', HOLD, str(folder), str(seconds)], stdout=subprocess.PIPE, text=True)
    try:
        assert p.stdout.readline() == 'in\n'
        yield p
    finally:
        p.kill()
        p.wait()
        p.stdout.close()


def shards_of(folder):
    return Counter((p.parent.name, k) for p in (folder/'store').rglob('*.safetensors') for k in read_block(p)[0])


# ---- one folder of a run ----

@pytest.mark.parametrize('how', ['new', 'overwrite', 'resume'])
def test_a_second_run_is_refused_and_told_by_whom(how, tmp_path, corpus, encoders, undisturbed, capsys):
    flags = argv(corpus, tmp_path, encoders, *(['--overwrite'] if how == 'overwrite' else []))
    if how != 'new': assert code_of(argv(corpus, tmp_path, encoders)) == 0
    if how == 'resume': flags = ['--load-checkpoint', str(tmp_path/'run'/'last.pt'), '--epochs', '3']
    before = {p.name: p.read_bytes() for p in (tmp_path/'run').glob('*.*') if p.name[0] != '.'}
    capsys.readouterr()
    with held(tmp_path/'run') as other:
        assert code_of(flags) == 2
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1
        busy = f"in use by process {other.pid} on {socket.gethostname()}, since {time.strftime('%Y-')}"
        assert f"{tmp_path/'run'}: {busy}" in err
        assert 'name another folder' in err
        assert {p.name: p.read_bytes() for p in (tmp_path/'run').glob('*.*') if p.name[0] != '.'} == before
        assert how != 'new' or not (tmp_path/'store').exists(), 'before any work is done'
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert code_of(flags) == 0, 'a dead process holds nothing'
    assert outcome(tmp_path)[:2] == undisturbed[corpus][1] and not (tmp_path/'run'/'.lock.json').exists()


def test_two_commands_at_once(tmp_path, fork, corpus, encoders, undisturbed):
    "One of two same commands is refused; two that differ in the folder share the store, and do nothing twice."
    slow = {r: [(slow_encoder, (0.05,))] for r in range(3)}
    codes, out = run_alone(fork, tmp_path,
        [argv(corpus, tmp_path, encoders, run=name) for name in ('run', 'run', 'other')], slow)
    assert sorted(codes) == [0, 0, 2] and codes[2] == 0, out
    assert 'run: in use by process' in out[codes.index(2)] and 'Traceback' not in ''.join(out)
    assert 'waiting until it is done' in ''.join(out), 'one waited for the other at the store'
    assert vectors(tmp_path) == undisturbed[corpus][0] and set(shards_of(tmp_path).values()) == {1}
    assert outcome(tmp_path) == outcome(tmp_path, 'other') == undisturbed[corpus][1]


def slow_encoder(seconds):
    encode = tamers.encoders.encoder.Encoder.encode
    tamers.encoders.encoder.Encoder.encode = lambda self, batch: time.sleep(seconds) or encode(self, batch)


def run_alone(fork, tmp_path, all_flags, faults, limit=60):
    "Exit codes and output of several commands that are started together, each a job of its own."
    logs = [tmp_path/f'job{i}.log' for i in range(len(all_flags))]
    jobs = [fork.Process(target=one_rank, args=(0, 1, 0, flags, logs[i], faults.get(i, [])))
        for i, flags in enumerate(all_flags)]
    for p in jobs: p.start()
    end = time.monotonic() + limit
    for p in jobs: p.join(max(0, end - time.monotonic()))
    late = [i for i, p in enumerate(jobs) if p.is_alive()]
    for p in jobs: p.kill(); p.join()
    out = [log.read_text() for log in logs]
    assert not late, out
    return [p.exitcode for p in jobs], out


def test_every_process_of_a_job_hears_that_the_folder_is_taken(tmp_path, fork, corpus, encoders):
    with held(tmp_path/'run') as other:
        codes, out = run_ranks(fork, 2, argv(corpus, tmp_path, encoders), tmp_path)
        assert codes == [2, 2] and all(f'in use by process {other.pid}' in o and 'Traceback' not in o for o in out), out


def test_a_folder_of_seeds_is_one_place(tmp_path):
    with held(tmp_path/'five'), pytest.raises(TamersError, match='five: in use by process'):
        seeds.train_seeds(TrainConfig(save_path=str(tmp_path/'five'), device='cpu'), [1, 2],
            train=lambda cfg: pytest.fail('trained'), say=lambda _: None)


def test_a_run_that_fails_leaves_no_folder(tmp_path, corpus, encoders, capsys):
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'notes.txt').write_text('dear')
    assert code_of(argv(tmp_path/'none', tmp_path, encoders)) == 2 and not (tmp_path/'run').exists()
    assert code_of(argv(tmp_path/'none', tmp_path, encoders, run='mine')) == 2
    assert (tmp_path/'mine'/'notes.txt').read_text() == 'dear'


# ---- one store ----

@pytest.mark.parametrize('kind', ['corpus', 'shards'])
def test_who_lacks_something_waits_and_finds_it_done(kind, request, tmp_path, encoders, undisturbed, capsys):
    root = request.getfixturevalue(kind)
    assert code_of(argv(root, tmp_path, encoders, run='first')) == 0
    audio = next((tmp_path/'store').glob('audio-*'))
    kept = [(p, p.read_bytes()) for p in sorted(audio.glob('*.safetensors'))]
    for p, _ in kept: p.unlink()
    capsys.readouterr()
    with held(audio, 1.5) as other, pytest.MonkeyPatch.context() as m:
        m.setattr('builtins.print', told := Teller(lambda: [p.write_bytes(data) for p, data in kept]))
        assert code_of(argv(root, tmp_path, encoders)) == 0
    assert any(f'{audio}: in use by process {other.pid}' in line and 'waiting' in line for line in told.lines)
    assert not any('to encode' in line for line in told.lines), 'the other process had done it'
    assert vectors(tmp_path) == (want := undisturbed[root])[0] and outcome(tmp_path) == want[1]
    assert set(shards_of(tmp_path).values()) == {1}


def test_a_store_that_lacks_nothing_is_not_waited_for(tmp_path, corpus, encoders, capsys):
    assert code_of(argv(corpus, tmp_path, encoders, run='first')) == 0
    audio = next((tmp_path/'store').glob('audio-*'))
    capsys.readouterr()
    with held(audio): assert code_of(argv(corpus, tmp_path, encoders)) == 0
    assert 'in use' not in capsys.readouterr().out


class Teller:
    "A `print` that keeps its lines; when it is told of waiting, the other process does its work."
    def __init__(self, work): self.lines, self.work = [], work
    def __call__(self, *parts, **kw):
        self.lines.append(' '.join(map(str, parts)))
        if 'waiting' in self.lines[-1]: self.work()


def test_an_index_that_is_in_use_is_not_taken_for_damaged(tmp_path):
    import sqlite3
    index = FileIndex(tmp_path/'files.sqlite', lambda p: 1.)
    for name in 'ab': (tmp_path/f'{name}.wav').write_bytes(b'sound')
    index(tmp_path/'a.wav')
    other = sqlite3.connect(tmp_path/'files.sqlite', isolation_level=None)
    other.execute('BEGIN EXCLUSIVE')
    index.db.execute('PRAGMA busy_timeout = 50')
    with pytest.raises(TamersError, match='files.sqlite: cannot be written .database is locked'): index.save()
    with pytest.raises(TamersError, match='files.sqlite: cannot be read or written .database is locked'):
        index(tmp_path/'b.wav')
    other.close()
    index.save()
    assert not list(tmp_path.glob('*.damaged'))
    assert FileIndex(tmp_path/'files.sqlite', None)(tmp_path/'a.wav').seconds == 1.


def test_an_index_that_is_damaged_further_on(tmp_path, capsys):
    index = FileIndex(tmp_path/'files.sqlite', lambda p: 1.)
    for i in range(300):
        (tmp_path/f'{i}.wav').write_bytes(b'sound')
        index(tmp_path/f'{i}.wav')
    index.save()
    data = bytearray((tmp_path/'files.sqlite').read_bytes())
    data[8192:] = bytes(len(data) - 8192)
    (tmp_path/'files.sqlite').write_bytes(data)
    again = FileIndex(tmp_path/'files.sqlite', lambda p: 2.)
    assert {again(tmp_path/f'{i}.wav').seconds for i in range(300)} <= {1., 2.}
    assert 'set aside' in capsys.readouterr().out
    again.save()


def test_two_processes_find_the_same_damage(tmp_path, monkeypatch, capsys):
    store = EmbeddingStore(tmp_path, dict(kind='text'))
    write_block(store.folder/'1.safetensors', ['ab' * 32], torch.ones(1, 2), torch.tensor([False]))
    (store.folder/'1.safetensors').write_bytes(b'torn')
    real = tamers.store.store.read_block
    def late(path):
        try: return real(path)
        finally: path.rename(path.with_suffix('.damaged'))      # the other process was quicker
    monkeypatch.setattr(tamers.store.store, 'read_block', late)
    store.reload()
    assert len(store) == 0 and 'encoded again' in capsys.readouterr().out


# ---- places without locks ----

@pytest.mark.parametrize('number, ends', [(errno.ENOLCK, 0), (errno.EOPNOTSUPP, 0), (errno.EROFS, 2),
    (errno.EACCES, 2)])
def test_file_systems_without_locks_and_without_permission(number, ends, tmp_path, corpus, encoders, undisturbed,
    monkeypatch, capsys):
    def refuse(self, *args, **kw): raise OSError(number, os.strerror(number), self.lock_file)
    monkeypatch.setattr(filelock.FileLock, 'acquire', refuse)
    assert code_of(argv(corpus, tmp_path, encoders)) == ends
    said = capsys.readouterr()
    if ends:
        assert len(said.err.splitlines()) == 1 and os.strerror(number) in said.err and str(tmp_path/'run') in said.err
        assert not (tmp_path/'store').exists()
    else:
        assert said.out.count('see to it that no other process writes to it') == 3
        assert outcome(tmp_path) == undisturbed[corpus][1]


def test_a_store_that_cannot_be_locked_is_used_all_the_same(tmp_path, monkeypatch):
    "Its lock only spares work; whether something can be written shows when it is."
    said = []
    monkeypatch.setattr(filelock.FileLock, 'acquire', lambda self,
        **kw: (_ for _ in ()).throw(OSError(errno.EROFS, 'Read-only file system')))
    with alone_in(tmp_path, wait=True, say=said.append): pass
    cure = 'see to it that no other process writes to it'
    assert said == [f'{tmp_path}: cannot be locked (Read-only file system); {cure}']


def test_what_a_killed_process_left_half_written_goes_when_it_is_old(tmp_path):
    old, fresh, other = (tmp_path/n for n in ('.last.pt.a.tmp', '.best.pt.b.tmp', 'mine.tmp'))
    for p in (old, fresh, other): p.write_bytes(b'half')
    os.utime(old, (time.time() - 7200,) * 2)
    os.utime(other, (0, 0))
    with alone_in(tmp_path): assert [p.exists() for p in (old, fresh, other)] == [False, True, True]


def test_a_note_that_says_nothing(tmp_path):
    with held(tmp_path):
        for text in ('', '{', '[]', json.dumps(dict(pid=1))):
            (tmp_path/'.lock.json').write_text(text)
            with pytest.raises(TamersError, match='in use by another process'):
                with alone_in(tmp_path): pass
