"""The gallery: a card for each analysis notebook, with the figure that its author chose by `#| gallery`."""
import base64
import html
import io
import json
import re
from pathlib import Path
from PIL import Image

FOLDER = '_figures'
MARK = re.compile(r'^#\|\s*gallery\s*$', re.M)


def chosen(notebook: dict) -> bytes:
    "The first figure of the cell that is marked, as PNG."
    marked = next(cell for cell in notebook['cells'] if MARK.search(''.join(cell['source'])))
    data = next(out['data']['image/png'] for out in marked['outputs'] if 'image/png' in out.get('data', {}))
    return base64.b64decode(''.join(data))


def card(path: Path, out: Path) -> str:
    "A notebook as HTML: its figure, its title and its line."
    notebook = json.loads(path.read_text(encoding='utf-8'))
    title, line = re.match(r'# (.+)\n\n> (.+)', ''.join(notebook['cells'][0]['source'])).groups()
    png, picture = chosen(notebook), out/FOLDER/f'{path.stem}.png'
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(png)
    width, height = Image.open(io.BytesIO(png)).size   # so that the page does not jump while it loads
    page = f'{path.parent.name}/{path.stem}.html'
    return (f'<a class="card" href="{page}"><img src="{FOLDER}/{picture.name}" width="{width}" height="{height}" '
            f'alt="A figure of {html.escape(title)}"><strong>{html.escape(title)}</strong>'
            f'<span>{html.escape(line)}</span></a>')


def add_cards(app, docname, source):
    "Append the cards to nbs/gallery.md while Sphinx reads it."
    if docname != 'gallery': return
    cards = [card(p, Path(app.outdir)) for p in sorted((Path(app.srcdir)/'analysis').glob('*.ipynb'))]
    source[0] += '\n<div class="gallery">\n' + '\n'.join(cards) + '\n</div>\n'


def setup(app):
    app.connect('source-read', add_cards)
    return dict(parallel_read_safe=True)
