"""The API pages, one a wing, written from the source of the package: signatures, docstrings, and the comments beside
parameters and fields."""
import ast
import io
import re
import tokenize
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from docutils import nodes

PACKAGE = Path(__file__).resolve().parents[2]/'tamers'
LONGEST_VALUE = 100


@dataclass
class Module:
    name: str           # dotted, without `tamers.`
    doc: str
    notebook: str       # that exports it, without ending
    things: dict        # exported name: node of the syntax tree
    comments: dict      # line: comment on it
    texts: dict         # name: text of each constant that is a literal string


def anchor(name: str) -> str:
    "The id of the cell that defines a name."
    return f'def-{name}'


def read(path: Path) -> Module:
    "A module of the package, without importing it."
    source = path.read_text(encoding='utf-8')
    tree, notebook = ast.parse(source), re.search(r'File to edit: (?:\.\./)+nbs/(\S+)\.ipynb', source)[1]
    defined, texts, exported = {}, {}, set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): defined[node.name] = node
        if not isinstance(node, ast.Assign): continue
        for target in node.targets:
            pairs = zip(target.elts, node.value.elts) if isinstance(target, ast.Tuple) and isinstance(node.value,
                ast.Tuple) else [(target, node.value)]
            for name, value in pairs:
                if not isinstance(name, ast.Name): continue
                if name.id == '__all__': exported = set(ast.literal_eval(value))
                defined[name.id] = ast.copy_location(ast.Assign([name], value), node)
                if isinstance(value, ast.Constant): texts[name.id] = value.value
    comments = {t.start[0]: t.string.lstrip('# ') for t in tokenize.generate_tokens(io.StringIO(source).readline)
        if t.type == tokenize.COMMENT}
    name, things = '.'.join(path.relative_to(PACKAGE).with_suffix('').parts), {k: v for k,
        v in defined.items() if k in exported}
    return Module(name, ast.get_docstring(tree) or '', notebook, things, comments, texts)


def place(notebook: str) -> tuple:
    "Where a notebook stands in reading order: the ground, the wings by their numbers, the commands."
    numbers = [int(n) for n in re.findall(r'(?:^|/)(\d+)_', notebook)]
    return tuple(numbers) if len(numbers) == 2 else (0 if numbers[0] < 90 else 99, *numbers)


@lru_cache(maxsize=None)
def modules() -> list[Module]:
    "All modules that notebooks export, in reading order."
    return sorted((read(p) for p in PACKAGE.rglob('[!_]*.py')), key=lambda m: place(m.notebook))


@lru_cache(maxsize=None)
def names() -> dict:
    "`{name: module}` of what is exported; a name that two modules have is left out."
    homes = {}
    for m in modules():
        for name in m.things: homes.setdefault(name, []).append(m)
    return {name: ms[0] for name, ms in homes.items() if len(ms) == 1}


def plain(text: str) -> str:
    "Text with the marks of Markdown escaped, except backticks."
    parts = text.split('`')
    return '`'.join(re.sub(r'([*_<$\[\\])', r'\\\1', part) if i % 2 == 0 else part for i, part in enumerate(parts))


def table(heads: tuple, rows: list) -> list[str]:
    "A Markdown table, without the columns that are empty."
    keep = [i for i in range(len(heads)) if any(row[i] for row in rows)]
    line = lambda cells: '| ' + ' | '.join(cells[i].replace('|', r'\|') for i in keep) + ' |'
    return [line(heads), '|' + '---|'*len(keep), *map(line, rows), ''] if rows else []


def code(node) -> str:
    "A piece of syntax as code; nothing for None."
    return f'`{ast.unparse(node)}`' if node is not None else ''


def signature(args: ast.arguments, method: bool = False) -> str:
    "Names and defaults, without types: those are in the table."
    bare = lambda a: ast.arg(a.arg)
    first = [bare(a) for a in args.args][1 if method else 0:]
    return ast.unparse(ast.arguments(posonlyargs=[], args=first, vararg=args.vararg and bare(args.vararg),
        kwonlyargs=[bare(a) for a in args.kwonlyargs],
                                     kw_defaults=args.kw_defaults, kwarg=args.kwarg and bare(args.kwarg),
                                     defaults=args.defaults))


def parameters(f: ast.FunctionDef, comments: dict, method: bool = False) -> list[str]:
    "The table of a function's parameters and of what it returns; a comment counts for what stands alone on its line."
    args = [*f.args.args[1 if method else 0:], *filter(None, [f.args.vararg]), *f.args.kwonlyargs,
        *filter(None, [f.args.kwarg])]
    lines = [a.lineno for a in args] + [f.lineno]
    rows = [(f'`{a.arg}`', code(a.annotation), plain(comments.get(a.lineno, '')) if lines.count(a.lineno) == 1 else '')
        for a in args]
    end = f.body[0].lineno - 1          # of the signature: `) -> type:  # comment`
    told = plain(comments.get(end, '')) if end > f.lineno and end not in lines else ''
    if told or f.returns is not None and ast.unparse(f.returns) != 'None':
        rows.append(('*returns*', code(f.returns), told))
    return table(('parameter', 'type', 'meaning'), rows) if any(r[1] or r[2] for r in rows) else []


def text_of(node, texts: dict) -> str:
    "A string of the source, with names of constants filled in."
    if isinstance(node, ast.JoinedStr):
        return ''.join(str(v.value) if isinstance(v, ast.Constant) else str(texts.get(ast.unparse(v.value), '…'))
            for v in node.values)
    return ast.literal_eval(node)


