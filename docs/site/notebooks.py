"""Notebooks as pages: nbdev's `#|` lines become what MyST-NB knows, names in prose become links, and the first page
gets a table of contents."""
import ast
import json
import re
from functools import lru_cache
from pathlib import Path
import nbformat
from docutils import nodes
from readme import directives
import reference

TAGS = {'hide': 'remove-cell', 'default_exp': 'remove-cell', 'export': 'export', 'code-fold': 'hide-input'}
WHEN_FALSE = {'include': 'remove-cell', 'echo': 'remove-input', 'output': 'remove-output'}
WINGS = {'1_data': '1 Data', '2_encoders': '2 Encoders', '3_store': '3 Store', '4_model': '4 Model',
    '5_measure': '5 Measure',
         '6_training': '6 Training', '7_evaluation': '7 Evaluation', '8_prediction': '8 Prediction',
         '9_pages': '9 Pages'}
SECTIONS = [('Begin', 'walk'), ('How to', 'howto/*'), ('What it learnt', 'gallery'), ('What it learnt', 'analysis/*'),
    ('Evidence', 'study'),
            ('Evidence', 'speed'), ('Evidence', 'trust'), ('Evidence', 'corpora'),
            ('Encoders from scratch', 'mini/*'), ('Ground', '0[0-9]_*'),
            *((caption, f'{folder}/*') for folder, caption in WINGS.items()), ('Commands', '99_*'),
            ('Reference', 'api'), *(('Reference', f'api/{name}') for name in reference.wings())]


def read(text: str):
    "A notebook as MyST-NB takes it: each `#|` line is dropped, and what it asks for is a tag."
    nb = nbformat.reads(text, as_version=4)
    for cell in nb.cells:
        if cell.cell_type != 'code': continue
        found, cell.source = directives(cell.source)
        tags = [tag for name, tag in TAGS.items() if name in found]
        tags += [tag for name, tag in WHEN_FALSE.items() if found.get(name) == 'false']
        if not cell.source.strip(): tags.append('remove-cell')
        cell.metadata['tags'] = sorted(set(tags))
        if 'export' in tags: cell.metadata['anchors'] = [reference.anchor(name) for name in defined(cell.source)]
    return nb


def defined(source: str) -> list[str]:
    "The names that a cell defines."
    names = []
    for node in ast.parse(source).body:
        if hasattr(node, 'name'): names.append(node.name)
        if isinstance(node, ast.Assign):
            names += [n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return names


def add_anchors(app, doctree):
    "Give each exporting cell the names that it defines as targets of links."
    for cell in doctree.findall(lambda n: isinstance(n, nodes.container) and n.get('nb_element') == 'cell_code'):
        cell['ids'] += cell.get('cell_metadata', {}).get('anchors', [])


def link_names(app, doctree, docname):
    """Make links of names that stand in prose as code: those of the package lead to the cell that defines them,
    those of notebooks to the page."""
    if docname.split('/')[0] == 'api': return   # where code in a table is a parameter or a field
    names, homes = reference.names(), {m.name: m.notebook for m in reference.modules() if '.' in m.name}
    for literal in list(doctree.findall(nodes.literal)):
        if isinstance(literal.parent, (nodes.reference, nodes.title)): continue
        text = literal.astext()
        plain = text.removesuffix('()')
        clear = plain != text or re.search('_|[a-z][A-Z]', plain)      # `train` may be the split, `train()` is not
        if plain in names and clear:
            uri = app.builder.get_relative_uri(docname, names[plain].notebook) + '#' + reference.anchor(plain)
        elif plain.removeprefix('tamers.') in homes:
            uri = app.builder.get_relative_uri(docname, homes[plain.removeprefix('tamers.')])
        else: continue
        link = nodes.reference('', '', refuri=uri, internal=True, classes=['name'])
        literal.parent.replace(literal, link)
        link += literal


@lru_cache(maxsize=None)
def title_of(path: Path) -> str:
    "The first heading of a page."
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.ipynb': text = ''.join(json.loads(text)['cells'][0]['source'])
    return re.search(r'^# (.+)$', text, re.M)[1].strip()


def contents(home: Path) -> str:
    "The table of contents, as MyST: a list for each section."
    lists = {}
    for caption, pattern in SECTIONS:
        paths = (p for p in home.glob(f'{pattern}.*') if p.suffix in ('.ipynb', '.md'))
        for path in sorted(paths, key=lambda p: (p.parent, int(re.match(r'\d*', p.name)[0] or 0), p.name)):
            lists.setdefault(caption,
                []).append(f"{title_of(path)} <{path.relative_to(home).with_suffix('').as_posix()}>")
    head = '```{toctree}\n:hidden:\n:maxdepth: 1\n:caption: '
    return '\n\n'.join(head + '\n'.join([caption, '', *lines]) + '\n```' for caption, lines in lists.items())


def add_contents(app, docname, source):
    """Append the table of contents to the first page while Sphinx reads it; the README, made of the same notebook,
    has none."""
    if docname != app.config.root_doc: return
    nb = json.loads(source[0])
    nb['cells'].append(dict(cell_type='markdown', id='contents', metadata={}, source=contents(Path(app.srcdir))))
    source[0] = json.dumps(nb)


def setup(app):
    app.connect('source-read', add_contents)
    app.connect('doctree-read', add_anchors)
    app.connect('doctree-resolved', link_names)
    return dict(parallel_read_safe=True)
