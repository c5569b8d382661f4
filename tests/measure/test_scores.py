"Cases of the metrics that would bore a reader: agreement with scikit-learn at random, ties, precision, the bootstrap."
import numpy as np
import pytest
import sklearn.metrics as sk
import torch
import torch.nn.functional as F
from tamers.core import TamersError
from tamers.measure.calibration import expected_calibration_error, reliability
from tamers.measure.intervals import class_intervals, score_intervals
from tamers.measure.scores import classification_metrics, scores_from_confusion
from tamers.measure.space import (alignment_uniformity, class_retrieval, count_better_and_tied, modality_gap,
                                  neighbour_agreement, retrieval_metrics, summarise_ranks)


def draw(seed, n, classes=7):
    "Labels and predictions in which some classes may be absent from either."
    rng = np.random.default_rng(seed)
    some = lambda: rng.choice(classes, size=rng.integers(1, classes + 1), replace=False)
    labels, guesses = rng.choice(some(), n), rng.choice(some(), n)
    return labels, np.where(rng.random(n) < .4, labels, guesses)


@pytest.mark.filterwarnings('ignore:y_pred contains classes not in y_true')
@pytest.mark.parametrize('seed', range(20))
def test_scores_equal_scikit_learn(seed):
    labels, predictions = draw(seed, n=1 + 7 * seed)
    m = classification_metrics(torch.tensor(labels), torch.eye(7)[predictions])
    assert m['accuracy'] == pytest.approx(sk.accuracy_score(labels, predictions))
    assert m['weighted_f1'] == pytest.approx(sk.f1_score(labels, predictions, average='weighted', zero_division=0))
    assert m['macro_f1'] == pytest.approx(sk.f1_score(labels, predictions, average='macro', zero_division=0))
    assert m['uar'] == pytest.approx(sk.balanced_accuracy_score(labels, predictions))
    report = sk.classification_report(labels, predictions, labels=range(7), target_names=m['confusion']['classes'],
                                      output_dict=True, zero_division=0)
    for name, row in m['per_class'].items():
        assert row == pytest.approx({k.replace('f1-score', 'f1'): v for k, v in report[name].items()})
    assert np.array(m['confusion']['counts']).sum() == m['n'] == len(labels)


def test_scores_of_a_stack():
    stack = np.random.default_rng(0).integers(0, 9, (3, 4, 7, 7))
    many = scores_from_confusion(stack)
    for key, values in many.items():
        assert values.shape == (3, 4)
        assert values[2, 1] == pytest.approx(scores_from_confusion(stack[2, 1])[key])


def ranks_by_lot(similarity, draws=4000):
    "Recall at 1, 5, 10 when ties are really broken by lot."
    rng, n = np.random.default_rng(0), len(similarity)
    ranks = []
    for i in range(n):
        noise = rng.random((draws, n))
        order = np.lexsort((noise, np.broadcast_to(-similarity[i], (draws, n))), axis=-1)
        ranks.append((order == i).argmax(1) + 1)
    return {f'recall_at_{k}': (np.array(ranks) <= k).mean() for k in (1, 5, 10)}


def test_ties_are_broken_by_lot_on_average():
    points = np.random.default_rng(0).integers(-1, 2, (24, 3)) + .01   # few distinct ones: many ties
    z = F.normalize(torch.tensor(points), dim=1).float()
    q = z.roll(2, dims=0)
    similarity = (q.double() @ z.double().T).numpy().round(6)
    got, want = {k: v['audio_to_text'] for k, v in retrieval_metrics(q, z).items()}, ranks_by_lot(similarity)
    for key, value in want.items(): assert got[key] == pytest.approx(value, abs=.01)


@pytest.mark.parametrize('n', [1, 2, 5, 9, 40])
def test_no_information_is_chance(n):
    same = F.normalize(torch.ones(n, 5), dim=1)
    m = retrieval_metrics(same, same, chunk=4)
    for k in (1, 5, 10):
        for way in ('audio_to_text', 'text_to_audio'):
            assert m[f'recall_at_{k}'][way] == pytest.approx(min(1, k / n))
            assert m[f'recall_at_{k}']['chance'] == min(1, k / n)
    assert m['median_rank']['audio_to_text'] == m['median_rank']['chance'] == (n + 1) / 2


def test_same_transcript_projected_in_batches_of_any_size_ties():
    torch.manual_seed(0)
    project = torch.nn.Linear(768, 256)
    batches = torch.randn(1, 768).repeat(400, 1).split([1, 2, 3, 5, 64, 100, 225])
    with torch.no_grad(): z_t = torch.cat([F.normalize(project(x), dim=1) for x in batches])
    z_a = F.normalize(torch.randn(400, 256) + 5 * z_t, dim=1)
    better, tied = count_better_and_tied(z_a, z_t, chunk=64)
    assert (better == 0).all() and (tied == 399).all()


def test_chunks_and_recall_by_hand():
    torch.manual_seed(0)
    z_a, z_t = (F.normalize(torch.randn(53, 8), dim=1) for _ in range(2))
    whole = count_better_and_tied(z_a, z_t, 1000)
    for chunk in (1, 10, 53):
        for a, b in zip(count_better_and_tied(z_a, z_t, chunk), whole): assert (a == b).all()
    assert summarise_ranks(np.array([0, 3, 4, 20]), np.array([0, 0, 3, 0])) == pytest.approx(
        dict(recall_at_1=1/4, recall_at_5=(1 + 1 + 1/4) / 4, recall_at_10=3/4, median_rank=(4 + 6.5) / 2))


