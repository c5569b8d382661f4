"The transfer matrix: whom each cell answers and what it learnt from, on the classes that all share."
import csv
import json
import numpy as np
import pytest
from tamers import commands
from tamers.config import TransferConfig
from tamers.core import TamersError
from tamers.evaluation.transfer import answered, corpus_names, matrix_text, Part, transfer
from tamers.model.checkpoint import load_checkpoint
from tamers.training.folds import Answers
from tests.training.test_folds import made

QUIET = dict(say=lambda *_: None)


def settings(out, **more):
    return TransferConfig(**dict(dict(modality='text', epochs=1, batch_size=16, device='cpu', num_workers=0,
        out=str(out), figures=False), **more))


@pytest.fixture(scope='module')
def three(tmp_path_factory):
    here = tmp_path_factory.mktemp('transfer')
    roots = [str(made(here/'one')), str(made(here/'two', labels=('anger', 'disgust', 'fear', 'joy', 'neutral'))),
             str(made(here/'few', speakers=3, labels=('anger', 'disgust', 'joy')))]
    found = transfer(roots, settings(here/'out', figures=True), processes=1, **QUIET)
    return roots, here/'out', found


def test_every_column_scores_the_same_rows(three):
    roots, out, found = three
    assert found['classes'] == ['anger', 'disgust', 'joy'] and found['chance'] == pytest.approx(1 / 3)
    cells = {(c['learnt'], c['tested']): c for c in found['cells']}
    names = ('one', 'two', 'few')
    assert set(cells) == {(a, b) for a in (*names, None) for b in names}
    for (_, name), c in cells.items():
        assert c['n'] == found['rows'][name] and c['interval_of'] == 'speaker'
        assert c['units'] == (3 if name == 'few' else 6)
        low, high = c['intervals']['uar']
        assert low <= c['scores']['uar'] <= high


def test_the_heads_learnt_from_what_they_say(three):
    roots, out, found = three
    counts = {p.parent.name: sum(load_checkpoint(p).train_counts) + load_checkpoint(p).metrics['n']
              for p in (out/'one').glob('*/best.pt')}
    n = found['rows']
    assert counts['whole'] == n['one'] and counts['others'] == n['two'] + n['few']
    assert sorted(counts) == ['fold-1', 'fold-2', 'fold-3', 'fold-4', 'fold-5', 'others', 'whole']
    assert sum(n['one'] - counts[f'fold-{k}'] for k in range(1, 6)) == n['one']
    assert len(list((out/'few').glob('fold-*'))) == 3   # one speaker is left out at a time


def test_the_files(three):
    roots, out, found = three
    assert json.loads((out/'transfer.json').read_text())['cells'][0]['scores'] == found['cells'][0]['scores']
    with open(out/'transfer.csv', newline='') as f: lines = list(csv.DictReader(f))
    assert len(lines) == 12 and {line['learnt'] for line in lines} == {'one', 'two', 'few', 'all others'}
    assert float(lines[0]['uar_low']) <= float(lines[0]['uar']) <= float(lines[0]['uar_high'])
    assert (out/'transfer.png').read_bytes()[:4] == b'\x89PNG'
    text = matrix_text(found['cells']).splitlines()
    assert text[0].split() == ['learnt', '\\', 'tested', 'one', 'two', 'few'] and text[-1].startswith('all others')


def test_it_goes_on_and_refuses_other_corpora(three, monkeypatch):
    roots, out, found = three
    monkeypatch.setattr('tamers.training.folds.fit_head', lambda *a, **k: pytest.fail('trained again'))
    assert transfer(roots, settings(out), processes=1, **QUIET) == found
    with pytest.raises(TamersError, match='rows.csv: is of other corpora'):
        transfer(roots[:2], settings(out), processes=1, **QUIET)
    with pytest.raises(TamersError, match='--epochs 1 then, 2 now'):
        transfer(roots, settings(out, epochs=2), processes=1, **QUIET)


def test_two_corpora_and_a_label_map(tmp_path, capsys):
    "With two there is no line of all others. What is called otherwise is called alike by the map."
    a, b = made(tmp_path/'a', each=12), made(tmp_path/'b', each=12, labels=('cross', 'yuck', 'afraid', 'glad'))
    with pytest.raises(SystemExit): commands.tamers_transfer([str(a), str(b), '--modality', 'text', '--device', 'cpu'])
    said = capsys.readouterr().err
    assert 'share no class: a has anger, disgust, fear, joy; b has afraid, cross, glad, yuck' in said
    (tmp_path/'map.txt').write_text('cross = anger\nyuck = disgust\nafraid = fear\nglad = joy\n')
    flags = '--modality text --epochs 1 --batch-size 16 --device cpu --num-workers 0'.split()
    commands.tamers_transfer([str(a), str(b), *flags, '--label-map', str(tmp_path/'map.txt'), '--out',
                              str(tmp_path/'out')])
    said = capsys.readouterr().out
    assert '4 classes that all have (anger, disgust, fear, joy): 72 of 72 rows of a, 72 of 72 rows of b' in said
    assert 'chance is 25.0' in said and 'all others' not in said


def test_answers_find_their_cells():
    of = np.array(['a', 'a', 'b', 'b', 'b'])
    say = lambda rows, classes: Answers(np.array(rows), np.eye(3)[classes], None)
    parts = [Part('a', 'a/whole', []), Part('a', 'a/fold-1', []), Part('a', 'a/fold-2', []), Part(None, 'b/others', [])]
    said = answered(parts, [say([2, 3, 4], [0, 1, 2]), say([1], [2]), say([0], [1]), say([2, 3, 4], [1, 1, 1])], of)
    assert {key: cell.tolist() for key, cell in said.items()} == {('a', 'b'): [0, 1, 2], ('a', 'a'): [1, 2],
                                                                  (None, 'b'): [1, 1, 1]}


def test_what_cannot_be_is_refused(tmp_path):
    a = made(tmp_path/'a')
    few, twice = 'name two corpora or more', 'both are called a; rename'
    for roots, problem in (([a], few), ([a, a], twice), ([], few)):
        with pytest.raises(TamersError, match=problem): transfer(list(map(str, roots)), settings(tmp_path/'out'))
    with pytest.raises(TamersError, match='--root MELD: the corpora are named'): TransferConfig(root='MELD')
    with pytest.raises(TamersError, match='--lr'): TransferConfig(lr=-1.)
    table = str(a/'manifest.csv')
    assert corpus_names([table, str(tmp_path)]) == {'a': table, tmp_path.name: str(tmp_path)}
