"""The notebooks are the source: the package, the README and the commands must say what they say, and they must be
fit to commit."""
import ast
import copy
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import pytest
from nbdev.clean import clean_nb
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from tests.project import layout

cfg = get_config()
ROOT, LIB, NBS = cfg.config_path, cfg.lib_path, cfg.nbs_path
INDEX = NBS/'index.ipynb'
NOTEBOOKS = sorted(nbglob(as_path=True))
HAND_WRITTEN = {'__init__.py', '_modidx.py'}
LOCAL_PATH = re.compile(r'(?<![\w./])/(?:work|tmp|root|home|Users)(?:/|\b)')
EXPORTS_TO = re.compile(r'^#\|\s*default_exp\s+(\S+)', re.M)
each_notebook = pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.relative_to(NBS).as_posix())


def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']


def said(path):
    "Every text of a notebook's outputs, images left out, with the number of the cell."
    for i, cell in enumerate(cells(path)):
        for out in cell.get('outputs', []):
            parts = [out.get('text', '')] + [v for k, v in out.get('data', {}).items() if not k.startswith('image/')]
            for part in parts: yield i, ''.join(part) if isinstance(part, (str, list)) else json.dumps(part)


def exported_by():
    "{module file: notebook} from every `#| default_exp`."
    found = {}
    for path in NOTEBOOKS:
        for cell in cells(path):
            if m := EXPORTS_TO.search(''.join(cell['source'])):
                found.setdefault(m[1].replace('.', '/') + '.py', []).append(path.relative_to(NBS).as_posix())
    return found


def test_package_is_what_the_notebooks_export(tmp_path):
    "Export a copy of the project and compare file by file; a module that only one side has is out of step, too."
    shutil.copy(ROOT/'settings.ini', tmp_path)
    shutil.copytree(NBS, tmp_path/NBS.name, ignore=shutil.ignore_patterns('.ipynb_checkpoints'))
    copy_of_lib = tmp_path/LIB.name
    copy_of_lib.mkdir()
    shutil.copy(LIB/'__init__.py', copy_of_lib)
    subprocess.run([sys.executable, '-c', 'from nbdev.doclinks import nbdev_export; nbdev_export()'], cwd=tmp_path,
        check=True,
                   # under IN_TEST the export does nothing
                   env={k: v for k, v in os.environ.items() if k != 'IN_TEST'})
    read = lambda lib: {p.relative_to(lib).as_posix(): p.read_text(encoding='utf-8') for p in lib.rglob('*.py')}
    want, got = read(copy_of_lib), read(LIB)
    stale = sorted(name for name in want.keys() | got.keys() if want.get(name) != got.get(name))
    assert not stale, f'run nbdev_export; out of step: {stale}'


def test_every_module_has_one_notebook():
    "Strip the numbers from the path of a notebook, and you have its module."
    homes = exported_by()
    modules = {p.relative_to(LIB).as_posix() for p in LIB.rglob('*.py') if p.name != '__init__.py'} - HAND_WRITTEN
    assert modules == set(homes), 'modules and `#| default_exp` of the notebooks differ'
    assert not {m: n for m, n in homes.items() if len(n) > 1}, 'a module has one notebook'
    misnamed = {m: n for m, n in homes.items() if re.sub(r'(?<![^/])\d+_', '', n[0]) != m.replace('.py', '.ipynb')}
    assert not misnamed, f'a notebook is named by its wing, its number and its module: {misnamed}'


def test_imports_point_one_way():
    "Within a wing from higher to lower numbers, between wings down the list; imports inside functions count, too."
    assert not (climbs := [arrow for arrow in layout.arrows() if layout.climbs(arrow)]), climbs


def test_the_direction_is_seen():
    arrow = layout.Arrow('data.audio', 'store.store', ['EmbeddingStore'])
    assert layout.climbs(arrow) and not layout.climbs(layout.Arrow('store.store', 'data.audio', ['Clip']))
    assert len(layout.arrows()) > 200


def test_no_name_is_defined_twice():
    "A public name has one home, so that a reader who looks for it finds one thing."
    homes = {}
    for path in LIB.rglob('[!_]*.py'):
        for node in ast.parse(path.read_text(encoding='utf-8')).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '__all__':
                for name in ast.literal_eval(node.value):
                    homes.setdefault(name, []).append(path.relative_to(LIB).as_posix())
    assert not {name: found for name, found in homes.items() if len(found) > 1}


