"Voices in answers: enrolled, given away, of a table, of a long recording, on the command line; and what is refused."
import csv
from dataclasses import replace
import numpy as np
import pandas as pd
import pytest
import torch
from tamers.commands import tamers_predict
from tamers.core import TamersError
from tamers.data.audio import SAMPLE_RATE, load_audio
from tamers.data.demo import demo_corpus
from tamers.model.checkpoint import load_checkpoint, save_checkpoint
from tamers.prediction.pretrained import VOICE_FILE
from tamers.prediction.recognizer import load


@pytest.fixture(scope='module')
def clips(): return sorted(map(str, (demo_corpus()/'dev').glob('dia0_*.wav')))[:6]


@pytest.fixture
def model(demo): return load(demo, device='cpu', warm=False)


@pytest.fixture
def voiced(demo, tmp_path):
    "The path of the demo head as one that was trained with --normalise speaker, on a corpus with one named speaker."
    ckpt = load_checkpoint(demo)
    mean, std = (ckpt.model[f'audio_input.{k}'] for k in ('mean', 'std'))
    state = dict(names=['kurt'], mean=torch.stack([mean, mean + std]), std=torch.stack([std, std]),
                 n=torch.tensor([50, 7]))
    save_checkpoint(replace(ckpt, voices=state, config=ckpt.config | dict(normalise='speaker')), tmp_path/'best.pt')
    return tmp_path/'best.pt'


def probabilities(found): return np.array(list(found.probabilities.values()))


def test_enrol_changes_answers_of_that_speaker_alone(model, clips):
    before = model.predict(clips[0])
    took = model.enrol('anna', clips[1:])
    assert took['clips'] == 5 and took['seconds'] == pytest.approx(sum(len(load_audio(c)) for c in clips[1:]) / 16000, .01)
    assert np.array_equal(probabilities(model.predict(clips[0])), probabilities(before))
    anna = model.predict(clips[0], speaker='anna')
    assert not np.allclose(probabilities(anna), probabilities(before), atol=1e-3)
    mixed = model.predict(clips[:2], speaker=['anna', None])
    assert np.allclose(probabilities(mixed[0]), probabilities(anna), atol=1e-5)


def test_the_voice_is_taken_out_before_the_head(model, clips):
    "The answer is that of the head to the embedding without the voice."
    encoder = model.encoders['audio']
    x = encoder.encode(encoder.prepare([load_audio(c) for c in clips]))
    model.enrol('anna', clips[1:])
    with torch.no_grad():
        out = model.model(model.voices.without(x[:1], model.voices.meet(x[1:])), None)
    want = (out.logits / model.ckpt.temperature).softmax(-1)[0]
    assert np.allclose(probabilities(model.predict(clips[0], speaker='anna')), want, atol=1e-4)


def test_what_has_no_voice_is_refused(model, clips, tmp_path):
    hush = np.zeros(SAMPLE_RATE)
    with pytest.raises(TamersError, match='enrol anna: silence'): model.enrol('anna', hush, rate=SAMPLE_RATE)
    with pytest.raises(TamersError, match='gone.wav'): model.enrol('anna', [clips[0], str(tmp_path/'gone.wav')])
    with pytest.raises(TamersError, match='a speaker needs a name'): model.enrol(' ', clips)
    with pytest.raises(TamersError, match='one at least'): model.enrol('anna', [])
    with pytest.raises(TamersError, match='one at least'): model.enrol('anna', [None])
    assert model.voices.speakers == {}
    with pytest.raises(TamersError, match='speaker anna: is not known; known: nobody'):
        model.predict(clips[0], speaker='anna')
    with pytest.raises(TamersError, match='2 speakers and 1 utterances'):
        model.predict(clips[:1], speaker=[None, None])
    wave = load_audio(clips[0])
    assert model.enrol('anna', [wave, hush], rate=SAMPLE_RATE)['clips'] == 1


@pytest.mark.parametrize('change', [dict(normalise='none'), dict(modality='text')])
def test_heads_without_a_corpus_to_compare_with_say_so(demo, clips, tmp_path, change):
    ckpt = load_checkpoint(demo)
    if 'modality' in change:
        from tamers.model.fusion import FusionModel
        args = ckpt.model_args | dict(audio_dim=None)
        ckpt = replace(ckpt, model=FusionModel(**args).state_dict(), model_args=args,
                       encoders=dict(text=ckpt.encoders['text']))
    save_checkpoint(replace(ckpt, config=ckpt.config | change), tmp_path/'best.pt')
    model = load(tmp_path/'best.pt', device='cpu', warm=False)
    with pytest.raises(TamersError, match='this model knows no voices'): model.enrol('anna', clips)
    with pytest.raises(TamersError, match='this model knows no voices'): model.predict(None, 'hi', speaker='anna')


