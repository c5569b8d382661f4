"Votes of several raters: in a cell, in columns, in any table; renamed, tied, wrong."
import json
import pytest
from tamers.classes import Labels
from tamers.core import TamersError
from tamers.data.load import load_corpus
from tamers.votes import parse_votes

CLASSES = ('anger', 'neutral')


def table(folder, head, *lines, name='manifest.csv'):
    (folder/name).write_text('\n'.join([head, *lines]) + '\n', encoding='utf-8')
    return folder/name


def read(path, **how): return load_corpus(path, clips=False, **how)


@pytest.mark.parametrize('cell', ('anger:2 neutral:1', 'anger=2;neutral=1;joy=0', 'Anger: 2, neutral: 1',
                                  '"{""anger"": 2, ""neutral"": 1}"', '"[""anger"", ""neutral"", ""anger""]"'))
def test_the_majority_is_the_label(tmp_path, cell):
    cell = cell if cell.startswith('"') else f'"{cell}"'
    path = table(tmp_path, 'text,votes,split', f'Oh.,{cell},train', f'No.,{cell},dev')
    first = read(path).utterances[0]
    assert first.label == 'anger' and dict(first.votes) == dict(anger=2, neutral=1)


def test_lines_of_json_hold_objects_and_lists(tmp_path):
    rows = [dict(text='Oh.', votes=dict(anger=2.0, neutral=1), split='train'),
            dict(text='No.', votes=['neutral', 'anger', 'neutral'], split='dev'),
            dict(text='Ah.', label='anger', votes=None, split='dev')]
    found = read(table(tmp_path, '', *map(json.dumps, rows), name='manifest.jsonl'))
    assert [(u.label, u.votes and dict(u.votes)) for u in found.utterances] == [
        ('anger', dict(anger=2, neutral=1)), ('neutral', dict(neutral=2, anger=1)), ('anger', None)]
    assert 'votes of several raters: 6 on 2 rows' in found.notes


def test_a_column_for_each_rater(tmp_path):
    path = table(tmp_path, 'text,rater_1,rater_2,rater:anna,split', 'Oh.,anger,,anger,train', 'No.,neutral,anger,,dev',
                 'Ah.,,neutral,,dev')
    found = read(path).utterances
    assert [dict(u.votes) for u in found] == [dict(anger=2), dict(neutral=1, anger=1), dict(neutral=1)]
    one = table(tmp_path, 'text,annotator_id,label,split', 'Oh.,17,anger,train', 'No.,17,anger,dev', name='one.csv')
    assert [u.votes for u in read(one).utterances] == [None, None]


def test_a_label_beside_votes_holds(tmp_path):
    found = read(table(tmp_path, 'text,label,votes,split', 'Oh.,neutral,anger:3,train', 'No.,anger,,dev'))
    assert [(u.label, u.votes) for u in found.utterances] == [('neutral', (('anger', 3),)), ('anger', None)]


def test_a_tie_falls_by_lot_whatever_the_order(tmp_path):
    lines = [f'line {i},anger:2 neutral:2,{"dev" if i % 9 == 0 else "train"}' for i in range(60)]
    found = read(table(tmp_path, 'text,votes,split', *lines))
    again = read(table(tmp_path, 'text,votes,split', *lines[::-1]))
    label = {u.text: u.label for u in found.utterances}
    assert label == {u.text: u.label for u in again.utterances} and 15 < list(label.values()).count('anger') < 45
    assert 'rows without a label whose votes tie, settled by lot: 60' in found.notes


def test_votes_pass_through_the_label_map(tmp_path):
    path = table(tmp_path, 'text,votes,split', 'Oh.,angry:1 anger:1 neutral:1 unsure:5,train', 'No.,neutral:2,dev',
                 'Hm.,unsure:3,train')
    found = read(path, labels=Labels(CLASSES, dict(angry='anger', unsure='')))
    assert [(u.label, dict(u.votes)) for u in found.utterances] == [
        ('anger', dict(anger=2, neutral=1)), ('neutral', dict(neutral=2))]
    assert found.classes == CLASSES and 'left out by the label map: unsure (1)' in found.notes
    assert 'votes that the label map leaves out: unsure (8)' in found.notes


def test_a_table_with_other_names(tmp_path):
    (tmp_path/'a.wav').write_bytes(b'')
    (tmp_path/'b.wav').write_bytes(b'')
    table(tmp_path, 'file,sentence,votes,split', 'a.wav,Oh.,anger:2,train', 'b.wav,No.,neutral:2,dev')
    found = read(tmp_path)
    assert [(u.text, u.label) for u in found.utterances] == [('Oh.', 'anger'), ('No.', 'neutral')]
    assert 'classes: by votes 2' in found.notes[0]


@pytest.mark.parametrize('line, problem', (
    ('Oh.,anger:-1,train', "manifest.csv, line 2: '-1' votes; write how many raters"),
    ('Oh.,anger:0.7,train', "line 2: '0.7' votes"), ('Oh.,,train', 'line 2: no votes in votes, and no label'),
    ('Oh.,anger:0,train', 'line 2: no votes in votes, and no label'), ('Oh.,anger,train', 'write label:count'),
    ('Oh.,angr:1,train', r"unknown label 'angr' \(line 2\).*Did you mean 'anger'")))
def test_what_is_wrong_is_named_with_its_line(tmp_path, line, problem):
    path = table(tmp_path, 'text,votes,split', line, 'No.,neutral:2 anger:1,dev')
    with pytest.raises(TamersError, match=problem): read(path, labels=Labels(CLASSES))


def test_hostile_cells_end_soon():
    for cell in ('[' * 100_000, 'a:1' * 50_000, ':' * 100_000, 'a:1 ' * 50_000 + 'b', '{"a": 1e999}', 'a:' + '9' * 9999,
                 'a:' + ' ' * 100_000 + 'b', '{"a": ' + '9' * 5000 + '}'):
        with pytest.raises(TamersError): parse_votes(cell, 'own.csv, line 2')
