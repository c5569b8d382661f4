"""Settings of Sphinx: `make docs` renders nbs/ to _docs/, without Quarto and without a network.

The pages are the notebooks and the Markdown files in nbs/. What is made on the way is in site/: `notebooks` reads
the `#|` lines of nbdev, `reference` writes the API page from the package, `gallery` the page of figures, and `maths`
draws formulas as SVG, so that no page loads anything from elsewhere.
"""
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'docs'/'site'))

config = ConfigParser(delimiters=['='])
config.read(ROOT/'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']
project, author, release, copyright = cfg['title'], cfg['author'], cfg['version'], cfg['copyright']

extensions = ['myst_nb', 'sphinx_copybutton', 'notebooks', 'reference', 'gallery', 'maths']
root_doc = 'index'
exclude_patterns = ['**/_*', '**.ipynb_checkpoints']
nb_custom_formats = {'.ipynb': ['notebooks.read', {}, False]}
nb_execution_mode = 'off'            # the outputs are in the notebooks, which the tests run
nb_merge_streams = True
nb_code_prompt_show, nb_code_prompt_hide = 'code', 'code'   # of cells that are folded
nb_render_markdown_format = 'myst'  # tables in outputs, too
smartquotes = False                  # --flag stays what it is
myst_enable_extensions = ['amsmath', 'colon_fence', 'dollarmath']
myst_heading_anchors = 3
toc_object_entries_show_parents = 'hide'
copybutton_selector = '.cell_input pre, div:not(.output) > div.highlight pre'

html_theme = 'furo'
pygments_dark_style = 'github-dark'
html_title = f'{project} {release}'
html_static_path = [str(ROOT/'docs'/'static')]
html_css_files = ['site.css']
html_copy_source = False
html_theme_options = dict(light_css_variables={'color-brand-primary': '#1d4f7c', 'color-brand-content': '#1d5f99'},
                          dark_css_variables={'color-brand-primary': '#8cc0ee', 'color-brand-content': '#8cc0ee'})
