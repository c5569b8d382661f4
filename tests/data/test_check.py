"What is odd in a corpus before training: each finding with its rows, and nothing found where all is well."
from dataclasses import replace
import numpy as np
import pytest
import soundfile as sf
from tamers.core import EMOTIONS, TamersError
from tamers.data.corpus import Corpus, Utterance
from tamers.data.oddities import (contradictions, find_oddities, gaps, listen, odd_classes, odd_sounds, Sound,
                                  sound_oddities, too_much_said, torn_transcripts)

GOOD = Sound(2., -20., .1, 0.)


def rows_of(n=140, split='train'):
    "Rows of as many speakers as there are emotions, each with a clip and a line of its own."
    return [Utterance(f'u{i}', split, f'This is the line of number {i}.', EMOTIONS[i % 7], f'/x/{split}{i}.wav',
                      f'{split} s{i % 7}') for i in range(n)]


def whats(oddities): return [x.what for x in oddities]


def written(path, wave, rate=16000, **how):
    sf.write(path, wave, rate, **how)
    return path


@pytest.fixture
def tone(): return .4 * np.sin(np.arange(32000) / 15)


@pytest.mark.parametrize('rate', [8000, 16000, 44100, 48000])
def test_a_good_clip_is_not_odd_at_any_rate(tmp_path, rate):
    wave = .4 * np.sin(2 * np.pi * 200 * np.arange(2 * rate) / rate)
    sound = listen(written(tmp_path/'a.wav', wave, rate))
    assert odd_sounds(sound) == {} and sound.seconds == pytest.approx(2) and sound.level == pytest.approx(-11, abs=.3)


def test_odd_clips_are_told(tmp_path, tone):
    clips = {'silent': tone / 5000, 'recorded too loud': np.clip(6 * tone, -1, 1), 'very short': tone[:4000],
             'mostly silence': np.r_[tone, np.zeros(400_000)], 'very long': np.tile(tone, 21)}
    for what, wave in clips.items():
        assert list(odd_sounds(listen(written(tmp_path/f'{what}.wav', wave)))) == [what]
    stereo = np.clip(6 * np.c_[tone, tone], -1, 1)
    assert 'recorded too loud' in odd_sounds(listen(written(tmp_path/'stereo.wav', stereo)))


def test_a_peak_at_full_scale_is_not_cut_off(tmp_path, tone):
    assert not odd_sounds(listen(written(tmp_path/'a.wav', tone / np.abs(tone).max())))


def test_zeros_are_silent_and_not_a_number_is_an_error(tmp_path):
    assert list(odd_sounds(listen(written(tmp_path/'a.wav', np.zeros(16000))))) == ['silent']
    for wave in (np.full(16000, np.nan), np.full(16000, np.inf)):
        with pytest.raises(TamersError, match='not finite'):
            listen(written(tmp_path/'b.wav', wave.astype('f4'), subtype='FLOAT'))
    short = written(tmp_path/'c.wav', np.ones(9))
    with pytest.raises(TamersError, match='less than one analysis window'): listen(short)


def test_what_can_be_said_in_the_time():
    assert not too_much_said('Say the word back', 1.4) and too_much_said('We have so much in common!', .14)
    assert not too_much_said('', .1) and too_much_said('これは長い文です。' * 20, 1.)
    assert not too_much_said('... — !!!', .1)      # marks are not said


def test_sounds_are_found_by_clip():
    rows = rows_of(3)
    sounds = {rows[0].clip: replace(GOOD, level=-80), rows[1].clip: replace(GOOD, seconds=.6)}
    rows[1].text *= 3
    found = sound_oddities(rows, sounds)
    assert whats(found) == ['silent', 'transcript longer than the clip can hold']
    assert [u.id for x in found for u, _ in x.rows] == ['u0', 'u1']
    assert '(train u0 (-80 dB at most))' in str(found[0])


def test_nothing_is_odd_where_all_is_well():
    rows = rows_of() + rows_of(14, 'dev') + rows_of(14, 'test')
    for u in rows: u.text += u.split
    assert find_oddities(Corpus('c', rows, said=rows), {u.clip: GOOD for u in rows}) == []


def test_equal_clips_are_found_by_their_bytes():
    rows = rows_of()
    for i, label in ((0, 'joy'), (1, 'fear')): rows[i] = replace(rows[i], sha='same', label=label)
    rows.append(replace(rows[5], id='copy', split='dev', speaker='other', text='Something else is said.'))
    found = contradictions(rows)
    assert whats(found) == ['one clip, different labels', 'one clip, several splits']
    assert [u.id for u, _ in found[0].rows] == ['u0', 'u1'] and [u.id for u, _ in found[1].rows] == ['u5', 'copy']


def test_a_speaker_and_a_dialogue_in_two_splits():
    rows = rows_of()
    rows[3] = replace(rows[3], split='test')
    for i in (3, 4): rows[i].dialogue = 'd1'
    assert whats(contradictions(rows)) == ['one speaker, several splits', 'one dialogue, several splits']
    assert 'train s3: train, test' in str(contradictions(rows)[0])


def test_fixed_sentences_are_no_contradiction():
    rows = rows_of()
    for u in rows: u.text = 'Dogs are sitting by the door'
    assert torn_transcripts(rows) == []
    few = rows_of()
    few[9].text = few[8].text
    assert [(u.id, detail) for u, detail in torn_transcripts(few)] == [
        ('u8', 'disgust; elsewhere fear'), ('u9', 'fear; elsewhere disgust')]
    few[8].text = few[9].text = 'Oh!'
    assert torn_transcripts(few) == []


def test_gaps_and_classes():
    rows = rows_of()
    rows[0].text = rows[1].speaker = ''
    assert [(x.what, [u.id for u, _ in x.rows]) for x in gaps(rows)] == [
        ('no transcript', ['u0']), ('no speaker', ['u1'])]
    late = [replace(u, split='test') if u.label == 'joy' else u for u in rows_of()]
    assert [str(x) for x in odd_classes(late)] == ['joy: in test, and not in train']
    rare = [u for i, u in enumerate(rows_of()) if u.label != 'fear' or i < 30]
    assert [str(x) for x in odd_classes(rare)] == ['fear: a rare class, with 4 rows in train']
