"""Who imports whom: `python -m tests.project.layout` (or `make imports`) prints the imports between the wings as a
table."""
import ast
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]/'tamers'
GROUND = '(ground)'


@dataclass
class Arrow:
    "One module imports names of another, at its top or inside a function."
    importer: str   # dotted, without `tamers.`
    imported: str
    names: list


def notebooks() -> dict:
    "{module: its notebook}, such as {'data.audio': '1_data/1_audio'}."
    found = {}
    for path in PACKAGE.rglob('*.py'):
        home = re.search(r'File to edit: (?:\.\./)+nbs/(\S+)\.ipynb', path.read_text(encoding='utf-8'))
        if home: found['.'.join(path.relative_to(PACKAGE).with_suffix('').parts)] = home[1]
    return found


HOMES = notebooks()


def wing(module: str) -> str:
    "The wing of a module; the ground for what lies in no wing."
    return module.split('.')[0] if '.' in module else GROUND if place(module) < (0, 90) else module


def place(module: str) -> tuple:
    "Where a module stands in reading order: the ground, the wings by their numbers, then the commands."
    numbers = tuple(int(n) for n in re.findall(r'(?:^|/)(\d+)_', HOMES[module]))
    if len(numbers) == 2: return numbers
    return (0, *numbers) if numbers[0] < 90 else (99, *numbers)


def imported_by(module: str) -> list[Arrow]:
    "What a module imports of the package, wherever in it."
    path, found = PACKAGE/(module.replace('.', '/') + '.py'), []
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if not isinstance(node, ast.ImportFrom): continue
        if node.level: target = '.'.join([*module.split('.')[:-node.level], *filter(None, [node.module])])
        elif (node.module or '').startswith('tamers.'): target = node.module.removeprefix('tamers.')
        else: continue
        found.append(Arrow(module, target, [alias.name for alias in node.names]))
    return found


def arrows() -> list[Arrow]:
    "All imports between modules of the package."
    return [arrow for module in sorted(HOMES, key=place) for arrow in imported_by(module)]


def climbs(arrow: Arrow) -> bool:
    "Whether an import points up, or sideways, or to what is not there."
    return arrow.imported not in HOMES or place(arrow.imported) >= place(arrow.importer)


def table() -> str:
    "Imports between wings: who imports stands on the left, from whom at the head."
    order = list(dict.fromkeys(wing(m) for m in sorted(HOMES, key=place)))
    counts = Counter((wing(a.importer), wing(a.imported)) for a in arrows() if a.imported in HOMES)
    lines = [' ' * 12 + ''.join(f'{name[:11]:>12}' for name in order)]
    lines += [f'{row:12}' + ''.join(f"{counts[row, column] or '.':>12}" for column in order) for row in order]
    return '\n'.join(lines)


if __name__ == '__main__': print(table())
