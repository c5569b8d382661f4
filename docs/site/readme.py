"""Write README.md from nbs/index.ipynb: `python docs/site/readme.py`.

What `nbdev_readme` does, without Quarto. Figures go to docs/figures/, which git tracks, and README.md names them by
relative links, which work in a clone and on GitHub.
"""
import re
from pathlib import Path
import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config
from tamers.core import atomic_path

ROOT = Path(__file__).resolve().parents[2]
FIGURES = 'docs/figures'
HEAD = '<!-- Made from nbs/index.ipynb by docs/site/readme.py. Edit the notebook. -->\n\n'
DIRECTIVE = re.compile(r'^#\|\s*([\w-]+):?\s*(.*)$')
SHOWN_FIRST = ['text/markdown', 'image/png', 'text/plain']   # HTML tables lose their style on GitHub
LOCAL_LINK = re.compile(r'(!?\[[^\]]*\]\()(?![a-z]+:|#|/|\.\./)([^)]+\))')


def directives(source: str) -> tuple[dict, str]:
    "The `#|` lines that open a cell, and the rest of it."
    found, lines = {}, source.splitlines()
    while lines and (m := DIRECTIVE.match(lines[0])):
        found[m[1]] = m[2].strip()
        lines.pop(0)
    return found, '\n'.join(lines)


def from_root(text: str) -> str:
    "Markdown whose links are relative to the project, not to nbs/."
    return LOCAL_LINK.sub(r'\1nbs/\2', text).replace('](../', '](')


def shown(cells: list) -> list:
    "The cells a reader of the README sees; links are made relative to the project, not to nbs/."
    keep = []
    for cell in cells:
        if cell.cell_type == 'markdown': cell.source = from_root(cell.source)
        for out in cell.get('outputs', []):
            if 'text/markdown' in out.get('data', {}):
                out.data['text/markdown'] = from_root(''.join(out.data['text/markdown']))
        if cell.cell_type == 'code':
            found, cell.source = directives(cell.source)
            if {'hide', 'default_exp'} & found.keys(): continue
            if found.get('echo') == 'false': cell.metadata['transient'] = dict(remove_source=True)
            if found.get('output') == 'false': cell.outputs = []
        keep.append(cell)
    return keep


def render(notebook: Path) -> tuple[str, dict]:
    "The text of the README, and its figures as {path relative to the project: bytes}."
    nb = nbformat.read(notebook, as_version=4)
    nb.cells, nb.metadata['language_info'] = shown(nb.cells), dict(name='python')
    exporter = MarkdownExporter(config=Config(NbConvertBase=dict(display_data_priority=SHOWN_FIRST)))
    body, resources = exporter.from_notebook_node(nb, resources=dict(unique_key='index', output_files_dir=FIGURES))
    body = re.sub(r'\n{3,}', '\n\n', re.sub(r'(?m)^[ \t]+$', '', body)).replace('![png](', '![figure](')
    return HEAD + body.strip() + '\n', resources['outputs']


def write(root: Path = ROOT) -> None:
    "Write README.md and its figures under `root`; figures of an earlier README are removed."
    text, figures = render(root/'nbs'/'index.ipynb')
    for old in (root/FIGURES).glob('index_*'):
        if old.relative_to(root).as_posix() not in figures: old.unlink()
    for name, data in figures.items():
        with atomic_path(root/name) as tmp: tmp.write_bytes(data)
    with atomic_path(root/'README.md') as tmp: tmp.write_text(text, encoding='utf-8')


if __name__ == '__main__': write()
