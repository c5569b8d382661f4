"""Run every notebook as a test, by nbdev's own rules.

Cells marked slow, gpu or data are left out; `NB_FLAGS="slow data" pytest tests/test_notebooks.py` runs them.
"""
import os
import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.test import test_nb as run_notebook

cfg = get_config()


@pytest.fixture
def same_environment():
    "A notebook runs in this process: what it sets in the environment must not reach the next test."
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize('path', sorted(nbglob(as_path=True)), ids=lambda p: p.relative_to(cfg.nbs_path).as_posix())
def test_notebook(path, same_environment):
    passed, _ = run_notebook(path.absolute(), skip_flags=cfg.tst_flags.split(),
        force_flags=os.environ.get('NB_FLAGS', '').split(),
                             basepath=cfg.config_path)
    assert passed, f'{path.name} failed; its traceback is on stderr'