@each_notebook
def test_notebook_is_clean(path):
    nb = json.loads(path.read_text(encoding='utf-8'))
    cleaned = copy.deepcopy(nb)
    clean_nb(cleaned)
    assert cleaned == nb, f'run nbdev_clean --fname {path.name}'


@each_notebook
def test_notebook_is_fit_to_be_read(path):
    faults = []
    for i, cell in enumerate(cells(path)):
        source = ''.join(cell['source'])
        if m := LOCAL_PATH.search(source):
            faults.append(f'cell {i} names a path of one machine: {source[m.start():m.start() + 40]!r}')
        for out in cell.get('outputs', []):
            if out['output_type'] == 'error': faults.append(f"cell {i} failed: {out['ename']}")
            if out.get('name') == 'stderr' and not all(line.startswith('error: ')
                for line in ''.join(out['text']).splitlines()):
                faults.append(f'cell {i} wrote more to stderr than the message of a command')
    for i, text in said(path):
        if m := LOCAL_PATH.search(text):
            faults.append(f'the output of cell {i} shows a path of one machine: {text[m.start():m.start() + 40]!r}')
        if re.search(r'\w*Warning\b:?', text): faults.append(f'the output of cell {i} shows a warning')
    assert not faults, '\n'.join(faults)


@each_notebook
def test_notebook_opens_with_its_title(path):
    first = ''.join(cells(path)[0]['source'])
    assert re.match(r'# \S.*\n\n> \S',
        first), 'the first cell is "# name" and "> one line", which becomes the docstring'


def test_readme_is_made_from_the_index():
    if not INDEX.exists(): pytest.skip('no nbs/index.ipynb yet')
    spec = importlib.util.spec_from_file_location('readme', ROOT/'docs'/'site'/'readme.py')
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    text, figures = readme.render(INDEX)
    assert (ROOT/'README.md').read_text(encoding='utf-8') == text, 'run make readme'
    kept = {p.relative_to(ROOT).as_posix(): p.read_bytes() for p in (ROOT/readme.FIGURES).glob('index_*')}
    assert kept == figures, 'run make readme: figures differ'
    named = re.findall(r'(?<!`)!?\[[^\]]*\]\((?![a-z]+:|#)([^)#\s]+)', text)
    assert not [name for name in named if not (ROOT/name).exists()], 'links of the README to files that do not exist'


def test_ci_runs_the_test_line_of_the_readme():
    test_lines = lambda path: [l.strip() for l in path.read_text(encoding='utf-8').splitlines() if '-m venv' in l
        and '-m pytest' in l]
    ours = test_lines(ROOT/'.ci'/'run')
    assert len(ours) == 1, '.ci/run holds one line that sets up and tests'
    if not (theirs := test_lines(ROOT/'README.md')): pytest.skip('README.md has no line that tests yet')
    assert theirs == ours
    assert 'bash .ci/run' in (ROOT/'.github'/'workflows'/'ci.yml').read_text(encoding='utf-8')


def test_versions_agree():
    "settings.ini is the home of the version and of the oldest Python."
    assert re.search(rf'^version: {re.escape(cfg.version)}$', (ROOT/'CITATION.cff').read_text(encoding='utf-8'), re.M)
    assert f"'{cfg.min_python}'" in (ROOT/'.github'/'workflows'/'ci.yml').read_text(encoding='utf-8')


WIDEST = 120   # characters of a line of code


@each_notebook
def test_lines_are_not_wide(path):
    wide = [f'cell {i}: {len(line)} characters: {line[:60]}' for i,
        cell in enumerate(cells(path)) if cell['cell_type'] == 'code'
            for line in ''.join(cell['source']).splitlines() if len(line) > WIDEST]
    assert not wide, '\n'.join(wide)


@pytest.mark.parametrize('path', sorted(p for folder in ('tests', 'benchmarks', 'docs')
    for p in (ROOT/folder).rglob('*.py') if p.name != '_modidx.py'),
                         ids=lambda p: p.relative_to(ROOT).as_posix())
def test_lines_of_python_are_not_wide(path):
    wide = [f'line {i}: {len(line)} characters' for i,
        line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1) if len(line) > WIDEST]
    assert not wide, '\n'.join(wide)
