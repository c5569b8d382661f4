"What strangers wrote does not become a formula of a spreadsheet, nor a command of a terminal."
import csv
from types import SimpleNamespace
import torch
from tamers.core import EMOTIONS
from tamers.data.corpus import Utterance
from tamers.evaluation.analyze import write_results
from tamers.training.step import Evaluation


def test_predictions_hold_no_formula_and_no_escape(tmp_path):
    said = [Utterance('=1+96', 'test', '- No!', 'joy', None), Utterance('a\x1b[2J', 'test', '@SUM(A1)', 'fear', None)]
    probs = torch.eye(7)[[EMOTIONS.index(u.label) for u in said]]
    e = Evaluation({}, probs, None, None, torch.zeros(2))
    write_results(tmp_path, SimpleNamespace(utterances=said, classes=EMOTIONS), e, {})
    raw = (tmp_path/'predictions.csv').read_text(encoding='utf-8')
    rows = list(csv.DictReader(raw.splitlines()))
    assert [(r['id'], r['text']) for r in rows] == [("'=1+96", "'- No!"), ('a [2J', "'@SUM(A1)")]
    assert '\x1b' not in raw and [r['prediction'] for r in rows] == ['joy', 'fear']
    assert rows[0]['joy'] == '1.00000000'
