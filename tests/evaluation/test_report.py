"The report: one file that loads nothing, holds sounds and figures, escapes what it is given, and tells of failures."
import html, os, re, signal, subprocess, sys, time
from html.parser import HTMLParser
from pathlib import Path
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from tamers import commands
from tamers.evaluation import analyze, report
from tests.harness.corpora import tones

ROOT = Path(__file__).resolve().parents[2]
EVIL = 'you said <script>alert(1)</script> & <img src=x>'
PAGES = ['1_shared_space', '2_similarity', '3_errors', '4_training']


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    "A manifest of tones whose transcripts hold a script; its test split has five utterances."
    return tones(tmp_path_factory.mktemp('corpus'), lambda label, i: f'{EVIL} {i}', speaker='<i>Ross</i>')


def train(corpus, *flags):
    argv = ['--root', corpus, '--store-path', corpus/'store', '--device', 'cpu', '--num-workers', '0',
            '--epochs', '2', '--batch-size', '14', *flags]
    commands.tamers_train([str(a) for a in argv])


@pytest.fixture(scope='module')
def run(corpus):
    train(corpus, '--save-path', corpus/'run')
    (corpus/'run'/'metrics.jsonl').unlink()
    return corpus/'run'


def small_book(path, *cells):
    first = 'checkpoint, split, options, players, root = None, None, {}, 1, None'
    cells = [new_markdown_cell('# Small'), *map(new_code_cell, (f'# Parameters\n{first}', *cells))]
    nbformat.write(new_notebook(cells=cells), path)
    return path


