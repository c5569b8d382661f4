"Figures that can be printed: what they show is clear of what they say, and saving one changes nothing else."
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from tamers.core import EMOTIONS
from tamers.evaluation import charts, curves, maps
from tamers.measure.groups import group_scores
from tamers.measure.scores import SCORES, classification_metrics


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close('all')


def made(n=420, dim=16, seed=0):
    "Audio and text of n made utterances with their labels and probabilities."
    torch.manual_seed(seed)
    labels = torch.arange(n) % 7
    shared = 2 * torch.randn(7, dim)[labels] + torch.randn(n, dim)
    z_a, z_t = (torch.nn.functional.normalize(shared + torch.randn(n, dim), dim=1) for _ in range(2))
    return z_a, z_t, labels.numpy(), torch.softmax(3 * torch.randn(n, 7), 1).numpy()


def test_the_backend_stays_as_it_was(tmp_path):
    before = matplotlib.get_backend()
    plt.switch_backend('svg')
    try:
        own, _ = plt.subplots()
        charts.save_figure(tmp_path/'a.png', lambda: plt.subplots()[1])
        assert matplotlib.get_backend() == 'svg' and plt.get_fignums() == [own.number]
    finally: plt.switch_backend(before)


@pytest.mark.parametrize('ending, start', [('png', b'\x89PNG'), ('pdf', b'%PDF'), ('svg', b'<?xml')])
def test_the_ending_names_the_format(tmp_path, ending, start):
    "A journal wants lines, not pixels."
    path = charts.save_figure(tmp_path/f'a.{ending}', lambda: plt.subplots()[1], 'a note')
    assert path.read_bytes().startswith(start)


def test_the_note_is_below_everything(tmp_path, monkeypatch):
    "The note of a saved figure touches neither the label of an axis nor a legend."
    z_a, z_t, labels, probs = made()
    groups = group_scores(labels, probs.argmax(1), {'turn': list(range(420))}, np.arange(420))
    per_class = classification_metrics(labels, probs)['per_class']
    interval = {k: (.5, .7) for k in SCORES}
    line = dict(a=.6, b=.6, difference=0., intervals=dict(dialogue=(-.1, .1)))
    seeds = dict(scores={1: dict.fromkeys(SCORES, .6)}, mean=dict.fromkeys(SCORES, .6), interval_of='dialogue',
        intervals=interval)
    two = dict(units=dict(dialogue=9), scores=dict.fromkeys(SCORES, line), per_class=dict(joy=dict(n=9, f1=line)))
    draw = [lambda: curves.plot_seeds(seeds), lambda: curves.plot_differences(two),
        lambda: maps.plot_confusion(np.full((7, 7), 5)), lambda: charts.plot_groups(groups),
        lambda: charts.plot_calibration(labels, probs),
        lambda: charts.plot_per_class(per_class), lambda: maps.plot_similarity(z_a, z_t, labels)]
    monkeypatch.setattr(plt, 'close', lambda _: None)
    for i, one in enumerate(draw):
        charts.save_figure(tmp_path/f'{i}.png', one, 'a note')
        fig = plt.gcf()
        note = fig.texts[-1].get_window_extent()
        assert all(note.y1 <= ax.get_tightbbox().y0 for ax in fig.axes), i


def test_few_points_are_laid_out_without_umap():
    "A neighbourhood of fifteen is most of a small split: there is nothing to unfold, and UMAP takes long to start."
    places = lambda n: maps.map_space(*made(n)[:3])
    assert places(14).method == 'PCA' and places(60).method == 'UMAP'


def test_a_map_is_no_hairball():
    "All utterances have their marks; lines join the halves of some of them, and the legend says of how many."
    m = maps.SpaceMap(np.arange(400), np.random.rand(400, 2), np.random.rand(400, 2), 'PCA')
    ax = maps.new_axes(None, (4, 4))
    maps.plot_modalities(ax, m)
    assert [len(c.get_offsets()) for c in ax.collections[1:]] == [400, 400]
    assert len(ax.collections[0].get_segments()) == maps.JOINED < 100
    assert f'{maps.JOINED} of 400' in ax.get_legend_handles_labels()[1][0]
    few = maps.SpaceMap(*(x[:3] for x in (m.rows, m.audio, m.text)), 'PCA')
    maps.plot_modalities(ax, few)
    assert 'halves of an utterance' in ax.get_legend_handles_labels()[1]


def test_each_emotion_has_as_much_ink():
    "A star fills a third of the square that a square fills; pale joy must not vanish beside dark fear."
    m = maps.SpaceMap(np.arange(7), np.random.rand(7, 2), np.random.rand(7, 2), 'PCA')
    ax = maps.new_axes(None, (4, 4))
    maps.plot_emotions(ax, m, np.arange(7), EMOTIONS)
    size = {c.get_label(): c.get_sizes()[0] for c in ax.collections}
    assert size['joy'] >= 2 * size['sadness']
    assert all(max(to_rgb(c.get_edgecolor()[0][:3])) < .3 for c in ax.collections)


def test_the_similarity_matrix_can_be_seen():
    "As many rows as can be told apart, and numbers that can be read."
    z_a, z_t, labels, probs = made()
    assert len(maps.plot_similarity(z_a, z_t, labels).images[0].get_array()) <= 110
    sizes = [t.get_fontsize() for t in maps.plot_class_similarity(z_a, z_t, labels).texts]
    sizes += [t.get_fontsize() for t in charts.plot_per_class(classification_metrics(labels, probs)['per_class']).texts]
    sizes += [t.get_fontsize() for t in maps.plot_confusion(np.full((7, 7), 5)).texts]
    assert min(sizes) >= 8