def test_voices_go_along_and_come_back(model, voiced, clips, tmp_path):
    model.enrol('anna', clips[1:])
    model.save_pretrained(tmp_path/'given')
    again = load(tmp_path/'given', device='cpu', warm=False)
    assert np.allclose(probabilities(again.predict(clips[0], speaker='anna')),
                       probabilities(model.predict(clips[0], speaker='anna')), atol=1e-6)
    assert again.ckpt.config.get('normalise', 'corpus') == 'corpus'
    del again.voices.speakers['anna']
    again.ckpt.voices.clear()
    again.save_pretrained(tmp_path/'without')
    assert not (tmp_path/'without'/VOICE_FILE).exists()
    load(voiced, device='cpu', warm=False).save_pretrained(tmp_path/'voiced')
    assert list(load(tmp_path/'voiced', device='cpu', warm=False).voices.speakers) == ['kurt']
    (tmp_path/'given'/VOICE_FILE).write_bytes(b'torn')
    with pytest.raises(TamersError, match='not a model of TAMERS'): load(tmp_path/'given', device='cpu')


def test_rows_of_a_table_know_each_other(model, clips, tmp_path):
    table = pd.DataFrame(dict(audio=[*clips, str(tmp_path/'gone.wav')], speaker=['a']*4 + ['b', None, 'a']))
    plain, told = (model.predict_table(t).iloc[:, -12:] for t in (table.drop(columns='speaker'), table))
    scores = list(model.ckpt.classes)
    moved = np.abs(told[scores].astype(float) - plain[scores].astype(float)).max(axis=1) > 1e-3
    assert list(moved[:4]) == [True]*4 and not moved[4:6].any()   # b has but one row, and one row is nobody's
    assert told.error[6] and not told.error[:6].any()
    model.enrol('b', clips[:3])
    known = model.predict_table(table)
    want = probabilities(model.predict(clips[4], speaker='b'))
    assert np.allclose(known.loc[4, scores].astype(float), want, atol=1e-5)


def test_a_long_recording_is_its_own_speaker_if_the_head_was_trained_so(model, voiced, clips):
    wave = np.concatenate([load_audio(c) for c in clips * 3])
    own = load(voiced, device='cpu', warm=False)
    found, plain = (m.predict(wave, rate=SAMPLE_RATE) for m in (own, model))
    assert len(found.windows) == len(plain.windows) > 2
    assert [(w.start, w.end) for w in found.windows] == [(w.start, w.end) for w in plain.windows]
    assert not np.allclose(probabilities(found), probabilities(plain), atol=1e-3)
    took = own.enrol('self', wave, rate=SAMPLE_RATE)
    assert took['clips'] == 1
    told = own.predict(wave, rate=SAMPLE_RATE, speaker='self')
    assert np.allclose(probabilities(found), probabilities(told), atol=1e-5)
    short = [m.predict(clips[0]) for m in (own, model)]
    assert np.allclose(*map(probabilities, short), atol=1e-6)
    assert not np.allclose(probabilities(own.predict(clips[0], speaker='kurt')), probabilities(short[0]), atol=1e-5)


def test_the_command(demo, clips, tmp_path, capsys):
    def ask(*flags):
        code = 0
        try: tamers_predict([*map(str, flags), '--checkpoint', str(demo), '--csv'])
        except SystemExit as e: code = e.code
        out, err = capsys.readouterr()
        return list(csv.DictReader(out.splitlines())), err, code
    plain, _, _ = ask(clips[0])
    (row,), err, code = ask(clips[0], '--speaker', 'anna', '--enrol', *clips[1:])
    assert code == 0 and 'the voice of anna is known from 5 recordings' in err
    assert row['confidence'] != plain[0]['confidence']
    (same,), _, _ = ask('--enrol', *clips[1:], '--speaker', 'anna', clips[0])
    assert same == row
    _, err, code = ask(clips[0], '--speaker', 'anna')
    assert code == 2 and 'speaker anna: is not known; known: nobody' in err
    _, err, code = ask(clips[0], '--enrol', clips[1])
    assert code == 2 and '--enrol: whose voice is it? Name the --speaker' in err
    table = tmp_path/'table.csv'
    table.write_text('audio,speaker\n' + ''.join(f'{c},anna\n' for c in clips))
    rows, err, code = ask('--manifest', table)
    assert code == 0 and len(rows) == 6 and 'speakers of the table that are known by the sound of their own rows' in err
    _, err, code = ask('--manifest', table, '--speaker', 'bob')
    assert code == 2 and 'the table has a column speaker' in err
    rows, err, code = ask('--manifest', table, '--speaker', 'anna', '--enrol', *clips[1:])
    assert code == 0 and rows[0]['confidence'] == row['confidence'] and 'of their own rows' not in err
