"""The site: it builds without a warning, its links lead somewhere, it loads nothing from elsewhere, and what its
how-to pages tell you to type works."""
import base64
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
import pytest
from filelock import FileLock
from tests.harness.meld_tree import make_tree
from tamers.commands import AppConfig
from tamers.config import AnalyzeConfig, CheckConfig, TrainConfig
from tamers.flags import parser
from tamers.core import EMOTIONS
from tamers.data.demo import demo_corpus
from tamers.core import shipped
from tamers.commands import PredictConfig

ROOT = Path(__file__).resolve().parents[2]
NBS = ROOT/'nbs'
SOURCES = [p for p in sorted(NBS.rglob('*')) if p.suffix in ('.ipynb', '.md') and '.ipynb_checkpoints' not in p.parts]
HOW_TO = [p for p in SOURCES if p.parent.name == 'howto']
LOADS = dict(script=['src'], link=['href'], img=['src', 'srcset'], audio=['src'], video=['src', 'poster'],
    source=['src', 'srcset'],
             iframe=['src'], embed=['src'], object=['data'], image=['href', 'xlink:href'], use=['href', 'xlink:href'])
OUTSIDE = re.compile(r'\s*(?:https?:)?//')
CSS_LOADS = re.compile(r'''(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)''')
JS_LOADS = re.compile(r'''(?:(?<!@)import\s*\(?|importScripts\(|fetch\(|\.src\s*=|from)\s*'''
                      r'''["'`]((?:https?:)?//[^"'`]+)''')


class Page(HTMLParser):
    "What a page loads, links to, and offers as a target; and its text without scripts."
    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads, self.text, self.code, self.inside = [], [], [], [], [], None
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.inside = tag if tag in ('script', 'style') else None
        self.ids += [attrs[k] for k in ('id', 'name') if attrs.get(k)]
        if tag == 'a' and attrs.get('href'): self.links.append(attrs['href'])
        if tag == 'link' and attrs.get('rel') in ('index', 'search', 'next', 'prev', 'canonical', 'author',
            'copyright'):
            self.links.append(attrs['href'])
        else: self.loads += [attrs[k] for k in LOADS.get(tag, []) if attrs.get(k)]
        self.loads += CSS_LOADS.findall(attrs.get('style') or '')

    def handle_endtag(self, tag): self.inside = None
    def handle_data(self, data):
        if self.inside: self.code.append(data)
        else: self.text.append(data)


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The folder of the site, built as `make docs` builds it, with warnings as errors; once for all processes of pytest."
    home = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ: home = home.parent
    with FileLock(home/'docs.lock'):
        if not (home/'docs.log').exists():
            done = subprocess.run([sys.executable, '-m', 'sphinx', '-q', '-E', '-W', '--keep-going', '-c', ROOT/'docs',
                NBS, home/'docs'/'site', '-d', home/'docs'/'trees'],
                                  capture_output=True, text=True)
            (home/'docs.log').write_text(done.stderr + done.returncode*f'\nsphinx-build ended with {done.returncode}')
    assert not (log := (home/'docs.log').read_text()), log
    return home/'docs'/'site'


@pytest.fixture(scope='module')
def pages(site): return {p: Page(p) for p in sorted(site.rglob('*.html')) if '_static' not in p.relative_to(site).parts}


def test_every_source_has_its_page(site, pages):
    missing = [p.name for p in SOURCES if site/p.relative_to(NBS).with_suffix('.html') not in pages]
    assert not missing and len(pages) > 25


