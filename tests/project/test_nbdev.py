"nbdev's own commands: its docs understand the notebooks, and what they leave behind is no part of the project."
import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob

cfg = get_config()
ROOT, NBS = cfg.config_path, cfg.nbs_path
NOTEBOOKS = sorted(nbglob(as_path=True))
LEFT_BY_NBDEV_DOCS = ['_docs/index.html', '_proc/index.ipynb', 'index_files/figure.png', 'nbs/_quarto.yml',
    'nbs/nbdev.yml', 'nbs/sidebar.yml', 'nbs/sidebar.yml.bak', 'quarto-linux-amd64.deb', 'quarto-macos.pkg',
    '.installing']


def is_import(node): return isinstance(node, (ast.Import, ast.ImportFrom))


def mixes(source: str) -> bool:
    """Whether a cell imports and does other things. Left out are nbdev's own last cell, and examples to read that are
    never run."""
    if 'nbdev_export()' in source or '#| eval: false' in source: return False
    lines = [line for line in source.splitlines() if not line.startswith(('%', '!'))]
    nodes = ast.parse('\n'.join(lines)).body
    return any(map(is_import, nodes)) and (not all(map(is_import, nodes)) or len(lines) < len(source.splitlines()))


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.relative_to(NBS).as_posix())
def test_imports_have_cells_of_their_own(path):
    "nbdev's docs run cells that import, and only these: code beside an import would fail for want of the rest."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    sources = {i: ''.join(c['source']) for i, c in enumerate(cells) if c['cell_type'] == 'code'}
    assert not [i for i, source in sources.items() if mixes(source)], 'these cells mix imports with other code'


def test_a_mixed_cell_is_seen():
    assert mixes('import a\nb = a.c') and mixes('%cd ..\nimport a') and mixes('import a; a.b()')
    assert not mixes('import a\nfrom b import c') and not mixes('def f():\n    import a\n    return a')


def test_what_nbdev_docs_leaves_is_ignored():
    done = subprocess.run(['git', 'check-ignore', '--no-index', *LEFT_BY_NBDEV_DOCS], cwd=ROOT, capture_output=True,
        text=True)
    if done.returncode > 1: pytest.skip('not in a clone')
    assert done.stdout.split() == LEFT_BY_NBDEV_DOCS


@pytest.mark.slow
def test_nbdev_readme_reaches_quarto(tmp_path):
    "All notebooks pass nbdev's processors without a warning; what is left to do is Quarto's, which a stub stands for."
    for name in ('nbs', 'tamers'): shutil.copytree(ROOT/name, tmp_path/name)
    shutil.copy(ROOT/'settings.ini', tmp_path)
    stub = tmp_path/'bin'/'quarto'
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\necho "$@" > called\n')
    stub.chmod(0o755)
    path = os.pathsep.join(map(str, (stub.parent, Path(sys.executable).parent, os.environ['PATH'])))
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'} | dict(PATH=path, PYTHONPATH=str(tmp_path))
    done = subprocess.run(['nbdev_readme'], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'imports and other code' not in done.stderr
    assert (tmp_path/'_proc'/'called').read_text().split()[:2] == ['render', str(tmp_path/'_proc'/'index.ipynb')]