def test_autocast_and_gradients_do_not_reach_in():
    torch.manual_seed(0)
    z_a, z_t = (F.normalize(torch.randn(200, 64), dim=1).requires_grad_() for _ in range(2))
    labels = torch.arange(200) % 3
    measure = lambda: (retrieval_metrics(z_a, z_t), alignment_uniformity(z_a, z_t), modality_gap(z_a, z_t),
                       class_retrieval(z_a, z_t, labels))
    plain = measure()
    with torch.autocast('cpu', dtype=torch.bfloat16): assert measure() == plain
    rank = retrieval_metrics(z_a.bfloat16(), z_t.bfloat16())['median_rank']['audio_to_text']
    assert rank == pytest.approx(plain[0]['median_rank']['audio_to_text'], abs=3)


def test_neighbours_agree_the_long_way():
    torch.manual_seed(0)
    z_a, z_t = (F.normalize(torch.randn(60, 5), dim=1) for _ in range(2))
    labels = torch.arange(60) % 4
    near = (z_a @ z_t.T).fill_diagonal_(-2).argmax(1)
    n = labels.bincount()
    chance = (n * (n - 1)).sum() / (60 * 59)
    expected = (labels[near] == labels).float().mean().item(), chance.item()
    assert neighbour_agreement(z_a, z_t, labels) == pytest.approx(expected)


@pytest.mark.parametrize('metric', ['accuracy', 'weighted_f1', 'macro_f1', 'uar'])
@pytest.mark.parametrize('grouped', [False, True])
@pytest.mark.filterwarnings('ignore:y_pred contains classes not in y_true')
def test_interval_equals_the_slow_bootstrap(metric, grouped):
    "Draw rows or dialogues one resample at a time and let scikit-learn score them."
    labels, predictions = draw(3, 240)
    groups = np.arange(240) // 6 if grouped else np.arange(240)
    score = dict(accuracy=sk.accuracy_score, uar=sk.balanced_accuracy_score,
                 weighted_f1=lambda t, p: sk.f1_score(t, p, average='weighted', zero_division=0),
                 macro_f1=lambda t, p: sk.f1_score(t, p, average='macro', zero_division=0))[metric]
    rng, rows, slow = np.random.default_rng(1), [np.flatnonzero(groups == g) for g in range(groups.max() + 1)], []
    for _ in range(400):
        take = np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows))])
        slow.append(score(labels[take], predictions[take]))
    dialogues = [f'dia{g}' for g in groups] if grouped else None
    fast = score_intervals(labels, predictions, dialogues, n=4000)[metric]
    assert fast == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=.02)
    assert fast[0] < score(labels, predictions) < fast[1]


def test_groups_of_one_row_are_rows():
    labels, predictions = draw(3, 300)
    rows = score_intervals(labels, predictions, n=5000)['uar']
    assert score_intervals(labels, predictions, range(300), n=5000)['uar'] == pytest.approx(rows, abs=.01)


def test_class_intervals_equal_the_slow_bootstrap():
    labels, predictions = draw(3, 1200)
    groups = np.arange(1200) // 6
    rng, slow = np.random.default_rng(1), []
    for _ in range(400):
        take = (6 * rng.integers(0, 200, 200)[:, None] + np.arange(6)).ravel()
        found = sk.precision_recall_fscore_support(labels[take], predictions[take], labels=range(7),
                                                   zero_division=np.nan)
        slow.append(found[:3])
    fast, compared = class_intervals(labels, predictions, groups, n=4000), 0
    for j, key in enumerate(('precision', 'recall', 'f1')):
        for c, intervals in enumerate(fast.values()):
            values = np.array(slow)[:, j, c]
            values = values[~np.isnan(values)]
            units = {g for g, *pair in zip(groups, labels, predictions) if c in pair}
            if not len(values): assert np.isnan(intervals[key]).all()
            elif len(units) >= 100:
                assert intervals[key] == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=.04)
                compared += 1
    assert compared


def test_calibration_error_the_long_way():
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet(np.full(7, .3), 500), rng.integers(0, 7, 500)
    sure, right, error = probs.max(1), probs.argmax(1) == labels, 0.
    for low in np.arange(10) / 10:
        inside = (sure >= low) & (sure < low + .1)
        if inside.any(): error += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert expected_calibration_error(labels, torch.tensor(probs)) == pytest.approx(error)
    assert reliability([0], [[1., 0., 0.]])['n'].tolist() == [0] * 9 + [1], 'full confidence belongs to the last bin'


@pytest.mark.parametrize('labels, probs, message', [
    ([], np.zeros((0, 7)), 'no utterances'),
    ([-1], np.eye(7)[[0]], 'label -1'),
    ([0, 1], np.eye(7)[[0]], 'one row per label'),
    ([0], np.full((1, 7), np.inf), 'NaN or infinity')])
def test_bad_predictions(labels, probs, message):
    with pytest.raises(TamersError, match=message): classification_metrics(labels, probs)


@pytest.mark.parametrize('z_a, z_t, message', [
    (torch.zeros(3, 4), torch.zeros(3, 4), 'audio embeddings are not of length 1'),
    (torch.eye(3), torch.full((3, 3), float('nan')), 'text embeddings'),
    (torch.eye(3), torch.eye(4), 'both must be'),
    (torch.zeros(0, 4), torch.zeros(0, 4), 'at least 1')])
def test_bad_embeddings(z_a, z_t, message):
    for f in (retrieval_metrics, modality_gap):
        with pytest.raises(TamersError, match=message): f(z_a, z_t)
