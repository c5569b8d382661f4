"Settings every test shares; they must stand before torch is imported."
import os
import tempfile
from pathlib import Path
import pytest

os.environ.setdefault('OMP_NUM_THREADS', '1')     # parallel workers otherwise fight over the cores
os.environ.setdefault('NUMBA_NUM_THREADS', '1')   # and UMAP's numba would start four threads in each
os.environ.setdefault('HF_HUB_OFFLINE', '1')      # no test may depend on the network
os.environ.setdefault('MPLBACKEND', 'Agg')        # nor on a display

ROOT = Path(__file__).resolve().parents[1]
CACHE = pytest.StashKey[tempfile.TemporaryDirectory]()


def pytest_addoption(parser):
    parser.addoption('--slow', action='store_true', help='run the tests marked slow, too')


def pytest_configure(config):
    "Keep the tests out of the user's cache: one temporary cache for the session, which xdist's workers inherit."
    config.addinivalue_line('markers', 'slow: takes minutes or gigabytes; runs with --slow')
    if not os.environ.get('TAMERS_CACHE'):
        config.stash[CACHE] = tempfile.TemporaryDirectory(prefix='tamers-tests-')
        os.environ['TAMERS_CACHE'] = config.stash[CACHE].name


def pytest_unconfigure(config):
    if CACHE in config.stash:
        config.stash[CACHE].cleanup()
        del os.environ['TAMERS_CACHE']


def pytest_collection_modifyitems(config, items):
    if config.getoption('--slow'): return
    for item in items:
        if 'slow' in item.keywords: item.add_marker(pytest.mark.skip(reason='slow; run with --slow'))


@pytest.fixture(scope='session')
def demo():
    "The checkpoint of a head that knows the demo corpus: its dev split is its own kind."
    from tamers.training.run import demo_head
    return demo_head()


@pytest.fixture(scope='session')
def shared() -> Path:
    "The folder of shared data, which is no part of the project: $TAMERS_SHARED, else ../shared."
    path = Path(os.environ.get('TAMERS_SHARED') or ROOT.parent/'shared')
    if not (path/'data').is_dir(): pytest.skip(f'no shared data: set TAMERS_SHARED to its folder, or put it in {path}')
    return path
