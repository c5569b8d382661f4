"The split of a corpus that has none: kept beside the run, given back, and refused where it does not fit."
import csv
import pytest
from tamers import commands
from tamers.config import AnalyzeConfig
from tamers.core import TamersError
from tamers.data.load import load_corpus
from tamers.evaluation.analyze import analyze
from tests.commands.test_any_folder import flags, ravdess, tone

HOW = dict(device='cpu', num_workers=0, figures=False)


def table(path):
    with open(path, newline='') as f: return {row['id']: row['split'] for row in csv.DictReader(f)}


def answered(folder):
    with open(folder/'predictions.csv', newline='') as f: return {row['id'] for row in csv.DictReader(f)}


def train(root, out, *more): commands.tamers_train(flags(root, out, '--modality', 'text', *more))


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    here = tmp_path_factory.mktemp('kept')
    root = ravdess(here/'RAVDESS')
    train(root, here/'run', '--split-by', 'random', '--split-seed', '3')
    return root, here/'run'


def test_the_split_is_kept_beside_the_run(run):
    root, out = run
    corpus = load_corpus(root, split_by='random', split_seed=3)
    assert table(out/'splits.csv') == {u.id: u.split for u in corpus.utterances} and corpus.dealt


def test_the_same_split_from_the_file(run, tmp_path, capsys):
    root, out = run
    train(root, tmp_path/'again', '--split-file', str(out/'splits.csv'))
    assert f"splits as {out/'splits.csv'} has them" in capsys.readouterr().out
    assert (tmp_path/'again'/'splits.csv').read_bytes() == (out/'splits.csv').read_bytes()
    for command in (['tamers_analyze', '--checkpoint', str(out)], ['tamers_search', 'kids', '--checkpoint', 'mini']):
        extra = ['--no-figures', '--out', str(tmp_path/'results')] if 'analyze' in command[0] else []
        if 'search' in command[0]: extra = ['--root', str(root), '--label-map', 'ekman']
        given = ['--split-file', str(out/'splits.csv'), '--device', 'cpu', '--num-workers', '0']
        getattr(commands, command[0])([*command[1:], *extra, *given])
    assert answered(tmp_path/'results') == {id for id, split in table(out/'splits.csv').items() if split == 'test'}


def test_analysis_takes_the_file_beside_the_head(run, tmp_path):
    root, out = run
    moved = table(out/'splits.csv')
    test = [id for id, split in moved.items() if split == 'test']
    lines = [f'{id},{"train" if id in test[1:] else split}' for id, split in moved.items()]
    kept = (out/'splits.csv').read_text()
    try:
        (out/'splits.csv').write_text('\n'.join(['id,split', *lines]))
        analyze(AnalyzeConfig(checkpoint=str(out), out=str(tmp_path/'a'), **HOW))
        assert answered(tmp_path/'a') == set(test[:1])
        analyze(AnalyzeConfig(checkpoint=str(out), out=str(tmp_path/'b'), split_seed=0, **HOW))
        dealt = load_corpus(root, split_by='random', split_seed=0, split='test')
        assert answered(tmp_path/'b') == {u.id for u in dealt.utterances} != set(test)
    finally: (out/'splits.csv').write_text(kept)


def test_a_corpus_that_grew_is_noticed(tmp_path, capsys):
    root = ravdess(tmp_path/'RAVDESS')
    train(root, tmp_path/'run')
    tone(root/'Actor_09'/'03-01-03-01-01-01-09.wav', 200)
    with pytest.raises(TamersError, match='splits.csv: not the rows.*03-01-03-01-01-01-09.*--split-file'):
        analyze(AnalyzeConfig(checkpoint=str(tmp_path/'run'), **HOW))
    again = ['--load-checkpoint', str(tmp_path/'run'/'last.pt'), '--epochs', '2']
    with pytest.raises(SystemExit): commands.tamers_train(again)
    assert 'splits.csv: not the rows of this corpus' in capsys.readouterr().err
    with open(tmp_path/'run'/'splits.csv', 'a') as f: f.write('03-01-03-01-01-01-09,test\n')
    commands.tamers_train(again)
    assert table(tmp_path/'run'/'splits.csv')['03-01-03-01-01-01-09'] == 'test'


def test_a_run_that_replaces_another_leaves_no_file_of_it(tmp_path):
    train(ravdess(tmp_path/'RAVDESS'), tmp_path/'run')
    commands.tamers_train(['--save-path', str(tmp_path/'run'), '--overwrite', '--epochs', '1', '--device', 'cpu'])
    assert not (tmp_path/'run'/'splits.csv').exists()


@pytest.mark.parametrize('rows, problem', [
    ('id,fold\na,1\nb,2\nc,3\nd,1\n', 'has folds .1, 2, 3.; --split-file takes a column split'),
    ('id,split\na,train\nb,dev\nc,test\n', r'it lacks 1 \(d\)'),
    ('id,split\na,train\nb,dev\nc,test\nd,test\ne,test\n', r'1 are not in the corpus \(e\)'),
    (None, 'splits.csv: cannot be read')])
def test_a_file_that_does_not_fit_is_refused(rows, problem, tmp_path):
    (tmp_path/'manifest.csv').write_text('id,text,label\na,Hi,joy\nb,Ho,anger\nc,Hey,joy\nd,Oh,anger\n')
    if rows: (tmp_path/'splits.csv').write_text(rows)
    with pytest.raises(TamersError, match=problem):
        load_corpus(tmp_path, clips=False, split_file=tmp_path/'splits.csv')


def test_splits_of_the_corpus_or_other_ones(tmp_path):
    rows = [f'u{i},line {i},{("joy", "anger")[i % 2]},s{i % 5},{("train", "dev", "test")[i % 3]}' for i in range(30)]
    (tmp_path/'manifest.csv').write_text('\n'.join(['id,text,label,speaker,split', *rows]))
    own = [load_corpus(tmp_path, clips=False, split_by=by) for by in (None, 'column')]
    assert own[0].utterances == own[1].utterances and not own[0].dealt
    dealt = load_corpus(tmp_path, clips=False, split_by='speaker')
    assert dealt.dealt and 'all rows, dealt out by speaker with seed 0' in dealt.notes
    assert len({(u.speaker, u.split) for u in dealt.utterances}) == 5
    bare = '\n'.join(row.rpartition(',')[0] for row in ['id,text,label,speaker,split', *rows])
    (tmp_path/'bare.csv').write_text(bare)
    with pytest.raises(TamersError, match='rows have no split, and --split-by column'):
        load_corpus(tmp_path/'bare.csv', clips=False, split_by='column')
    with pytest.raises(TamersError, match='Did you mean .speaker.* Or column'):
        load_corpus(tmp_path/'bare.csv', clips=False, split_by='speakers')
    (tmp_path/'bare.csv').write_text(bare + '\nu1,again,joy,s0')
    with pytest.raises(TamersError, match='more than one row for u1'): load_corpus(tmp_path/'bare.csv', clips=False)