def test_links_lead_somewhere(pages):
    "Each link inside the site names a file that exists, and a target that is there."
    broken = []
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or link.startswith('//'): continue
            target = (path.parent/unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file(): broken.append(f'{path.name}: {link}')
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                broken.append(f'{path.name}: {link} has no such target')
    assert not broken, '\n'.join(sorted(set(broken)))


def test_nothing_is_loaded_from_elsewhere(site, pages):
    "Scripts, styles, fonts and images: all from the site itself."
    found = [f'{path.name}: {load}' for path, page in pages.items() for load in page.loads if OUTSIDE.match(load)]
    for path, page in pages.items():
        found += [f'{path.name}: {load}' for text in page.code for load in CSS_LOADS.findall(text)
            + JS_LOADS.findall(text)]
    for path in [*site.rglob('*.css'), *site.rglob('*.js')]:
        text = path.read_text(encoding='utf-8', errors='replace')
        found += [f'{path.name}: {load}' for load in CSS_LOADS.findall(text) + JS_LOADS.findall(text)]
    assert not found, '\n'.join(sorted(set(found)))


def test_the_walk_sees_what_it_should(tmp_path):
    "A page with every fault, so that the tests above cannot pass by being blind."
    path = tmp_path/'bad.html'
    path.write_text('<p id="here"><a href="gone.html#x">a</a><img src="https://x.org/i.png"><script '
        'src="//cdn.org/a.js"></script>'
                    '<link rel="stylesheet" href="https://x.org/a.css"><style>@import "https://x.org/b.css"; a {b: '
                    'url(//x.org/f.woff)}</style>'
                    '<script>import("https://x.org/m.js")</script><p style="background: url(https://x.org/p.png)">text')
    page = Page(path)
    assert page.links == ['gone.html#x'] and page.ids == ['here'] and page.text == ['a', 'text']
    assert sum(bool(OUTSIDE.match(x)) for x in page.loads) == 4
    assert sum(len(CSS_LOADS.findall(t) + JS_LOADS.findall(t)) for t in page.code) == 3


def test_pages_show_what_readers_want(site, pages):
    "No line of nbdev, no hidden cell, no formula left as it was typed."
    for p in (p for p in SOURCES if p.suffix == '.ipynb'):
        text = ''.join(pages[site/p.relative_to(NBS).with_suffix('.html')].text)
        for sign in ('#|', 'nbdev_export()', 'default_exp', '$$', '\\frac', '\\sum'):
            assert sign not in text, f'{p.name} shows {sign}'
    losses = (site/'4_model'/'3_losses.html').read_text(encoding='utf-8')
    formulas = sum(''.join(c['source']).count('$$') for c in notebook(NBS/'4_model'/'3_losses.ipynb')
        if c['cell_type'] == 'markdown')//2
    assert losses.count('<div class="math">') == formulas > 0
    assert losses.count('<svg xmlns="http://www.w3.org/2000/svg" role="img"') > formulas


def test_api_pages_have_every_exported_name(site, pages):
    "Names of `__all__`, read by importing the modules, which the pages are made without; each on the page of its wing."
    from importlib import import_module
    wings, missing = {p.stem: pages[p] for p in sorted((site/'api').glob('*.html'))}, []
    for path in sorted((ROOT/'tamers').rglob('[!_]*.py')):
        name = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
        parts = name.split('.')[1:]
        home = wings[parts[0] if len(parts) > 1 or parts == ['commands'] else 'ground']
        missing += [f'{name}.{x}' for x in import_module(name).__all__ if f'{name}.{x}' not in home.ids]
        assert f'tamers-{"-".join(parts)}' in home.ids and parts[-1] in ''.join(pages[site/'api.html'].text)
    assert not missing and len(wings) == 11
    text = re.sub(r'\s+', ' ', ' '.join(t for page in wings.values() for t in page.text))
    assert 'logarithm of the inverse temperature' in text, 'comments of parameters'
    assert 'utterances in a batch (of each process)' in text, 'help texts of settings'


def test_no_api_page_is_endless(site, pages):
    "What is looked up is found on a page that can be scrolled."
    sizes = {p.stem: p.stat().st_size for p in (site/'api').glob('*.html')}
    assert max(sizes.values()) < sum(sizes.values())/4 and not any(i.startswith('tamers.') for i in
        pages[site/'api.html'].ids)


def test_gallery_has_every_analysis(site, pages):
    "One figure a card, the one that its notebook chose, as large as it was drawn."
    notebooks = sorted((NBS/'analysis').glob('*.ipynb'))
    page = pages[site/'gallery.html']
    for p in notebooks:
        assert f'analysis/{p.stem}.html' in page.links
        assert sum(f'/{p.stem}.png' in load for load in page.loads) == 1
        chosen = [c for c in notebook(p) if '#| gallery' in ''.join(c['source'])]
        outputs = [out.get('data', {}) for c in chosen for out in c['outputs']]
        first = next(data['image/png'] for data in outputs if 'image/png' in data)
        drawn = (site/'_figures'/f'{p.stem}.png').read_bytes()
        assert len(chosen) == 1 and base64.b64decode(''.join(first)) == drawn


def test_the_front_page_opens_with_a_picture(site):
    "Before the first heading, on the site and in the README."
    for path in (site/'index.html', ROOT/'README.md'):
        before = path.read_text(encoding='utf-8').split('Try it<' if path.suffix == '.html' else '## Try it')[0]
        assert re.search(r'<img[^>]*(?:_images|jupyter)' if path.suffix == '.html' else r'!\[figure\]', before), path


def test_the_study_opens_with_its_story(site):
    "Code is folded; what is chosen by hand is shown."
    html = (site/'study.html').read_text(encoding='utf-8')
    sources = [''.join(c['source']) for c in notebook(NBS/'study.ipynb') if c['cell_type'] == 'code']
    shown = [source for source in sources if '#| hide' not in source]
    assert html.count('tag_hide-input') == len(shown) - 1 and shown[0].startswith('# Parameters')


# What the how-to pages tell you to type

@lru_cache(maxsize=None)
def notebook(path): return json.loads(path.read_text(encoding='utf-8'))['cells']


def prose(path):
    "The Markdown of a page."
    if path.suffix == '.md': return path.read_text(encoding='utf-8')
    return '\n\n'.join(''.join(c['source']) for c in notebook(path) if c['cell_type'] == 'markdown')


def shell(path): return re.findall(r'^```sh\n(.*?)^```', prose(path), re.M | re.S)


@pytest.mark.parametrize('path', SOURCES, ids=lambda p: p.stem)
def test_commands_and_flags_exist(path):
    "Each command in a block of shell code parses, and each flag in prose belongs to a command."
    known = {flag for cls in (TrainConfig, AnalyzeConfig, CheckConfig, PredictConfig, AppConfig)
        for a in parser(cls, 'x')._actions for flag in a.option_strings}
    unknown = []
    for line in '\n'.join(shell(path)).splitlines():
        for command, flags in re.findall(r'(tamers-train|tamers-analyze)([^&|;#]*)', line):
            parser(TrainConfig if command == 'tamers-train' else AnalyzeConfig, command).parse_args(flags.split())
    for code in re.findall(r'`([^`\n]+)`', prose(path)):
        if code.startswith(('--', 'tamers-')):
            unknown += [f for f in re.findall(r'(?<!\S)--[a-z][\w-]*', code) if f not in known]
    assert not unknown


@pytest.fixture(scope='module')
def desk(tmp_path_factory):
    """A folder with what a reader of the how-to pages has: MELD's archive, a folder of recordings, and encoders in
    the cache of the hub."""
    home = tmp_path_factory.mktemp('desk')
    tree = make_tree(home/'tree', 'archive')
    raw = home/'MELD.Raw'
    raw.mkdir()
    for split, inside in dict(train=['train', 'train_splits'], dev=['dev_splits_complete'],
        test=['output_repeated_splits_test']).items():
        with tarfile.open(raw/f'{split}.tar.gz', 'w:gz') as tar:
            for name in inside: tar.add(tree/name, name)
    for table in tree.glob('*.csv'): shutil.copy(table, raw)
    with tarfile.open(home/'MELD.Raw.tar.gz', 'w:gz') as tar: tar.add(raw, 'MELD.Raw')
    shutil.rmtree(raw)
    (home/'recordings').mkdir()
    (home/'recordings'/'clips').symlink_to(demo_corpus())
    with open(home/'recordings'/'manifest.csv', 'w', newline='') as f:
        table = csv.writer(f)
        table.writerow(['audio', 'text', 'label', 'split'])
        for split, per_class in (('train', 3), ('dev', 2)):
            rows = list(csv.DictReader(open(demo_corpus()/f'{split}_sent_emo.csv', encoding='utf-8', newline='')))
            for row in [r for e in EMOTIONS for r in [r for r in rows if r['Emotion'] == e][:per_class]]:
                table.writerow([f"clips/{split}/dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}.wav", row['Utterance'],
                    row['Emotion'], split])
    # small ones stand for those of the hub
    for name, kind in (('MIT/ast-finetuned-audioset-10-10-0.4593', 'audio'), ('gpt2', 'text')):
        model, commit = home/'hub'/f"models--{name.replace('/', '--')}", '0'*40
        shutil.copytree(shipped(kind), model/'snapshots'/commit)
        (model/'refs').mkdir()
        (model/'refs'/'main').write_text(commit)
    return home


@pytest.mark.parametrize('path', [p for p in HOW_TO if shell(p)], ids=lambda p: p.stem)
def test_shell_code_of_how_to_pages_runs(path, desk):
    "Every block, in order, in one shell, exactly as it stands."
    env = dict(os.environ, HF_HUB_CACHE=str(desk/'hub'), HF_HUB_OFFLINE='1',
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    done = subprocess.run(['bash', '-euo', 'pipefail', '-c', '\n'.join(shell(path))], cwd=desk, env=env,
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-1000:]
    assert 'checkpoint:' in done.stdout
    if path.stem == '1-train-on-meld':
        assert 'dia125_utt3' in done.stdout and 'dia110_utt7' in done.stdout, 'what was left out is named'
        assert json.loads((desk/'checkpoints'/'meld'/'test'/'metrics.json').read_text())['n'] == 4
        assert (desk/'checkpoints'/'meld-text'/'best.pt').is_file()
