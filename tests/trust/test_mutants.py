"""Broken input of every kind gives a result or an error of the package's own, soon and in little memory.

`tests/harness/mutants.py` does it; with --slow as often as `nbs/trust.ipynb` shows.
"""
import sys
import pytest
from tests.harness import mutants
from tests.harness.mutants import KINDS, figures, make

pytestmark = pytest.mark.skipif(not sys.platform.startswith('linux'),
    reason='the memory that a process may ask for is limited on Linux')

# What failed when this was run for the first time, by kind; it must never fail again.
ONCE = {'checkpoint': (3, 7, 8, 14, 16, 20, 21, 32, 38, 46, 61, 63, 69, 77, 84, 94, 104, 105, 111, 125, 149, 176, 197,
    395, 485, 576, 664, 692), 'manifest': (70,), 'tar': (44, 78), 'listing': (1, 5, 8, 28, 31, 32),
        'log': (8, 12), 'root': (7, 8, 32), 'files.sqlite': (1,), 'audio config.json': (2, 19),
        'audio preprocessor_config.json': (4, 35), 'text tokenizer.json': (30,), 'text tokenizer_config.json': (1, 9)}


@pytest.mark.parametrize('n', [120, pytest.param(2000, marks=pytest.mark.slow)])
def test_nothing_gets_through(n):
    found = figures(n, *['--also', *(f'{kind}:{i}' for kind, cases in ONCE.items() for i in cases)])
    assert found['cases'] >= n and set(found['ends']) == set(KINDS)
    assert not found['failures'], '\n'.join(map(str, found['failures']))
    assert all(ends.get('read', 0) + ends.get('refused', 0) for ends in found['ends'].values())
    assert sum(e.get('refused', 0) for e in found['ends'].values()) > n / 4


def test_cases_follow_from_their_numbers():
    "The same bytes each time, other bytes for each number; and most are no longer the valid file."
    for kind in ('wav', 'manifest', 'tar', 'log'):
        assert make(kind, 5) == make(kind, 5) and len({make(kind, i) for i in range(1, 30)}) > 25
        assert make(kind, 0) == mutants.base(kind)
        assert sum(make(kind, i) != mutants.base(kind) for i in range(1, 30)) > 25


def test_what_goes_wrong_is_seen(tmp_path, monkeypatch):
    "A reader that raises, hangs, dies or takes all memory is a failure of its case, and the next case is run."
    import os, time
    ways = dict(raises=lambda *a: 1 / 0, hangs=lambda *a: time.sleep(60), dies=lambda *a: os._exit(9),
        eats=lambda *a: bytearray(2**33), fine=lambda *a: None)
    monkeypatch.setattr(mutants, 'HUNG', 2)
    for name, read in ways.items(): monkeypatch.setitem(KINDS, name, (1, lambda: b'x', lambda rng, data: data, read))
    found = {kind: (end, message) for kind, _, end, message in mutants.run([(kind, 1) for kind in ways], str(tmp_path))}
    assert {k: e for k, (e, _) in found.items()} == dict(raises='error', hangs='hung', dies='died', eats='error',
        fine='read')
    assert 'ZeroDivisionError' in found['raises'][1] and 'MemoryError' in found['eats'][1]
    assert 'exit code 9' in found['dies'][1]
