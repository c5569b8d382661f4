"Prediction as a user meets it: every sort of input, long ones, bad ones, one modality, folders and the hub, the command."
import csv
import io
import json
import re
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
import av
import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
import tamers
from tamers import commands
from tamers.prediction.answers import combine
from tamers.data.audio import SAMPLE_RATE, Clip, load_audio
from tamers.model.checkpoint import load_checkpoint, save_checkpoint
from tamers.runs import shipped_checkpoint
from tamers.core import EMOTIONS, TamersError, shipped
from tamers.data.demo import demo_corpus
from tamers.encoders.encoder import Encoder
from tamers.model.fusion import FusionModel
from tamers.prediction.known import Familiar, load_known, sample_known, save_known, write_known
from tamers.prediction.recognizer import Recognizer, load
from tamers.commands import tamers_predict
from tamers.prediction.pretrained import read_pretrained
from tamers.training.run import demo_head
from tamers.prediction.recording import Recording, text_oddities

SAID = 'So, shut up about my brother!'


@pytest.fixture(scope='module')
def clip(): return demo_corpus()/'dev'/'dia0_utt5.wav'


@pytest.fixture(scope='module')
def wave(clip): return load_audio(clip)


@pytest.fixture(scope='module')
def model(demo): return load(demo, device='cpu')


@pytest.fixture(scope='module')
def whole(demo, tmp_path_factory):
    "The head as one that was trained with modality dropout: its warnings are those of the input alone."
    ckpt = load_checkpoint(demo)
    path = tmp_path_factory.mktemp('whole')/'best.pt'
    save_checkpoint(replace(ckpt, model_args=dict(ckpt.model_args, modality_dropout=0.3)), path)
    return load(path, device='cpu')


@pytest.fixture
def head(demo, tmp_path):
    "Write a fresh head for some encoders of the demo; its path."
    def make(name='best.pt', *, root='corpus', kinds=('audio', 'text'), **args):
        ckpt, dims = load_checkpoint(demo), dict(audio=1536, text=256)
        args = dict(audio_dim=None, text_dim=None, shared_dim=16) | {f'{k}_dim': dims[k] for k in kinds} | args
        torch.manual_seed(0)
        save_checkpoint(replace(ckpt, model=FusionModel(**args).state_dict(), model_args=args, encoders={k: ckpt.encoders[k] for k in kinds}, config=dict(ckpt.config, root=root)), tmp_path/name)
        return tmp_path/name
    return make


def close(a, b, eps=1e-4): return np.allclose(list(a.probabilities.values()), list(b.probabilities.values()), atol=eps)


def warned(answer, *words): return all(any(w in text for text in answer.warnings) for w in words)


