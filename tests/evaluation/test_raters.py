"Several raters: what is measured is what the formula says, and a table of votes goes all the way to the report."
import json
import numpy as np
import pytest
from tamers import commands, load
from tamers.measure.raters import ceiling_scores, agreement, distribution_scores, human_ceiling

LINES = dict(anger='I will never forgive you', joy='What a lovely day', sadness='She is gone for good',
             neutral='The meeting is at noon')


def naive(counts, predictions):
    "Hold out one vote at a time, as the definition has it."
    ours, theirs, rows = 0, 0, 0
    for row, said in zip(counts, predictions):
        votes = [c for c, n in enumerate(row) for _ in range(n)]
        if len(votes) < 2: continue
        rows += 1
        for i, vote in enumerate(votes):
            others = np.bincount(votes[:i] + votes[i + 1:], minlength=len(row))
            top = np.flatnonzero(others == others.max())
            theirs += (vote in top) / len(top) / len(votes)
            ours += (said in top) / len(top) / len(votes)
    return theirs / rows, ours / rows


def test_the_ceiling_is_its_definition():
    rng = np.random.default_rng(0)
    counts, predictions = rng.integers(0, 3, (60, 5)), rng.integers(5, size=60)
    found = human_ceiling(counts, predictions, range(60), 50)
    assert (found['ceiling']['accuracy'], found['model']['accuracy']) == pytest.approx(naive(counts, predictions))
    assert found['share']['accuracy'] == pytest.approx(found['model']['accuracy'] / found['ceiling']['accuracy'])
    assert found['n'] == (counts.sum(1) > 1).sum()


def test_units_add_up_and_are_drawn_whole():
    rng = np.random.default_rng(1)
    counts, predictions = rng.integers(0, 3, (200, 4)), rng.integers(4, size=200)
    by_row, by_ten = (agreement(counts, predictions, of).sum(0) for of in (range(200), np.arange(200) // 10))
    assert np.allclose(by_row, by_ten)
    twice, answers = np.repeat(counts[:40], 10, 0), np.repeat(predictions[:40], 10)
    of = np.repeat(np.arange(40), 10)
    wide, narrow = (human_ceiling(twice, answers, units)['intervals']['ceiling']['accuracy']
                    for units in (of, range(400)))
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_a_class_that_no_majority_chose_is_no_class_of_uar():
    counts = np.array([[3, 0, 0], [0, 3, 0], [0, 3, 0]])
    scores = ceiling_scores(agreement(counts, [0, 1, 0], range(3)).sum(0))
    assert scores['ceiling'] == dict(accuracy=1, uar=1) and scores['model']['uar'] == pytest.approx(.75)


def test_distances_at_their_ends():
    counts = np.array([[2, 2], [0, 0], [4, 0]])
    same = distribution_scores(counts, [[.5, .5], [1, 0], [1, 0]])
    assert same['n'] == 2 and same['votes'] == 4 and same['js_divergence'] == pytest.approx(0, abs=1e-9)
    assert same['cross_entropy'] == pytest.approx(same['entropy']) == pytest.approx(np.log(2) / 2)
    assert distribution_scores(counts[2:], [[0., 1.]])['js_divergence'] == pytest.approx(1)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "Lines that tell the class, by five raters of whom four hear it; the table, and a head."
    home, rng = tmp_path_factory.mktemp('votes'), np.random.default_rng(0)
    rows = ['text,rater_1,rater_2,rater_3,rater_4,rater_5,split,dialogue']
    for split, n in dict(train=30, dev=8, test=10).items():
        for i, (label, line) in enumerate(list(LINES.items()) * n):
            raters = [label if rng.random() < .8 else rng.choice([*LINES]) for _ in range(5)]
            rows.append(','.join([f'{line} {i}', *raters, split, f'{split} {i // 8}']))
    (home/'manifest.csv').write_text('\n'.join(rows) + '\n')
    commands.tamers_train(['--root', str(home/'manifest.csv'), '--modality', 'text', '--epochs', '15', '--lr', '3e-3',
                           '--device', 'cpu', '--num-workers', '0', '--store-path', str(home/'store'),
                           '--save-path', str(home/'run')])
    return home


def test_a_table_of_votes_is_analyzed(run, capsys):
    commands.tamers_analyze(['--checkpoint', str(run/'run'), '--device', 'cpu', '--num-workers', '0', '--no-figures'])
    said = capsys.readouterr().out
    m = json.loads((run/'run'/'test'/'metrics.json').read_text())
    found, human = m['distribution'], m['distribution']['human']
    assert found['n'] == human['n'] == 40 and found['votes'] == 5 and human['interval_of'] == 'dialogue'
    assert found['entropy'] < found['cross_entropy'] < np.log(4) and 0 < found['js_divergence'] < .5
    low, high = human['intervals']['ceiling']['accuracy']
    assert low < .85 < high and human['model']['accuracy'] > human['ceiling']['accuracy'] - .1
    assert 'a held-out rater' in said and 'share of the ceiling' in said and 'votes: 5.0 a row on 40 rows' in said


def test_the_head_of_votes_answers(run, capsys):
    commands.tamers_predict(['--text', LINES['joy'], '--checkpoint', str(run/'run'), '--json'])
    assert 'joy' in capsys.readouterr().out
    found = load(run/'run', device='cpu').predict_table(run/'manifest.csv')
    assert set(found.prediction) <= set(LINES) | {'disgust', 'fear', 'surprise'} and len(found) == 192


def test_without_votes_nothing_is_said(run, tmp_path, capsys):
    rows = [f'{line},{label},test' for label, line in LINES.items()] * 2
    (tmp_path/'plain.csv').write_text('\n'.join(['text,label,split', *rows]) + '\n')
    commands.tamers_analyze(['--checkpoint', str(run/'run'), '--root', str(tmp_path/'plain.csv'), '--device', 'cpu',
                             '--num-workers', '0', '--no-figures', '--out', str(tmp_path/'out')])
    assert 'distribution' not in json.loads((tmp_path/'out'/'metrics.json').read_text())
    assert 'rater' not in capsys.readouterr().out
