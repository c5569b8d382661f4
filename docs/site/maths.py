"""Formulas as SVG, drawn while the site is built: no script, no font and no network when it is read."""
import html
import re
from functools import lru_cache
import ziamath
from docutils import nodes
from sphinx.util import logging

SIZE = 17   # pixels of an em when drawn; on the page formulas grow with the text
log = logging.getLogger(__name__)


@lru_cache(maxsize=None)
def draw(tex: str, inline: bool) -> str:
    "A formula as an SVG element in the colour of the text; ValueError if it is not understood."
    ziamath.config.svg2 = False          # no ids, which would be the same in every formula of a page
    tex = re.sub(r'\\[lr]?Vert\b\s*', '‖', tex)    # a bar that the parser knows after \Big, too
    try: formula = ziamath.Latex(tex, size=SIZE, inline=inline)
    except Exception as e: raise ValueError(type(e).__name__) from e
    if unknown := re.search(r'\\[A-Za-z]+', formula.mathmlstr()): raise ValueError(f'unknown command {unknown[0]}')
    svg = formula.svg()
    width, height = (float(re.search(rf' {side}="([\d.]+)"', svg)[1])/SIZE for side in ('width', 'height'))
    style = f'width:{width:.3f}em;height:{height:.3f}em' + (f';vertical-align:{formula.getyofst()/SIZE:.3f}em'
        if inline else '')
    box = re.search(r'viewBox="[^"]*"', svg)[0]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(tex)}" style="{style}" {box}>'
    return head + svg.split('>', 1)[1].replace('"black"', '"currentColor"')


def render(writer, node, inline: bool):
    "Write a formula; one that cannot be drawn is a warning, and so stops `make docs`."
    tex = node.astext().strip()
    try: svg = draw(tex, inline)
    except ValueError as e:
        log.warning('formula %r cannot be drawn: %s', tex, e, location=node)
        svg = f'<code>{html.escape(tex)}</code>'
    writer.body.append(f'<span class="math">{svg}</span>' if inline else writer.starttag(node, 'div', CLASS='math')
        + svg + '</div>')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer('svg', (lambda writer, node: render(writer, node, True), None),
        (lambda writer, node: render(writer, node, False), None))
    app.config.html_math_renderer = 'svg'
    return dict(parallel_read_safe=True)