def test_importing_the_package_is_light():
    done = subprocess.run([sys.executable, '-c', 'import tamers, sys; assert callable(getattr(tamers, "__getattr__")); print(sorted({"torch", "transformers", "numpy"} & set(sys.modules)))'],
                          capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'
    assert tamers.load is load


def test_sources_give_one_answer(model, clip, wave):
    "A path, a string, bytes, arrays of any layout and type, a tensor: one recording, one answer."
    first = model.predict(clip, SAID)
    again = [model.predict(str(clip), SAID), model.predict(Clip('clip', clip.read_bytes()), SAID)]
    again += [model.predict(x, SAID, rate=16000) for x in (wave, wave[None], wave[:, None], np.stack([wave, wave]), torch.from_numpy(wave), wave.astype(np.float64), np.rint(wave*32768).clip(-32768, 32767).astype(np.int16))]
    assert all(close(a, first, 2e-3) for a in again)
    assert tuple(first.probabilities) == EMOTIONS and sum(first.probabilities.values()) == pytest.approx(1)
    assert first.label == 'anger' and first.confidence == max(first.probabilities.values())
    assert first.z_audio.shape == first.z_text.shape == (256,) and np.linalg.norm(first.z_text) == pytest.approx(1, abs=1e-5)


def test_batches_change_nothing(model, clip, wave):
    audio, text = [clip, None, wave, np.tile(wave, 5), clip], [SAID, SAID, None, SAID, 'Okay.']
    lists = [model.predict(audio, text, rate=16000, batch_size=b) for b in (1, 2, 3, 16)]
    singles = [model.predict(a, t, rate=16000) for a, t in zip(audio, text)]
    for found in lists: assert all(close(a, b) and a.heard == b.heard and len(a.windows) == len(b.windows) for a, b in zip(found, singles))
    assert [a.heard for a in singles] == ['both', 'text', 'audio', 'both', 'both']
    assert model.predict([], []) == [] and len(model.predict([clip], None)) == 1


def test_temperature_is_applied(model, clip, tmp_path):
    save_checkpoint(replace(model.ckpt, temperature=3*model.ckpt.temperature), tmp_path/'best.pt')
    warm = load(tmp_path/'best.pt', device='cpu').predict(clip, SAID)
    cold = model.predict(clip, SAID)
    p = torch.tensor(list(cold.probabilities.values())).double()
    assert np.allclose((p.log()/3).softmax(-1), list(warm.probabilities.values()), atol=1e-6) and warm.confidence < cold.confidence


def test_the_same_numbers_as_evaluation(demo, model):
    "Prediction and tamers-analyze are two ways to one head."
    from tamers.config import AnalyzeConfig
    from tamers.evaluation.evaluate import evaluate_checkpoint
    _, split, e = evaluate_checkpoint(demo, AnalyzeConfig(split='dev', device='cpu', num_workers=0), say=lambda *_: None)
    rows = split.utterances[:12]
    for u, p, a in zip(rows, e.probs, model.predict([u.audio for u in rows], [u.text for u in rows])): assert np.allclose(p, list(a.probabilities.values()), atol=1e-4), u.id


@pytest.mark.parametrize('rate', (8000, 16000, 44100, 96000))
@pytest.mark.parametrize('channels', (1, 6))
def test_rates_and_channels(whole, wave, tmp_path, rate, channels):
    import soxr
    sf.write(tmp_path/'x.wav', np.stack([soxr.resample(wave, 16000, rate)]*channels, 1), rate)
    found = whole.predict(tmp_path/'x.wav', SAID)
    assert found.seconds == pytest.approx(len(wave)/16000, abs=.01) and (rate == 8000 or found.label == 'anger')
    assert warned(found, '8000 Hz') == (rate == 8000) and warned(found, '6 channels') == (channels == 6)


@pytest.mark.parametrize('name', ['x.flac', 'x.mp3', 'x.ogg', 'x.m4a'])
def test_formats(whole, wave, tmp_path, name):
    if name.endswith('m4a'):
        with av.open(tmp_path/name, 'w') as out:
            s = out.add_stream('aac', rate=16000, layout='mono')
            for i in range(0, len(wave) - 1024, 1024):
                f = av.AudioFrame.from_ndarray(wave[None, i:i + 1024], 'fltp', 'mono')
                f.rate, f.pts = 16000, i
                out.mux(s.encode(f))
            out.mux(s.encode(None))
    else: sf.write(tmp_path/name, wave, 16000)
    assert whole.predict(tmp_path/name, SAID).label == 'anger'


@pytest.mark.parametrize('sound, words', [
    (lambda t: 0*t, 'nothing to hear'),
    (lambda t: 1e-4*np.random.default_rng(0).standard_normal(len(t)), 'nothing to hear'),
], ids=['digital', 'noise floor'])
def test_silence(whole, sound, words):
    "An error where there is nothing else; with a transcript, an answer from the words that says so."
    x = sound(np.arange(48000)/16000).astype(np.float32)
    with pytest.raises(TamersError, match=words): whole.predict(x, rate=16000)
    found = whole.predict(x, SAID, rate=16000)
    assert found.heard == 'text' and warned(found, 'audio: silence') and close(found, whole.predict(None, SAID)) and found.z_audio is None


def test_a_long_recording_with_pauses(whole, wave):
    "Silent windows are listed and do not count."
    long = whole.predict(np.concatenate([wave, np.zeros(16000*20, np.float32), wave]), SAID, rate=16000)
    assert len(long.windows) >= 5 and sum(w.probabilities is None for w in long.windows) >= 2
    assert long.windows[-1].end == pytest.approx(long.seconds) and [w.start for w in long.windows] == sorted(w.start for w in long.windows)
    heard = [(w.end - w.start, torch.tensor(list(w.probabilities.values())).log()) for w in long.windows if w.probabilities]
    p, _ = combine([(0, s, q, None) for s, q in heard])
    assert np.allclose(p, list(long.probabilities.values()), atol=1e-5)


@pytest.mark.parametrize('sound', [
    lambda t: .05*np.random.default_rng(0).standard_normal(len(t)),
    lambda t: .3*np.sin(2*np.pi*440*t),
    lambda t: sum(np.sin(2*np.pi*f*t) for f in (220, 277, 330, 660))*np.exp(-3*(t % .5))/8,
], ids=['noise', 'tone', 'music'])
def test_what_is_no_speech_is_warned_of(whole, sound):
    found = whole.predict(sound(np.arange(64000)/16000), rate=16000)
    assert warned(found, 'sounds unlike what the model knows')


def test_its_own_kind_is_not_warned_of(whole):
    "Of the demo's test split, whose voices the sample does not have, few are found strange."
    rows = sorted((demo_corpus()/'test').glob('dia[0-4]_*.wav'))
    found = whole.predict(list(map(str, rows)), None)
    assert len(rows) > 20 and sum(warned(f, 'sounds unlike') for f in found) <= len(rows)/5


def test_an_hour_in_little_memory(whole, wave, tmp_path, monkeypatch):
    "The encoder is stood in for: what is measured is reading and windows."
    with sf.SoundFile(tmp_path/'hour.wav', 'w', 16000, 2, 'PCM_16') as f:
        minute = np.resize(wave, 16000*60)
        for _ in range(60): f.write(np.stack([minute, minute], 1))
    monkeypatch.setattr(whole.encoders['audio'], 'prepare', lambda waves: np.stack([w.sum() for w in waves]))
    monkeypatch.setattr(whole.encoders['audio'], 'encode', lambda batch: torch.zeros(len(batch), 1536))
    tracemalloc.start()
    found = whole.predict(tmp_path/'hour.wav', SAID)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.seconds == pytest.approx(3600) and len(found.windows) == pytest.approx(3600/(.75*5.12), abs=2)
    assert peak < 60e6, f'{peak/1e6:.0f} MB'


@pytest.mark.parametrize('text, words', [
    ('word ' * 10_000, '10000 words are more than the text encoder reads'),
    ('Я не могу поверить, что ты это сделал.', 'not written in Latin letters'),
    ('我不敢相信', 'not written in Latin letters'),
    ('12 + 30 = 42 ?!', 'holds no letters'),
], ids=['long', 'russian', 'chinese', 'numbers'])
def test_transcripts_that_deserve_a_word(whole, clip, text, words):
    for audio in (clip, None): assert warned(whole.predict(audio, text), words)


def test_empty_transcripts(whole, clip):
    for text in ('', '  \n'):
        found = whole.predict(clip, text)
        assert found.heard == 'audio' and warned(found, 'the transcript is empty') and close(found, whole.predict(clip))
        with pytest.raises(TamersError, match='nothing to answer from; the transcript is empty'): whole.predict(None, text)
    with pytest.raises(TamersError, match='give a recording'): whole.predict()


def test_english_is_not_doubted(shared):
    rows = [r['Utterance'] for r in csv.DictReader(open(shared/'data'/'meld'/'dev_sent_emo.csv', encoding='utf-8'))]
    assert sum(map(bool, map(text_oddities, rows))) <= 2, 'some rows have no letters'


@pytest.mark.parametrize('name, write, words', [
    ('gone.wav', None, 'no such file'),
    ('empty.wav', lambda p: p.write_bytes(b''), '0 bytes'),
    ('text.wav', lambda p: p.write_text('this is no sound'), 'cannot be decoded'),
    ('text.mp4', lambda p: p.write_text('this is no film'), 'cannot be decoded'),
    ('zero.wav', lambda p: sf.write(p, np.zeros(0), 16000), '0.0000 s of sound'),
    ('short.wav', lambda p: sf.write(p, np.ones(100), 16000), 'less than one analysis window'),
    ('folder', lambda p: p.mkdir(), 'is a folder'),
    ('holes.wav', lambda p: sf.write(p, np.full(16000, np.nan, np.float32), 16000, subtype='FLOAT'), 'not finite'),
])
def test_what_cannot_be_read(whole, tmp_path, name, write, words):
    if write: write(tmp_path/name)
    for text in (None, SAID):
        with pytest.raises(TamersError, match=words) as e: whole.predict(tmp_path/name, text)
        assert name in str(e.value) and 'row' not in str(e.value)


def test_a_torn_file_is_not_half_an_answer(whole, wave, tmp_path):
    sf.write(tmp_path/'torn.flac', np.tile(wave, 30), 16000)
    data = (tmp_path/'torn.flac').read_bytes()
    (tmp_path/'torn.flac').write_bytes(data[:len(data)//2])
    with pytest.raises(TamersError, match='torn.flac'): whole.predict(tmp_path/'torn.flac')
    other, broken = whole.answers([demo_corpus()/'dev'/'dia0_utt5.wav', tmp_path/'torn.flac'], None)
    assert other.label == 'anger' and isinstance(broken, TamersError)


@pytest.mark.parametrize('args, words', [
    (dict(audio=np.zeros(16000)), 'pass rate='),
    (dict(audio=[0., .1], rate=16000), 'a list of numbers'),
    (dict(audio=['a.wav'], text=['a', 'b']), '1 recordings and 2 transcripts'),
    (dict(text=3), 'is a int'),
    (dict(audio=np.full(16000, 20000.), rate=16000), 'reach 20000'),
    (dict(audio=np.zeros(16000, complex), rate=16000), 'type complex128'),
    (dict(text='Hello.', batch_size=0), 'batch_size 0'),
    (dict(audio=np.zeros(16000), rate=-5), 'recording 1: -5 samples a second'),
    (dict(audio=np.ones(16000), rate=1e9), 'samples a second'),
])
def test_arguments_that_make_no_sense(whole, args, words):
    with pytest.raises(TamersError, match=words): whole.predict(**args)


def test_heads_of_one_modality(head, clip):
    words, voice = (load(head(f'{k}.pt', kinds=(k,)), device='cpu') for k in ('text', 'audio'))
    both, alone = words.predict(clip, SAID), words.predict(None, SAID)
    assert both.heard == 'text' and warned(both, 'audio: left aside, this model does not listen') and close(both, alone) and not warned(alone, 'left aside')
    assert warned(voice.predict(clip, SAID), 'text: left aside') and voice.predict(clip, SAID).heard == 'audio'
    with pytest.raises(TamersError, match='nothing to answer from; audio: left aside'): words.predict(clip)
    with pytest.raises(TamersError, match='nothing to answer from; text: left aside'): voice.predict(None, SAID)


def test_a_head_that_looks_at_both_at_once(demo, clip, tmp_path):
    "Cross-modal attention has nothing to look at where one is missing; the other jobs are answered."
    ckpt = load_checkpoint(demo)
    encoders = {k: dict(spec=Encoder(k, 'mini', pooling='tokens').spec, name='mini', revision=None) for k in ('audio', 'text')}
    args = dict(audio_dim=64, text_dim=256, shared_dim=16, fusion='attention', audio_pooling='tokens', text_pooling='tokens', audio_rows=32, text_rows=32)
    save_checkpoint(replace(ckpt, model=FusionModel(**args).state_dict(), model_args=args, encoders=encoders, config=dict(ckpt.config, root='x')), tmp_path/'best.pt')
    m = load(tmp_path/'best.pt', device='cpu')
    both, voice, words, silent = m.answers([clip, clip, None, np.zeros((1, 48000))], [SAID, None, SAID, SAID], rate=16000)
    assert both.heard == 'both' and all(isinstance(x, TamersError) and 'looks at both at once' in str(x) for x in (voice, words, silent))
    near = Familiar(m.model, 'audio', torch.randn(20, 32, 64))
    assert near.strangeness(torch.randn(3, 32, 64)).shape == (3,) and near.z.shape == (20, 16)


def test_modality_dropout_decides_the_warning(model, whole, clip):
    for args in ((clip, None), (None, SAID)):
        assert warned(model.predict(*args), 'never was in training') and not warned(whole.predict(*args), 'never was in training')
    assert model.predict(clip, SAID).warnings == []


def test_without_a_sample_it_says_so(head, clip):
    path = head()
    assert warned(load(path, device='cpu').predict(clip, SAID), 'no known.safetensors')
    (out := write_known(path, root=str(demo_corpus()))).relative_to(path.parent)
    m = load(path, device='cpu')
    assert not warned(m.predict(clip, SAID), 'no known') and m.known.source.startswith('dev of corpus-')
    out.write_bytes(out.read_bytes()[:500])
    with pytest.raises(TamersError, match='known.safetensors: cannot be read'): load(path, device='cpu')


def test_the_sample_is_a_sample():
    from types import SimpleNamespace
    from tamers.data.corpus import Utterance
    from tamers.store.features import StoredFeatures
    split = SimpleNamespace(labels=torch.arange(50) % 7, features=StoredFeatures(torch.arange(50.)[:, None], None), utterances=[Utterance(str(i), 'dev', 'é', EMOTIONS[i % 7], None) for i in range(50)])
    known = sample_known(split, 'x', most=20)
    assert len(set(known.ids)) == 20 and known.audio[:, 0].tolist() == [float(i) for i in known.ids] and known.text is None


def test_a_folder_stands_alone(whole, clip, tmp_path):
    "Encoders that lie in folders are copied; the folder answers when they are gone, and names no path."
    import shutil
    for kind in ('audio', 'text'): shutil.copytree(shipped(kind), tmp_path/'old'/kind)
    encoders = {k: dict(spec=Encoder(k, tmp_path/'old'/k).spec, name=str(tmp_path/'old'/k), revision=None) for k in ('audio', 'text')}
    (tmp_path/'run').mkdir()
    save_checkpoint(replace(whole.ckpt, encoders=encoders, config=dict(whole.ckpt.config, root=str(tmp_path/'corpus'), save_path=str(tmp_path/'run'))), tmp_path/'run'/'best.pt')
    save_known(whole.known, tmp_path/'run'/'known.safetensors')
    (tmp_path/'run'/'README.md').write_text('my card')
    first = load(tmp_path/'run', device='cpu')
    first.save_pretrained(tmp_path/'given')
    shutil.rmtree(tmp_path/'old')
    for again in (load(tmp_path/'given', device='cpu'), Recognizer.from_pretrained(str(tmp_path/'given'), device='cpu')):
        assert close(again.predict(clip, SAID), first.predict(clip, SAID), 1e-6) and again.known.ids == whole.known.ids
    assert (tmp_path/'given'/'README.md').read_text() == 'my card'
    about = (tmp_path/'given'/'config.json').read_text()
    assert str(tmp_path) not in about and json.loads(about)['classes'] == list(EMOTIONS) and json.loads(about)['encoders']['audio']['name'] == 'audio'
    with pytest.raises(TamersError, match='old.*no such folder'): load(tmp_path/'run', device='cpu')
    beside = load(tmp_path/'run', device='cpu', audio_encoder=str(tmp_path/'given'/'audio'), text_encoder=str(tmp_path/'given'/'text'))
    assert close(beside.predict(clip, SAID), first.predict(clip, SAID), 1e-6)
    for kind in ('audio', 'text'): shutil.copytree(tmp_path/'given'/kind, tmp_path/'run'/kind)
    load(tmp_path/'run', device='cpu', warm=False)
    shutil.rmtree(tmp_path/'given'/'audio')
    shutil.copytree(shipped('audio'), tmp_path/'given'/'audio')
    (tmp_path/'given'/'audio'/'preprocessor_config.json').write_text((tmp_path/'given'/'audio'/'preprocessor_config.json').read_text() + ' ')
    with pytest.raises(TamersError, match='which is not the one in use'): load(tmp_path/'given', device='cpu')


def test_push_to_hub(model, monkeypatch):
    "What the mixin hands to the hub is the whole folder; the hub is stood in for."
    import huggingface_hub.hub_mixin as mixin
    sent = {}
    class Hub:
        def __init__(self, token=None): pass
        def create_repo(self, repo_id, **kw): return type('Repo', (), dict(repo_id=repo_id))
        def upload_folder(self, *, repo_id, folder_path, **kw):
            sent.update(repo=repo_id, files={p.name: p.stat().st_size for p in Path(folder_path).iterdir()}, ckpt=read_pretrained(folder_path), card=(Path(folder_path)/'README.md').read_text())
            return 'https://hub/commit'
    monkeypatch.setattr(mixin, 'HfApi', Hub)
    assert model.push_to_hub('somebody/emotions') == 'https://hub/commit'
    assert sent['repo'] == 'somebody/emotions' and {'config.json', 'model.safetensors', 'known.safetensors', 'README.md', 'audio', 'text'} == sent['files'].keys()
    assert all(torch.equal(v, model.ckpt.model[k]) for k, v in sent['ckpt'].model.items()) and 'library_name: tamers' in sent['card'] and 'decide anything about a person' in sent['card']


def test_a_name_on_the_hub(model, clip, tmp_path, monkeypatch):
    "From the hub's cache, without a network; a name that is nowhere is told."
    commit, repo = '1'*40, tmp_path/'hub'/'models--somebody--emotions'
    model.save_pretrained(repo/'snapshots'/commit)
    (repo/'refs').mkdir()
    (repo/'refs'/'main').write_text(commit)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path/'hub'))
    found = Recognizer.from_pretrained('somebody/emotions', cache_dir=tmp_path/'hub', local_files_only=True, device='cpu')
    assert close(found.predict(clip, SAID), model.predict(clip, SAID), 1e-6)
    for name in ('nobody/nothing', 'no way, this!', 'gone/best.pt'):
        with pytest.raises(TamersError, match='no such file or folder, and the hub'): load(name)


def test_nothing_named_is_what_ships():
    assert load(device='cpu', warm=False).path == shipped_checkpoint()


def test_other_files_are_refused(tmp_path):
    (tmp_path/'x.pt').write_text('no')
    with pytest.raises(TamersError, match='not a readable checkpoint'): load(tmp_path/'x.pt')
    with pytest.raises(TamersError, match='no such checkpoint'): load(tmp_path)
    with pytest.raises(TamersError, match='--device nowhere: no such device here'): load(device='nowhere')


def test_tables(model, clip, tmp_path):
    (tmp_path/'a.wav').write_bytes(clip.read_bytes())
    rows = [dict(id='1', audio='a.wav', text=SAID, label='anger'), dict(id='2', audio='gone.wav', text='x', label='joy'), dict(id='3', audio='', text="I'm so happy!", label='joy')]
    pd.DataFrame(rows).to_csv(tmp_path/'t.csv', index=False)
    (tmp_path/'t.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    for path in (tmp_path/'t.csv', tmp_path/'t.jsonl'):
        told = model.predict_table(path)
        assert list(told.id) == ['1', '2', '3'] and list(told.label) == ['anger', 'joy', 'joy'] and told.prediction[0] == 'anger' and told.heard[2] == 'text'
        assert 'gone.wav: no such file' in told.error[1] and np.isnan(told.confidence[1]) and not told.error[0]
    frame = pd.DataFrame(dict(text=['Hello.', None]), index=[7, 3])
    told = model.predict_table(frame)
    assert list(told.index) == [7, 3] and 'nothing to answer from' in told.error[3] and list(frame.columns) == ['text']
    again = model.predict_table(told)
    assert list(again.columns).count('prediction') == 1
    with pytest.raises(TamersError, match='not a table'): model.predict_table(tmp_path/'t.xlsx')


def run(capsys, *argv, code=0):
    "Run the command on the CPU; its two outputs."
    try:
        tamers_predict([*map(str, argv), '--device', 'cpu', *(['--checkpoint', str(demo_head())] if '--checkpoint' not in argv else [])])
        found = 0
    except SystemExit as e: found = e.code
    out = capsys.readouterr()
    assert found == code, out.err
    return out.out, out.err


def test_the_command_answers_what_it_can(clip, tmp_path, capsys):
    (tmp_path/'bad.wav').write_text('no sound')
    out, err = run(capsys, clip, tmp_path/'bad.wav', clip, '--text', SAID, code=1)
    lines = out.splitlines()
    assert len(lines) == 4 and lines[0].split()[0] == 'file' and 'anger' in lines[1] and 'no answer' in lines[2] and 'both' in lines[3]
    assert f'error: {tmp_path}/bad.wav: cannot be decoded' in err and 'a demonstration' in err and 'no sound' not in out
    _, err = run(capsys, tmp_path/'bad.wav', code=1)


def test_the_command_as_json_and_csv(clip, wave, tmp_path, capsys):
    sf.write(tmp_path/'long, "quoted".wav', np.tile(wave, 9), 16000)
    out, err = run(capsys, clip, tmp_path/'long, "quoted".wav', tmp_path/'gone.wav', '--json', code=1)
    first, long, gone = map(json.loads, out.splitlines())
    assert first['prediction'] == 'anger' and tuple(first['probabilities']) == EMOTIONS and 'windows' not in first and first['warnings']
    assert len(long['windows']) == 4 and long['seconds'] > 14 and gone.keys() == {'file', 'error'}
    out, _ = run(capsys, clip, tmp_path/'long, "quoted".wav', tmp_path/'gone.wav', '--csv', code=1)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [Path(r['file']).name for r in rows] == [clip.name, 'long, "quoted".wav', 'gone.wav'] and float(rows[0]['anger']) == pytest.approx(first['probabilities']['anger'])
    assert rows[2]['prediction'] == '' and 'no such file' in rows[2]['error']


def test_the_command_on_a_table_and_on_words(clip, tmp_path, capsys):
    (tmp_path/'t.csv').write_text(f'audio,text\n{clip},"{SAID}"\n,I am so happy.\n')
    out, _ = run(capsys, '--manifest', tmp_path/'t.csv', '--json')
    assert [json.loads(line)['heard'] for line in out.splitlines()] == ['both', 'text'] and json.loads(out.splitlines()[1])['file'] == 'row 2'
    out, err = run(capsys, '--text', SAID)
    assert len(out.splitlines()) == 2 and 'text' in out and 'from the text alone' in err


@pytest.mark.parametrize('argv, words', [
    ([], 'nothing to answer'), (['a.wav', '--json', '--csv'], '--json --csv: choose one'), (['--text', ''], '--text: is empty'),
    (['a.wav', '--manifest', 'b.csv'], 'give files or a table'), (['--manifest', 'b.csv', '--text', 'x'], 'has its own transcripts'), (['--manifest', 'gone.csv'], 'gone.csv: cannot be read'),
    (['a.wav', '--checkpoint', 'gone.pt'], 'gone.pt: no such file or folder'), (['a.wav', '--batch-size', '0'], '--batch-size 0: must be at least 1')])
def test_the_command_refuses_in_one_line(argv, words, capsys):
    out, err = run(capsys, *argv, code=2)
    assert not out and words in err and err.startswith('error: ') and err.count('\n') == 1


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as e: tamers_predict(['--help'])
    out = capsys.readouterr().out
    assert e.value.code == 0 and all(w in out for w in ('FILE', '--manifest', 'tamers-predict *.wav', 'Exit code 0', 'decide nothing about a person'))


def test_table_lines_fit(model, clip):
    line = commands.table_line('a/very/long/path/to/some/folder/' + clip.name, model.predict(clip, SAID))
    assert len(line) <= 80 and re.match(r'…\S+dia0_utt5.wav  anger', line)


def test_windows_cover_everything():
    "Whatever the blocks, windows overlap by a quarter and end where the sound ends."
    x = np.random.default_rng(0).standard_normal(SAMPLE_RATE*7 + 123).astype(np.float32)*.1
    for seconds in (1., 2.5, 7., 7.01, 30.):
        found = list(Recording(x, SAMPLE_RATE).windows(seconds))
        back = np.zeros_like(x)
        for start, w, _ in found: back[round(start*SAMPLE_RATE):][:len(w)] = w
        assert np.allclose(back, x, atol=1e-3) and all(len(w) <= seconds*SAMPLE_RATE for _, w, _ in found)
        assert [len(w) == round(seconds*SAMPLE_RATE) for _, w, _ in found[:-1]] == [True]*(len(found) - 1)


def test_resampling_in_a_stream_is_resampling():
    "A long recording at another rate gives, window for window, what it gives when resampled at once."
    import soxr
    x = np.random.default_rng(0).standard_normal(44100*9).astype(np.float32)*.1
    whole = soxr.resample(x, 44100, SAMPLE_RATE)
    found = list(Recording(x, 44100).windows(2.))
    assert len(found) > 4 and sum(len(w) for _, w, _ in found[-1:]) + round(found[-1][0]*SAMPLE_RATE) == pytest.approx(len(whole), abs=2)
    for start, w, _ in found: assert np.allclose(w[:len(w) - 200], whole[round(start*SAMPLE_RATE):][:len(w) - 200], atol=1e-4)


def test_the_sample_of_the_demo_is_kept(model):
    from tamers.core import cache_dir
    kept, = (cache_dir()/'known').glob('*.safetensors')
    assert load_known(kept).ids == model.known.ids
