"Intervals say what they hold: few units, one unit, rare classes, many rows, and seeds that do not belong together."
import tracemalloc
import numpy as np
import pytest
from scipy import stats
from tamers.evaluation.compare import differences
from tamers.measure.groups import score_group
from tamers.measure.intervals import class_intervals, limits, permutation_p, resample_confusions, score_intervals


@pytest.mark.parametrize('speakers', [2, 3, 6, 12, 40])
def test_95_percent_of_samples_hold_the_truth(speakers):
    "Six hundred made corpora of speakers whose accuracy is 60 % on average; 95 +- 2, and three standard errors."
    rng, held = np.random.default_rng(speakers), []
    for _ in range(600):
        said = rng.integers(5, 25, speakers)
        right = rng.random(said.sum()) < np.repeat(rng.beta(6, 4, speakers), said)
        labels = rng.integers(7, size=len(right))
        predictions, who = np.where(right, labels, (labels + 1) % 7), np.repeat(range(speakers), said)
        low, high = score_intervals(labels, predictions, who, n=400)['accuracy']
        held.append(low <= .6 <= high)
    assert abs(np.mean(held) - .95) < .02 + 3 * (.95 * .05 / 600) ** .5


def test_students_interval_of_equal_speakers():
    "Of speakers with as many utterances each, the accuracy is a mean, and its interval is known."
    right = np.array([9, 7, 4, 8])
    labels = np.zeros(40, int)
    predictions = np.concatenate([np.repeat([0, 1], [k, 10 - k]) for k in right])
    low, high = score_intervals(labels, predictions, np.repeat(range(4), 10), n=200_000)['accuracy']
    half = stats.t.ppf(.975, 3) * stats.sem(right / 10)
    assert (low, high) == pytest.approx((.7 - half, min(1, .7 + half)), abs=.01)


def test_one_unit_says_nothing():
    labels = np.arange(14) % 7
    assert score_intervals(labels, labels, ['dia0'] * 14)['uar'] == (0, 1)
    assert score_intervals([3], [3])['accuracy'] == (0, 1)
    d = differences(labels, [labels], [labels], dict(speaker=['a'] * 14))
    assert d['scores']['accuracy']['intervals']['speaker'] == (-1, 1)


def test_a_group_that_is_all_right_counts_its_units():
    labels = np.zeros(40, int)
    low, high = score_group(labels, labels, np.arange(40) // 10)['intervals']['accuracy']
    assert (low, high) == pytest.approx(stats.binomtest(4, 4).proportion_ci(method='wilson'))


def test_a_class_has_the_units_that_it_occurs_in():
    "Fear in two of forty dialogues: known by two dialogues, however many there are."
    labels, dialogues = np.zeros(400, int), np.arange(400) // 10
    labels[:6], labels[10:16] = 2, 2
    predictions = labels.copy()
    predictions[:2] = 0
    assert class_intervals(labels, predictions, dialogues)['fear']['recall'] == (0, 1)
    assert class_intervals(labels, predictions, dialogues)['anger']['recall'] == (1, 1)


def test_limits_stay_within_the_score():
    values = np.random.default_rng(0).normal(.9, .1, 1000)
    assert limits(values, .9, 3) == (pytest.approx(.37, abs=.05), 1)
    assert limits(values - 1, -.1, 3, within=(-1, 1))[0] == pytest.approx(-.63, abs=.05)
    assert np.isnan(limits(np.full(9, np.nan), np.nan, 3)).all()


def test_resamples_of_many_units_are_made_a_few_at_a_time():
    "Ten thousand units, a thousand resamples: a matrix of all draws would take 80 MB."
    labels = np.random.default_rng(0).integers(7, size=10_000)
    tracemalloc.start()
    resample_confusions(labels, (labels + 1) % 7, np.arange(10_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6


def test_permutations_equal_shuffled_rows_and_need_no_memory_of_them():
    rng = np.random.default_rng(0)
    index = rng.integers(4, size=300)
    wrong = rng.random(300) < .3 + .05 * index
    between = lambda w: (np.bincount(index, weights=w) ** 2 / np.bincount(index)).sum()
    shuffled = [between(rng.permutation(wrong)) for _ in range(4000)]
    assert permutation_p(wrong, index, n=4000) == pytest.approx(np.mean(np.array(shuffled) >= between(wrong)), abs=.02)
    many = rng.integers(4, size=200_000)
    tracemalloc.start()
    permutation_p(rng.random(200_000) < .3, many)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


def test_runs_are_paired_by_their_seeds_and_not_by_their_place():
    "The same runs in another order: paired by place, the interval would hang on that order."
    rng = np.random.default_rng(0)
    labels, dialogues = rng.integers(7, size=600), np.arange(600) // 10
    def runs(shares): return [np.where(rng.random(600) < p, labels, (labels + 1) % 7) for p in shares]
    a, b = runs((.4, .5, .6, .7, .8)), runs((.45, .55, .65, .75, .85))
    def width(b, **kw):
        d = differences(labels, a, b, dict(dialogue=dialogues), **kw)
        return np.ptp(d['scores']['accuracy']['intervals']['dialogue'])
    assert width(b, paired=True) < .7 * width(b)
    assert width(b) == pytest.approx(width(b[::-1]), rel=.1)
