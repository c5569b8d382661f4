"""A run that is killed, or whose disk is full, ends as if nothing had been.

`harness.faults` kills runs and fills disks, and this asks how it went,
with --slow as often as `nbs/trust.ipynb` shows.
"""
import sys
import pytest
from tests.harness.faults import figures

LINUX = sys.platform.startswith('linux')
pytestmark = pytest.mark.skipif(not LINUX, reason='forks of a process with torch, and its limits, are for Linux')


def unharmed(found):
    assert not found['lost'] and not found['differing'] and not found['stuck'], found


@pytest.mark.parametrize('n, seed', [(8, 0), pytest.param(100, 1, marks=pytest.mark.slow)])
def test_killed_at_random_moments(n, seed):
    found = figures('kills', n, '--seed', seed)
    unharmed(found)
    assert found['kills'] == n and found['runs'] >= n // 6
    if n == 100: assert min(found['phases'][k] for k in ('encoding', 'training')) >= 10, found['phases']


@pytest.mark.parametrize('n, seed', [(6, 0), pytest.param(50, 1, marks=pytest.mark.slow)])
def test_a_disk_that_is_full_at_random_points(n, seed):
    found = figures('full', n, '--seed', seed)
    unharmed(found)
    assert found['faults'] == found['runs'] == n and not found['unclear'] and found['codes']['2'] > n // 2, found
