"""A long life of one process: epochs from the store and evaluations leave no memory and no open file behind.

With --slow it is as long as `nbs/trust.ipynb` shows.
"""
import sys
import pytest
from tests.harness.faults import figures, growth

LINUX = sys.platform.startswith('linux')
pytestmark = pytest.mark.skipif(not LINUX, reason='memory and open files are read from /proc')
LONG = pytest.param(300, 20, 0.02, marks=pytest.mark.slow)


@pytest.mark.parametrize('epochs, evaluations, allowed', [(30, 4, 0.08), LONG])
def test_memory_and_files_stay(epochs, evaluations, allowed):
    found = figures('soak', epochs, evaluations, *['--draw'] * (evaluations == 20))
    for part, n in dict(epochs=epochs, evaluations=evaluations).items():
        assert len(found[part]) == n
        assert abs(growth([mb for mb, _ in found[part]])) <= allowed, (part, found[part])
        warm = [files for _, files in found[part][n // 4:]]
        assert len(set(warm)) == 1, (part, warm)