def fields_of(c: ast.ClassDef, m: Module) -> list[str]:
    "The table of a dataclass's fields; a setting made by `opt` brings its own help text."
    rows = []
    for node in c.body:
        if not isinstance(node, ast.AnnAssign): continue
        default, meaning = node.value, plain(m.comments.get(node.lineno, ''))
        if isinstance(default, ast.Call) and ast.unparse(default.func) == 'opt':
            meaning, default = plain(text_of(default.args[1], m.texts)), default.args[0]
        rows.append((f'`{node.target.id}`', code(node.annotation), code(default), meaning))
    return table(('field', 'type', 'default', 'meaning'), rows)


def entry(kind: str, head: str, m: Module, body: list[str], fence: str = ':::') -> list[str]:
    "An object of Sphinx's Python domain."
    return [f'{fence}{{py:{kind}}} {head}', f':module: tamers.{m.name}', '', *body, fence, '']


def class_entry(c: ast.ClassDef, m: Module) -> list[str]:
    "A class, its fields and its public methods."
    methods = [n for n in c.body if isinstance(n, ast.FunctionDef)]
    init = next((f for f in methods if f.name == '__init__'), None)
    body = [plain(ast.get_docstring(c) or ''), '']
    if c.bases:
        body += ['Bases: ' + ', '.join(f'{{py:obj}}`{b}`' if b in names() else f'`{b}`'
            for b in map(ast.unparse, c.bases)), '']
    body += parameters(init, m.comments, method=True) if init else []
    body += fields_of(c, m)
    for f in methods:
        if f.name.startswith('_') and f.name != '__call__': continue
        if any(ast.unparse(d) == 'property' for d in f.decorator_list): kind, head = 'property', f.name
        else: kind, head = 'method', f'{f.name}({signature(f.args, method=True)})'
        body += entry(kind, head, m, [plain(ast.get_docstring(f) or ''), '', *parameters(f, m.comments, method=True)])
    return entry('class', c.name + (f'({signature(init.args, method=True)})' if init else ''), m, body, '::::')


def thing_entry(name: str, node, m: Module) -> list[str]:
    "A function, a class or a constant, with a link to the cell that defines it."
    where = [f'{{cell}}`{m.name}.{name}`', '']
    if isinstance(node, ast.ClassDef): lines = class_entry(node, m)
    elif isinstance(node, ast.FunctionDef):
        lines = entry('function', f'{name}({signature(node.args)})', m,
            [plain(ast.get_docstring(node) or ''), '', *parameters(node, m.comments)])
    else:
        value = ast.unparse(node.value)
        shown = f'`{value}`' if len(value) <= LONGEST_VALUE else f'`{value[:LONGEST_VALUE]}` …'
        lines = entry('data', name, m, [shown, '', plain(m.comments.get(node.lineno, '')), ''])
    return [*lines[:-2], *where, *lines[-2:]]


def target(m: Module) -> str:
    "The label of a module's section."
    return 'tamers-' + m.name.replace('.', '-')


def wing(m: Module) -> str:
    "The page that a module is told on: its wing, the ground or the commands."
    if '.' in m.name: return m.name.split('.')[0]
    return 'commands' if place(m.notebook)[0] == 99 else 'ground'


def wings() -> list[str]:
    "All of these pages, in reading order."
    return list(dict.fromkeys(map(wing, modules())))


def glance() -> str:
    "The modules of all wings, and the names that each exports."
    linked = lambda m: ', '.join(f'{{py:obj}}`{n} <tamers.{m.name}.{n}>`' for n in m.things)
    first = {wing(m): m.name for m in reversed(modules())}       # of each wing, its first module
    of = lambda m: f'[{wing(m)}](api/{wing(m)}.md)' if first[wing(m)] == m.name else ''
    rows = [(of(m), f'[{m.name}](#{target(m)})', plain(m.doc.split('\n')[0]), linked(m)) for m in modules()]
    return '\n'.join(['', *table(('wing', 'module', 'what it is for', 'names'), rows)])


def told(name: str) -> str:
    "All modules of a wing."
    lines = ['']
    for m in (m for m in modules() if wing(m) == name):
        lines += [f'({target(m)})=', f'## tamers.{m.name}', '', plain(m.doc), '',
            f'{{doc}}`the notebook </{m.notebook}>`', '']
        for thing, node in m.things.items(): lines += thing_entry(thing, node, m)
    return '\n'.join(lines)


def add_page(app, docname, source):
    "Append the reference to nbs/api.md and nbs/api/*.md while Sphinx reads them."
    if docname == 'api': source[0] += glance()
    if docname.startswith('api/'): source[0] += told(docname.removeprefix('api/'))


def cell_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    "{cell}`wing.module.name`: a link to the cell that defines it."
    env = inliner.document.settings.env
    module, thing = text.rsplit('.', 1)
    notebook = next(m.notebook for m in modules() if m.name == module)
    uri = env.app.builder.get_relative_uri(env.docname, notebook) + '#' + anchor(thing)
    return [nodes.reference(rawtext, 'code and explanation', refuri=uri, internal=True, classes=['cell-link'])], []


def setup(app):
    app.add_role('cell', cell_role)
    app.connect('source-read', add_page)
    return dict(parallel_read_safe=True)
