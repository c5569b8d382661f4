"Voices: the maths, rows of nobody, tokens and layers, and what a file may hold of them."
from dataclasses import replace
import pytest
import torch
from tamers.core import TamersError
from tamers.data.corpus import Utterance
from tamers.model.checkpoint import load_checkpoint, save_checkpoint
from tamers.model.voices import STRENGTH, Voices, corpus_voice, hear, set_aside, spoken, voices_of
from tamers.store.features import Split, StoredFeatures


def split_of(x, speakers):
    rows = [Utterance(str(i), 'test', '', 'joy', None, s) for i, s in enumerate(speakers)]
    return Split(rows, StoredFeatures(x, None), torch.full((len(x),), 3))


def offset(n=40, speakers=6, seed=0):
    "Two classes, a step apart in one coordinate, in which speakers lie farther apart: (x, labels, speakers)."
    g = torch.Generator().manual_seed(seed)
    labels, who = torch.arange(n * speakers) % 2, torch.arange(n * speakers) // n
    x = .1 * torch.randn(n * speakers, 3, generator=g) + torch.tensor([-2., 2., -1., 1., -1.5, 1.5])[who, None]
    x[:, 0] += labels
    return x, labels, [f's{i}' for i in who]


@pytest.mark.parametrize('shape', [(5,), (4, 5)])
def test_the_voice_is_drawn_to_the_corpus_as_if_this_had_added_clips(shape):
    x = torch.randn(50, *shape)*3 + 1
    voices = Voices(corpus_voice(x))
    voice, (m, v, n) = voices.meet(x[:7]), hear(x[:7])
    k, l = STRENGTH['mean'], STRENGTH['var']
    assert voice.n == n == 7 and voice.mean.shape == shape
    torch.testing.assert_close(voice.mean, ((7*m + k*x.double().mean(0)) / (7 + k)).float())
    var = (7*v + l*x.double().var(0, unbiased=False)) / (7 + l)
    torch.testing.assert_close(voice.std, var.sqrt().float())


def test_one_clip_and_a_still_coordinate_stay_finite():
    x = torch.randn(20, 4)
    x[:, 2] = 7.
    voices = Voices(corpus_voice(x))
    heard = voices.without(x, voices.meet(x[:1]))
    assert heard.isfinite().all() and (voices.meet(x[:1]).std > 0).all()


def test_tokens_share_a_voice_and_padding_stays_padding():
    x = torch.randn(9, 6, 4) + 5
    x[:, 4:] = 0
    voices = Voices(corpus_voice(x, tokens=True))
    heard = voices.without(x, voices.meet(x[:3]))
    assert voices.corpus.mean.shape == (4,) and not heard[:, 4:].any()
    torch.testing.assert_close(voices.corpus.mean, x[:, :4].flatten(0, 1).mean(0))


def test_ten_known_clips_show_what_an_unknown_voice_hides():
    "A threshold that is right for the corpus is right for a new speaker only when the voice is known."
    x, labels, speakers = offset()
    split = split_of(x, speakers)
    rows = spoken(split.utterances)
    train = {s: rows[s] for s in ('s0', 's1', 's2', 's3')}
    voices = Voices(corpus_voice(x[:160])).met(split, train)
    known = set_aside({s: rows[s] for s in ('s4', 's5')}, 10)
    near = voices.out_of(split).features.audio[:160, 0]
    cut = (near[labels[:160] == 0].mean() + near[labels[:160] == 1].mean()) / 2
    rest = [i for s in ('s4', 's5') for i in rows[s] if i not in known[s]]
    def right(v): return ((v.out_of(split).features.audio[rest, 0] > cut) == labels[rest].bool()).float().mean()
    assert right(voices) < .6                      # nobody is known
    assert right(voices.met(split, known)) > .9


def test_rows_of_nobody_and_of_strangers_stay_as_they_are():
    x = torch.randn(30, 4)
    split = split_of(x, ['a']*10 + [None]*10 + ['b']*10)
    voices = Voices(corpus_voice(x)).met(split, {'a': list(range(10))})
    near = voices.out_of(split).features.audio
    assert torch.equal(near[10:], x[10:]) and not torch.equal(near[:10], x[:10])
    assert torch.equal(split.features.audio, x)


def test_at_most_half_of_a_speaker_is_set_aside_by_seed():
    rows = {'a': list(range(30)), 'b': [30, 31, 32], 'c': [33]}
    a, b = set_aside(rows, 10), set_aside(rows, 10, seed=1)
    assert {s: len(i) for s, i in a.items()} == dict(a=10, b=1) and a == set_aside(rows, 10) != b
    assert set_aside(rows, 0) == {}


@pytest.fixture(scope='module')
def voiced(demo):
    "The demo head, with voices of two speakers."
    ckpt = load_checkpoint(demo)
    d = len(ckpt.model['audio_input.mean'])
    voices = dict(names=['anna', 'bob'], mean=torch.zeros(3, d), std=torch.ones(3, d), n=torch.tensor([9, 4, 5]))
    return replace(ckpt, voices=voices)


def test_voices_come_back_from_a_file(voiced, tmp_path):
    save_checkpoint(voiced, tmp_path/'best.pt')
    voices = voices_of(load_checkpoint(tmp_path/'best.pt'))
    assert list(voices.speakers) == ['anna', 'bob'] and [v.n for v in voices.speakers.values()] == [4, 5]


@pytest.mark.parametrize('part, change', [
    ('names', lambda x: ['anna', 'anna']), ('names', lambda x: ['anna', 3]), ('names', lambda x: ['anna']),
    ('mean', lambda x: x[:, 1:]), ('mean', lambda x: x * float('nan')), ('mean', lambda x: torch.zeros(1).expand_as(x)),
    ('std', lambda x: -x), ('std', lambda x: None), ('n', lambda x: x[1:])])
def test_damaged_voices_are_refused(voiced, tmp_path, part, change):
    save_checkpoint(replace(voiced, voices=voiced.voices | {part: change(voiced.voices[part])}), tmp_path/'best.pt')
    with pytest.raises(TamersError, match='damaged'): load_checkpoint(tmp_path/'best.pt')


@pytest.mark.parametrize('voices', [[1], dict(names=[]), 7])
def test_voices_of_another_kind_are_refused(voiced, tmp_path, voices):
    save_checkpoint(replace(voiced, voices=voices), tmp_path/'best.pt')
    with pytest.raises(TamersError, match='damaged'): load_checkpoint(tmp_path/'best.pt')
