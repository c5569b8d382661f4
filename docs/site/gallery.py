"""The gallery: a card for each analysis notebook, with its figures as thumbnails."""
import base64
import html
import io
import json
import re
from pathlib import Path
from PIL import Image

FOLDER = '_thumbnails'
WIDTH, MOST = 640, 4    # pixels of a thumbnail; figures shown of a notebook


def figures(notebook: dict) -> list[bytes]:
    "The figures that a notebook shows, as PNG."
    found = [out['data']['image/png'] for cell in notebook['cells'] for out in cell.get('outputs', [])
        if 'image/png' in out.get('data', {})]
    return [base64.b64decode(''.join(data)) for data in found]


def shrink(png: bytes, path: Path) -> str:
    "Write a thumbnail; gives its size as HTML attributes, so that the page does not jump while it loads."
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.open(io.BytesIO(png)).convert('RGB')
    image.thumbnail((WIDTH, 2*WIDTH))
    image.save(path)
    return f'width="{image.width}" height="{image.height}"'


def card(path: Path, out: Path) -> str:
    "A notebook as HTML: its figures, its title and its line."
    notebook = json.loads(path.read_text(encoding='utf-8'))
    title, line = re.match(r'# (.+)\n\n> (.+)', ''.join(notebook['cells'][0]['source'])).groups()
    page = f'{path.parent.name}/{path.stem}.html'
    shown = []
    for i, png in enumerate(figures(notebook)[:MOST]):
        name = f'{path.stem}-{i}.png'
        shown.append(f'<img src="{FOLDER}/{name}" {shrink(png, out/FOLDER/name)} alt="Figure {i + 1} of '
            f'{html.escape(title)}">')
    return (f'<a class="card" href="{page}"><span '
            f'class="figures">{"".join(shown)}</span><strong>{html.escape(title)}</strong>'
            f'<span>{html.escape(line)}</span></a>')


def add_cards(app, docname, source):
    "Append the cards to nbs/gallery.md while Sphinx reads it."
    if docname != 'gallery': return
    cards = [card(p, Path(app.outdir)) for p in sorted((Path(app.srcdir)/'analysis').glob('*.ipynb'))]
    source[0] += '\n<div class="gallery">\n' + '\n'.join(cards) + '\n</div>\n'


def setup(app):
    app.connect('source-read', add_cards)
    return dict(parallel_read_safe=True)