class Page(HTMLParser):
    "Counts tags; collects what is loaded, the targets, and the jumps inside the page."
    def __init__(self, text):
        super().__init__()
        self.tags, self.loads, self.ids, self.jumps = {}, [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.loads += [attrs[k] for k in ('src', 'srcset', 'data', 'poster') if k in attrs]
        if tag == 'link': self.loads.append(attrs.get('href'))
        if 'id' in attrs: self.ids.append(attrs['id'])
        if tag == 'a': self.jumps.append(attrs['href'])


@pytest.fixture(scope='module')
def page(corpus, run):
    "The report of the command, on five utterances and without a history."
    commands.tamers_analyze(['--checkpoint', str(run), '--device', 'cpu', '--num-workers', '0', '--no-figures',
                             '--report', '--out', str(corpus/'out')])
    return (corpus/'out'/'report.html').read_text(encoding='utf-8')


def test_one_file_that_loads_nothing(corpus, page):
    assert sorted(p.name for p in (corpus/'out').iterdir()) == ['metrics.json', 'predictions.csv', 'report.html']
    seen = Page(page)
    assert seen.loads and all(x.startswith('data:') for x in seen.loads)
    assert not re.search(r'url\(|@import', page) and 'script' not in seen.tags and 'iframe' not in seen.tags
    assert "default-src 'none'" in page and 'name="viewport"' in page


def test_its_contents_lead_to_every_page(page):
    seen = Page(page)
    assert [i for i in seen.ids if i in PAGES] == PAGES and len(set(seen.ids)) == len(seen.ids)
    assert {f'#{name}' for name in PAGES} <= set(seen.jumps)
    assert all(j.startswith('#') and j[1:] in seen.ids for j in seen.jumps)
    assert 'it takes minutes: 5_what_matters' in page


def test_it_shows_and_plays(page):
    seen = Page(page)
    assert seen.tags['img'] >= 9 and seen.tags['audio'] >= 4 and seen.tags['math'] >= 2 and seen.tags['svg'] == 1
    assert page.count('data:audio/mpeg;base64,') == seen.tags['audio'] and 'preload="none"' in page
    assert 'This cell failed' not in page
    assert 'Not shown: no metrics.jsonl beside the checkpoint' in page, 'no history'
    assert 'made speech' not in page, 'prose on the shipped checkpoint does not belong to this one'


def test_it_opens_with_what_was_found(page):
    "Numbers and pictures first; what the terminal shows is folded away, and what is above is not shown again below."
    head, rest = page.split('<nav')
    shown = re.sub(r'<details>.*?</details>', '', head, flags=re.S)
    seen = Page(shown)
    assert '(n = 5)' in shown and seen.tags['table'] == 1 and seen.tags['img'] == 2 and '<th>accuracy</th>' in shown
    assert 'Most confused' not in shown and 'precision' not in shown and 'precision' in head
    assert rest.count('href="#top">at the head') == 3 and '<th>accuracy</th>' not in rest and '#| headline' not in page


def test_it_fits_a_phone(page):
    "No figure is wider than the screen; of the contents a phone shows the pages only."
    assert 'min-width' not in re.sub(r'@media[^{]*', '', page)
    assert 'img {max-width: 100%; height: auto' in page and 'nav ul ul {display: none}' in page
    assert all(int(w) <= 460 for w in re.findall(r'<img [^>]*width="(\d+)"', page)), 'two beside each other, or one'


def test_transcripts_and_names_are_escaped(page):
    assert '<script' not in page and 'src=x' not in re.sub(re.escape(html.escape(EVIL)), '', page)
    assert html.escape(EVIL) in page and '&lt;i&gt;Ross' in page and '<i>Ross' not in page


def test_a_failing_cell_is_told_in_place(run, tmp_path, monkeypatch):
    book = small_book(tmp_path/'book.ipynb', "raise ValueError('no <b>luck</b>')", "print('went on')",
                      "import os; os._exit(1)", "print('never')")
    books = [book, small_book(tmp_path/'next.ipynb', "print('the next page')")]
    monkeypatch.setattr(report, 'analysis_notebooks', lambda: books)
    out = tmp_path/'out'
    flags = ['--checkpoint', str(run), '--device', 'cpu', '--no-figures', '--report']
    commands.tamers_analyze([*flags, '--out', str(out)])
    text = (tmp_path/'out'/'report.html').read_text(encoding='utf-8')
    assert 'This cell failed: <b>ValueError</b>: no &lt;b&gt;luck&lt;/b&gt;' in text
    assert 'Traceback' not in text and 'File' not in text
    shown = re.sub(r'<details>.*?</details>', '', text, flags=re.S)
    words = ('went on', 'The process ended here', 'never', 'the next page')
    assert [w in shown for w in words] == [True, True, False, True]


def test_pages_share_a_kernel_and_no_names(tmp_path, capsys):
    "Imports are paid for once; a page that leans on the names of another fails here as it fails alone."
    books = [small_book(tmp_path/'a.ipynb', 'import os, tamers; mine = 1; print("pid", os.getpid())'),
        small_book(tmp_path/'b.ipynb', 'import os; print("pid", os.getpid())', 'print(mine)', 'print(tamers)')]
    text = report.write_report(None, tmp_path, notebooks=books).read_text()
    pids = re.findall(r'<pre>pid (\d+)</pre>', text)
    assert len(pids) == 2 and len(set(pids)) == 1
    assert re.findall(r'<b>NameError</b>: name &#x27;(\w+)&#x27;', text) == ['mine', 'tamers']
    assert 'report' not in capsys.readouterr().err, 'a bar is for a terminal'


def test_ctrl_c_ends_the_report(tmp_path):
    "With the kernel, without a word of nbclient's, and without a page."
    book = small_book(tmp_path/'book.ipynb', f"open({str(tmp_path/'begun')!r}, 'w'); import time; time.sleep(99)")
    code = 'from tamers.evaluation.report import write_report; '
    code += f'write_report(None, {str(tmp_path)!r}, notebooks=[{str(book)!r}])'
    p = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (tmp_path/'begun').exists() and p.poll() is None: time.sleep(.1)
    p.send_signal(signal.SIGINT)
    said = p.communicate(timeout=60)[1]
    assert said.splitlines()[-1] == 'KeyboardInterrupt' and 'AssertionError' not in said
    assert not (tmp_path/'report.html').exists()


def test_parameters_reach_the_notebook(tmp_path):
    book = small_book(tmp_path/'book.ipynb', 'import sys; print(checkpoint, split, options, players, sys.executable)')
    given = dict(split="d'ev", options=dict(device='cpu'))
    text = report.write_report('run/<1>.pt', tmp_path, notebooks=[book], quiet=True, **given).read_text()
    printed = html.escape(f"run/<1>.pt d'ev {given['options']} 1 {sys.executable}")
    assert f'<pre>{printed}</pre>' in text


def test_every_parameter_of_the_command_is_known():
    for path in report.analysis_notebooks():
        names = report.parameters_of(nbformat.read(path, 4))[1]
        assert {'checkpoint', 'root', 'split', 'options'} <= names, path.name
    cfg = analyze.AnalyzeConfig(checkpoint='x', split='dev', device='cpu', skip_bad=False, report=True)
    assert analyze.notebook_options(cfg) == dict(device='cpu', skip_bad=False)


def refused(capsys, argv):
    with pytest.raises(SystemExit) as e: commands.tamers_analyze([str(a) for a in argv])
    assert e.value.code == 2
    return capsys.readouterr().err


def test_without_the_extra(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'nbclient', None)
    err = refused(capsys, ['--checkpoint', run, '--device', 'cpu', '--report', '--out', tmp_path/'out'])
    assert err.startswith('error: ') and 'nbclient' in err and "pip install 'tamers[report]'" in err
    assert not (tmp_path/'out').exists(), 'before the evaluation'


def test_without_the_data(run, tmp_path, capsys):
    flags = ['--checkpoint', run, '--device', 'cpu', '--report', '--out', tmp_path/'out', '--root', tmp_path/'moved']
    err = refused(capsys, flags)
    assert str(tmp_path/'moved') in err and not (tmp_path/'out').exists()


def test_the_package_holds_the_notebooks(tmp_path):
    "As a wheel lays them out, and found there by the package itself."
    build = [sys.executable, 'setup.py', '-q', 'build_py', '--build-lib', str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    packed = sorted(p.name for p in (tmp_path/'tamers'/'analysis').iterdir())
    assert packed == sorted(p.name for p in (ROOT/'nbs'/'analysis').glob('*.ipynb'))
    code = 'from tamers.evaluation.report import analysis_notebooks; print(*analysis_notebooks(), sep="\\n")'
    there = dict(os.environ, PYTHONPATH=str(tmp_path))
    command = [sys.executable, '-c', code]
    out = subprocess.run(command, cwd=tmp_path, env=there, check=True, capture_output=True, text=True).stdout
    assert [Path(p).parent for p in out.split('\n') if p] == [tmp_path/'tamers'/'analysis'] * 5


def test_the_extra_names_what_is_needed():
    "Each module that a report needs comes with a requirement of the extra, or with nbclient (nbformat)."
    from nbdev.config import get_config
    names = re.findall(r'^([\w-]+)|\s([\w-]+)', get_config()['report_requirements'])
    plain = lambda name: name.replace('-', '_').removesuffix('_py').removesuffix('_plugins')
    assert {plain(a or b) for a, b in names} == {plain(n) for n in report.NEEDS} - {'nbformat'}


@pytest.mark.slow
def test_a_head_on_text_alone(corpus):
    train(corpus, '--modality', 'text', '--save-path', corpus/'text')
    commands.tamers_analyze(['--checkpoint', str(corpus/'text'), '--device', 'cpu', '--num-workers', '0',
                             '--no-figures', '--report'])
    text = (corpus/'text'/'test'/'report.html').read_text(encoding='utf-8')
    assert 'Not shown: this checkpoint was trained on text alone' in text and 'This cell failed' not in text
    assert Page(text).tags['img'] >= 5


@pytest.mark.slow
def test_costly_pages_on_request(run):
    quick = dict(options=dict(device='cpu', num_workers=0), seeds=(1,), epochs=1)
    text = report.write_report(run/'best.pt', run/'all', slow=True, quiet=True, **quick).read_text()
    assert 'id="5_what_matters"' in text and '7 runs of 1 epochs' in text
    assert 'Left out' not in text and 'This cell failed' not in text
    last = report.analysis_notebooks()[-1:]
    only = report.write_report(run/'best.pt', run/'one', notebooks=last, quiet=True).read_text()
    assert 'Left out: this cell takes minutes' in only
    assert 'runs of' not in re.sub(r'<details>.*?</details>', '', only, flags=re.S)
