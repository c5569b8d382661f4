"The analysis notebooks on what a user may hand them: small splits, missing classes, one modality, no history, no data."
import builtins, json, shutil
from pathlib import Path
import matplotlib.pyplot as plt
import pytest
from tamers import commands
from tests.harness.corpora import tones

NBS = Path(__file__).resolve().parents[2]/'nbs'/'analysis'
SPACE, SIMILARITY, ERRORS, TRAINING, MATTERS = NOTEBOOKS = sorted(p.name for p in NBS.glob('*.ipynb'))


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    "A manifest of tones. Its test split has five utterances of three emotions, no speakers and no dialogues."
    return tones(tmp_path_factory.mktemp('corpus'), lambda label, i: f'the <b>{label}</b> line {i}')


@pytest.fixture(scope='module')
def runs(corpus):
    "Run folders of a head on both modalities and of one on text alone; `alone` is a checkpoint without its log."
    shared = ['--root', corpus, '--store-path', corpus/'store', '--device', 'cpu', '--num-workers', '0',
              '--epochs', '2', '--batch-size', '14']
    for name in ('both', 'text'):
        commands.tamers_train([str(a) for a in [*shared, '--modality', name, '--save-path', corpus/name]])
    (corpus/'alone').mkdir()
    shutil.copy(corpus/'both'/'best.pt', corpus/'alone'/'best.pt')
    return corpus


@pytest.fixture
def page(capsys, monkeypatch, tmp_path):
    "Run the code of a notebook with these parameters; gives what it printed, what it displayed and the titles it drew."
    def go(name, **parameters):
        cells = json.loads((NBS/name).read_text())['cells']
        cells = [''.join(c['source']) for c in cells if c['cell_type'] == 'code']
        first = next(i for i, c in enumerate(cells) if c.startswith('# Parameters'))
        unknown = [k for k in parameters if f'{k} = ' not in cells[first] and f'{k}, ' not in cells[first]]
        assert not unknown, unknown
        cells.insert(first + 1, '\n'.join(f'{k} = {v!r}' for k, v in parameters.items()))
        shown = []
        monkeypatch.setattr(builtins, 'display', shown.append, raising=False)
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        space = {}
        for cell in cells: exec(compile(cell, name, 'exec'), space)
        figures = [ax.get_title() for n in plt.get_fignums() for ax in plt.figure(n).axes]
        plt.close('all')
        return capsys.readouterr().out, shown, figures
    return go


OPTIONS = dict(device='cpu', num_workers=0)


def test_five_utterances_of_three_classes(runs, page):
    "Too few points for UMAP; four classes have no example."
    given = dict(checkpoint=str(runs/'both'), options=OPTIONS)
    out, shown, figures = page(SPACE, **given)
    assert 'Not shown' not in out and len(figures) == 4
    assert shown[-1].text.count('<title>') == 5 and '<b>joy</b>' not in shown[-1].text
    out, shown, figures = page(SIMILARITY, **given)
    assert 'Not shown' not in out and 'cannot exceed 100%' in out and any('of 2 classes' in f for f in figures)
    assert sum(s.text.count('<audio') for s in shown) == 3
    out, shown, figures = page(ERRORS, **given)
    unknown = [line.split(': ')[1] for line in out.splitlines() if line.startswith('Not shown')]
    assert unknown == ['speaker', 'cast', 'words', 'turn'] and '0 of 2 groupings differ clearly (p < 0.01)' in figures
    title = next(f for f in figures if f.startswith('F1 from'))
    assert not any(e in title for e in ('fear', 'disgust', 'sadness', 'surprise'))


def test_a_question_has_one_answer(runs, page, tmp_path, monkeypatch):
    "The groups of the page are those of metrics.json, with the same borders and the same p."
    from tamers.evaluation import charts
    drawn = []
    monkeypatch.setattr(charts, 'plot_groups', drawn.append)
    page(ERRORS, checkpoint=str(runs/'both'), options=OPTIONS)
    commands.tamers_analyze(['--checkpoint', str(runs/'both'), '--device', 'cpu', '--num-workers', '0', '--no-figures',
        '--out', str(tmp_path/'out')])
    written = json.loads((tmp_path/'out'/'metrics.json').read_text())['groups']
    assert json.loads(json.dumps(drawn)) == [written]


def test_a_head_on_text_alone(runs, page):
    given = dict(checkpoint=str(runs/'text'), options=OPTIONS)
    for name in (SPACE, SIMILARITY):
        out, shown, figures = page(name, **given)
        assert 'Not shown: this checkpoint was trained on text alone' in out and not shown and not figures
    out, _, figures = page(ERRORS, **given)
    assert 'trained on text' in out and len(figures) >= 5
    out, _, figures = page(TRAINING, **given)
    assert 'Not shown' not in out and any('stayed at 14.3' in f for f in figures)


def test_a_checkpoint_without_its_history(runs, page):
    out, _, figures = page(TRAINING, checkpoint=str(runs/'alone'))
    assert 'Not shown: no metrics.jsonl beside the checkpoint' in out and 'epoch' in out and not figures
    out, _, figures = page(TRAINING, checkpoint=str(runs/'both'))
    assert 'Not shown' not in out and len(figures) == 3


def test_without_the_data(runs, page):
    for name in (SPACE, SIMILARITY, ERRORS, MATTERS):
        out, shown, figures = page(name, checkpoint=str(runs/'both'), root=str(runs/'moved'), options=OPTIONS)
        assert 'Not shown' in out and str(runs/'moved') in out and not shown and not figures


def test_the_sweep(runs, page):
    out, shown, figures = page(MATTERS, checkpoint=str(runs/'text'), options=OPTIONS, seeds=(1,), epochs=1)
    assert 'Not shown' not in out and '7 runs of 1 epochs' in out
    table = shown[-1]
    assert list(table.index)[1:3] == ['audio alone', 'text alone'] and table['recall at 10']['text alone'] == '–'
    assert sum('0 of 6 changes are clear over 1 seeds' in f for f in figures) == 2, 'one seed has no interval'


def test_ids_to_listen_to(runs, page):
    out, *_ = page(SIMILARITY, checkpoint=str(runs/'both'), options=OPTIONS, chosen=['nobody'])
    assert 'Not shown: chosen: nobody not among the utterances' in out


def test_committed_pages_are_small():
    for name in NOTEBOOKS:
        assert (NBS/name).stat().st_size < 1e6, name
        assert (NBS/name).read_text().count('<audio controls') <= 3, name
