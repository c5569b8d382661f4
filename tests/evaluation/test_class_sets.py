"Figures and pages of any class set: one colour a class everywhere, names that do not cover each other, other writings."
import re
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from tamers.core import EMOTIONS
from tamers.data.corpus import Utterance
from tamers.evaluation import maps
from tamers.evaluation.charts import plot_per_class, save_figure
from tamers.evaluation.maps import colours, plot_class_similarity, plot_confusion, plot_similarity, plot_space
from tamers.evaluation.maps import SpaceMap
from tamers.pages.html import card, draw_map, strip
from tamers.prediction.answers import Window

LONG = [f'a rather long name of class {i}' for i in range(20)]
SETS = [('calm', 'keen'),
        ('anger', 'happiness', 'neutral', 'sadness'), EMOTIONS, LONG, [f'kind {i}' for i in range(60)]]
JAPANESE = ('怒り', '嫌悪', '喜び', '平静')


def made(n, rows=4):
    torch.manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(2, n * rows, 16), dim=-1)
    return *z, torch.arange(n).repeat_interleave(rows)


def overlapping(ax):
    "Pairs of neighbouring names on the axes that cover each other."
    ax.figure.canvas.draw()
    found = []
    for texts in (ax.get_yticklabels(), ax.get_xticklabels()):
        boxes = [t.get_window_extent() for t in texts if t.get_text()]
        if any(t.get_rotation() == 45 for t in texts): continue   # their boxes overlap, they do not
        found += [(a, b) for a, b in zip(boxes, boxes[1:]) if a.shrunk(.9, .9).overlaps(b.shrunk(.9, .9))]
    return found


@pytest.mark.parametrize('classes', SETS, ids=len)
def test_names_do_not_cover_each_other(classes):
    n = len(classes)
    z_a, z_t, y = made(n)
    counts = np.eye(n, dtype=int) * 4
    per_class = {c: dict(precision=.5, recall=.5, f1=.5, support=4) for c in classes}
    for ax in (plot_confusion(counts, classes), plot_similarity(z_a, z_t, y, classes), plot_per_class(per_class),
               plot_class_similarity(z_a, z_t, y, classes)):
        assert not overlapping(ax), ax.get_title()
        plt.close(ax.figure)


@pytest.mark.parametrize('classes', SETS, ids=len)
def test_a_legend_lies_within_its_half(classes):
    z_a, z_t, y = made(len(classes))
    places = SpaceMap(np.arange(len(y)), z_a[:, :2].numpy(), z_t[:, :2].numpy(), 'PCA')
    left, right = plot_space(z_a, z_t, y, classes, places=places)
    left.figure.canvas.draw()
    assert left.get_legend().get_window_extent().x1 < right.get_window_extent().x0 + 30
    assert left.get_window_extent().height > 150
    plt.close(left.figure)


@pytest.mark.parametrize('classes', [*SETS, JAPANESE], ids=len)
def test_figures_and_pages_agree_about_colours(classes):
    colour = colours(classes)
    assert len(set(colour.values())) == len(classes)
    us = [Utterance(str(i), 'dev', '', label, None) for i, label in enumerate(classes)]
    drawing = draw_map(us, np.random.default_rng(0).random((len(us), 1, 2)), classes=classes)
    shown = dict(zip(classes, re.findall('<circle[^>]*fill="(#.{6})"', drawing)))
    assert shown == colour and all(colour[u.label] in card(u, classes=classes) for u in us)
    for name in classes[:3]:
        answer = Window(0., 5., {c: .9 if c == name else .1 / len(classes) for c in classes})
        assert colour[name] in strip([answer])


def test_another_word_for_one_of_the_seven_has_its_colour():
    eight = colours(('angry', 'calm', 'disgust', 'fearful', 'happy', 'neutral', 'sad', 'surprised'))
    assert [eight[c] for c in ('angry', 'happy', 'sad')] == [maps.PALETTE[c] for c in ('anger', 'joy', 'sadness')]
    assert len(set(eight.values())) == 8


def test_letters_that_no_font_has_are_said_once(tmp_path, capsys, recwarn, monkeypatch):
    monkeypatch.setattr(maps, 'FONTS', ())
    monkeypatch.setitem(plt.rcParams, 'font.family', ['DejaVu Sans'])
    maps.say_boxes.cache_clear()
    for name in 'ab': save_figure(tmp_path/f'{name}.png', lambda: plot_confusion(np.eye(4, dtype=int), JAPANESE))
    said = capsys.readouterr().err
    assert said.count('note: no installed font') == 1 and 'Glyph' not in said
    assert not [w for w in recwarn if 'Glyph' in str(w.message)]


def test_a_font_that_has_them_is_asked(monkeypatch):
    monkeypatch.setattr(maps, 'FONTS', ('No Such Font', 'DejaVu Serif'))
    monkeypatch.setitem(plt.rcParams, 'font.family', ['DejaVu Sans'])
    maps.set_fonts()
    maps.set_fonts()
    assert plt.rcParams['font.family'] == ['DejaVu Sans', 'DejaVu Serif']
