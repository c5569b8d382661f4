"Prediction as a user meets it: every sort of input, long, bad or of one modality; folders and the hub; the command."
import csv
import io
import json
import re
import shutil
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
from tamers.commands import tamers_predict
from tamers.core import EMOTIONS, TamersError, shipped
from tamers.data.audio import SAMPLE_RATE, Clip, load_audio
from tamers.data.demo import demo_corpus
from tamers.encoders.encoder import Encoder
from tamers.model.checkpoint import load_checkpoint, save_checkpoint
from tamers.model.fusion import FusionModel
from tamers.prediction.answers import combine
from tamers.model.sample import load_known, sample_known, save_known
from tamers.prediction.known import Familiar, write_known
from tamers.prediction.lines import table_line
from tamers.prediction.pretrained import read_pretrained
from tamers.prediction.recognizer import Recognizer, load
from tamers.prediction.recording import Recording, text_oddities
from tamers.runs import shipped_checkpoint
from tamers.training.run import demo_head

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
    shutil.copy(demo.with_name('known.safetensors'), path.parent)
    return load(path, device='cpu')


@pytest.fixture
def head(demo, tmp_path):
    "Write a fresh head for some encoders, those of the demo if no others are given; its path."
    def make(name='best.pt', *, kinds=('audio', 'text'), encoders=None, **args):
        ckpt = load_checkpoint(demo)
        args = {f'{k}_dim': ckpt.model_args[f'{k}_dim'] if k in kinds else None for k in ('audio', 'text')} | args
        args = dict(shared_dim=16) | args
        torch.manual_seed(0)
        encoders = encoders or {k: ckpt.encoders[k] for k in kinds}
        save_checkpoint(replace(ckpt, model=FusionModel(**args).state_dict(), model_args=args, encoders=encoders,
                                config=dict(ckpt.config, root='corpus')), tmp_path/name)
        return tmp_path/name
    return make


def numbers(answer): return torch.tensor(list(answer.probabilities.values())).double()


def close(a, b, eps=1e-4): return np.allclose(numbers(a), numbers(b), atol=eps)


def warned(answer, *words): return all(any(w in text for text in answer.warnings) for w in words)


def test_importing_the_package_is_light():
    code = 'import tamers, sys; print(sorted({"torch", "transformers", "numpy"} & set(sys.modules)))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'
    assert tamers.load is load


def test_sources_give_one_answer(model, clip, wave):
    "A path, a string, bytes, arrays of any layout and type, a tensor: one recording, one answer."
    first = model.predict(clip, SAID)
    again = [model.predict(str(clip), SAID), model.predict(Clip('clip', clip.read_bytes()), SAID)]
    whole_numbers = np.rint(wave*32768).clip(-32768, 32767).astype(np.int16)
    arrays = [wave, wave[None], wave[:, None], np.stack([wave, wave]), torch.from_numpy(wave), wave.astype(np.float64)]
    again += [model.predict(x, SAID, rate=16000) for x in (*arrays, whole_numbers)]
    assert all(close(a, first, 2e-3) for a in again)
    assert tuple(first.probabilities) == EMOTIONS and sum(first.probabilities.values()) == pytest.approx(1)
    assert first.label == 'anger' and first.confidence == max(first.probabilities.values())
    assert first.z_audio.shape == first.z_text.shape == (256,)
    assert np.linalg.norm(first.z_text) == pytest.approx(1, abs=1e-5)


def test_batches_change_nothing(model, clip, wave):
    audio, text = [clip, None, wave, np.tile(wave, 5), clip], [SAID, SAID, None, SAID, 'Okay.']
    lists = [model.predict(audio, text, rate=16000, batch_size=b) for b in (1, 2, 3, 16)]
    singles = [model.predict(a, t, rate=16000) for a, t in zip(audio, text)]
    for found in lists:
        assert all(close(a, b) for a, b in zip(found, singles))
        assert [(a.heard, len(a.windows)) for a in found] == [(b.heard, len(b.windows)) for b in singles]
    assert [a.heard for a in singles] == ['both', 'text', 'audio', 'both', 'both']
    assert model.predict([], []) == [] and len(model.predict([clip], None)) == 1


def test_temperature_is_applied(model, clip, tmp_path):
    save_checkpoint(replace(model.ckpt, temperature=3*model.ckpt.temperature), tmp_path/'best.pt')
    warm = load(tmp_path/'best.pt', device='cpu').predict(clip, SAID)
    cold = model.predict(clip, SAID)
    assert np.allclose((numbers(cold).log()/3).softmax(-1), numbers(warm), atol=1e-6)
    assert warm.confidence < cold.confidence


def test_the_same_numbers_as_evaluation(demo, model):
    "Prediction and tamers-analyze are two ways to one head."
    from tamers.config import AnalyzeConfig
    from tamers.evaluation.evaluate import evaluate_checkpoint
    cfg = AnalyzeConfig(split='dev', device='cpu', num_workers=0)
    _, split, e = evaluate_checkpoint(demo, cfg, say=lambda *_: None)
    rows = split.utterances[:12]
    found = model.predict([u.audio for u in rows], [u.text for u in rows])
    for u, p, a in zip(rows, e.probs, found): assert np.allclose(p, numbers(a), atol=1e-4), u.id


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
    assert found.heard == 'text' and warned(found, 'audio: silence') and found.z_audio is None
    assert close(found, whole.predict(None, SAID))


def test_a_long_recording_with_pauses(whole, wave):
    "Silent windows are listed and do not count."
    long = whole.predict(np.concatenate([wave, np.zeros(16000*20, np.float32), wave]), SAID, rate=16000)
    assert len(long.windows) >= 5 and sum(w.probabilities is None for w in long.windows) >= 2
    starts = [w.start for w in long.windows]
    assert long.windows[-1].end == pytest.approx(long.seconds) and starts == sorted(starts)
    p, _ = combine([(w.start, w.end, numbers(w).log(), None) for w in long.windows if w.probabilities])
    assert np.allclose(p, numbers(long), atol=1e-5)


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
        nothing = 'nothing to answer from; the transcript is empty'
        with pytest.raises(TamersError, match=nothing): whole.predict(None, text)
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
    assert both.heard == 'text' and close(both, alone)
    assert warned(both, 'audio: left aside, this model does not listen') and not warned(alone, 'left aside')
    assert warned(voice.predict(clip, SAID), 'text: left aside') and voice.predict(clip, SAID).heard == 'audio'
    with pytest.raises(TamersError, match='nothing to answer from; audio: left aside'): words.predict(clip)
    with pytest.raises(TamersError, match='nothing to answer from; text: left aside'): voice.predict(None, SAID)


def test_a_head_that_looks_at_both_at_once(head, clip):
    "Cross-modal attention has nothing to look at where one is missing; the other jobs are answered."
    tokens = {k: Encoder(k, 'mini', pooling='tokens').spec for k in ('audio', 'text')}
    encoders = {k: dict(spec=spec, name='mini', revision=None) for k, spec in tokens.items()}
    path = head(encoders=encoders, fusion='attention', audio_dim=192, audio_pooling='tokens', text_pooling='tokens',
                audio_rows=32, text_rows=32)
    m = load(path, device='cpu')
    silence = np.zeros((1, 48000))
    both, *others = m.answers([clip, clip, None, silence], [SAID, None, SAID, SAID], rate=16000)
    assert both.heard == 'both'
    assert all(isinstance(x, TamersError) and 'looks at both at once' in str(x) for x in others)
    near = Familiar(m.model, 'audio', torch.randn(20, 32, 192))
    assert near.strangeness(torch.randn(3, 32, 192)).shape == (3,) and near.z.shape == (20, 16)


def test_modality_dropout_decides_the_warning(model, whole, clip):
    for args in ((clip, None), (None, SAID)):
        assert warned(model.predict(*args), 'never was in training')
        assert not warned(whole.predict(*args), 'never was in training')
    assert model.predict(clip, SAID).warnings == []


def test_without_a_sample_it_says_so(head, clip):
    path = head()
    assert warned(load(path, device='cpu').predict(clip, SAID), 'no known.safetensors')
    (out := write_known(path, root=str(demo_corpus()))).relative_to(path.parent)
    m = load(path, device='cpu')
    assert not warned(m.predict(clip, SAID), 'no known') and m.known.source.startswith('dev of demo-corpus-')
    out.write_bytes(out.read_bytes()[:500])
    with pytest.raises(TamersError, match='known.safetensors: cannot be read'): load(path, device='cpu')


def test_the_sample_is_a_sample():
    from types import SimpleNamespace
    from tamers.data.corpus import Utterance
    from tamers.store.features import StoredFeatures
    rows = [Utterance(str(i), 'dev', 'é', EMOTIONS[i % 7], None) for i in range(50)]
    features = StoredFeatures(torch.arange(50.)[:, None], None)
    known = sample_known(SimpleNamespace(labels=torch.arange(50) % 7, features=features, utterances=rows), 'x', most=20)
    assert len(set(known.ids)) == 20 and known.audio[:, 0].tolist() == [float(i) for i in known.ids]
    assert known.text is None and known.utterances == [rows[int(i)] for i in known.ids]


def test_a_folder_stands_alone(whole, clip, tmp_path):
    "Encoders that lie in folders are copied; the folder answers when they are gone, and names no path."
    old, run, given = (tmp_path/name for name in ('old', 'run', 'given'))
    for kind in ('audio', 'text'): shutil.copytree(shipped(kind), old/kind)
    run.mkdir()
    encoders = {k: dict(spec=Encoder(k, old/k).spec, name=str(old/k), revision=None) for k in ('audio', 'text')}
    config = dict(whole.ckpt.config, root=str(tmp_path/'corpus'), save_path=str(run))
    save_checkpoint(replace(whole.ckpt, encoders=encoders, config=config), run/'best.pt')
    save_known(whole.known, run/'known.safetensors')
    (run/'README.md').write_text('my card')
    first = load(run, device='cpu')
    first.save_pretrained(given)
    shutil.rmtree(old)
    for again in (load(given, device='cpu'), Recognizer.from_pretrained(str(given), device='cpu')):
        assert close(again.predict(clip, SAID), first.predict(clip, SAID), 1e-6) and again.known.ids == whole.known.ids
    assert (given/'README.md').read_text() == 'my card'
    text = (given/'config.json').read_text()
    about = json.loads(text)
    assert str(tmp_path) not in text and about['config']['root'] == 'corpus'
    assert list(about['label2id']) == list(EMOTIONS) and about['encoders']['audio']['name'] == 'audio'
    with pytest.raises(TamersError, match='old.*no such folder'): load(run, device='cpu')
    beside = load(run, device='cpu', audio_encoder=str(given/'audio'), text_encoder=str(given/'text'))
    assert close(beside.predict(clip, SAID), first.predict(clip, SAID), 1e-6)
    for kind in ('audio', 'text'): shutil.copytree(given/kind, run/kind)
    load(run, device='cpu', warm=False)
    settings = given/'audio'/'preprocessor_config.json'
    settings.write_text(settings.read_text() + ' ')
    with pytest.raises(TamersError, match='which is not the one in use'): load(given, device='cpu')


def test_push_to_hub(model, monkeypatch):
    "What the mixin hands to the hub is the whole folder; the hub is stood in for."
    import huggingface_hub.hub_mixin as mixin
    sent = {}
    class Hub:
        def __init__(self, token=None): pass
        def create_repo(self, repo_id, **kw): return type('Repo', (), dict(repo_id=repo_id))
        def upload_folder(self, *, repo_id, folder_path, **kw):
            folder = Path(folder_path)
            sent.update(repo=repo_id, files={p.name for p in folder.iterdir()}, ckpt=read_pretrained(folder),
                        card=(folder/'README.md').read_text())
            return 'https://hub/commit'
    monkeypatch.setattr(mixin, 'HfApi', Hub)
    assert model.push_to_hub('somebody/emotions') == 'https://hub/commit'
    assert sent['repo'] == 'somebody/emotions'
    assert sent['files'] == {'config.json', 'model.safetensors', 'known.safetensors', 'README.md', 'audio', 'text'}
    assert all(torch.equal(v, model.ckpt.model[k]) for k, v in sent['ckpt'].model.items())
    assert 'library_name: tamers' in sent['card'] and 'decide anything about a person' in sent['card']


def test_a_name_on_the_hub(model, clip, tmp_path, monkeypatch):
    "From the hub's cache, without a network; a name that is nowhere is told."
    commit, repo = '1'*40, tmp_path/'hub'/'models--somebody--emotions'
    model.save_pretrained(repo/'snapshots'/commit)
    (repo/'refs').mkdir()
    (repo/'refs'/'main').write_text(commit)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path/'hub'))
    options = dict(cache_dir=tmp_path/'hub', local_files_only=True)
    found = Recognizer.from_pretrained('somebody/emotions', device='cpu', **options)
    assert close(found.predict(clip, SAID), model.predict(clip, SAID), 1e-6)
    for name in ('nobody/nothing', 'no way, this!', 'gone/best.pt'):
        with pytest.raises(TamersError, match='no such file or folder'): load(name)


def test_nothing_named_is_what_ships():
    assert load(device='cpu', warm=False).path == shipped_checkpoint()


def test_other_files_are_refused(tmp_path):
    (tmp_path/'x.pt').write_text('no')
    with pytest.raises(TamersError, match='not a readable checkpoint'): load(tmp_path/'x.pt')
    with pytest.raises(TamersError, match='no such checkpoint'): load(tmp_path)
    with pytest.raises(TamersError, match='--device nowhere: no such device here'): load(device='nowhere')


def test_tables(model, clip, tmp_path):
    (tmp_path/'a.wav').write_bytes(clip.read_bytes())
    rows = [dict(id='1', audio='a.wav', text=SAID, label='anger'),
            dict(id='2', audio='gone.wav', text='x', label='joy'),
            dict(id='3', audio='', text="I'm so happy!", label='joy')]
    pd.DataFrame(rows).to_csv(tmp_path/'t.csv', index=False)
    (tmp_path/'t.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    for path in (tmp_path/'t.csv', tmp_path/'t.jsonl'):
        told = model.predict_table(path)
        assert list(told.id) == ['1', '2', '3'] and list(told.label) == ['anger', 'joy', 'joy']
        assert told.prediction[0] == 'anger' and told.heard[2] == 'text'
        assert 'gone.wav: no such file' in told.error[1] and np.isnan(told.confidence[1]) and not told.error[0]
    frame = pd.DataFrame(dict(text=['Hello.', None]), index=[7, 3])
    told = model.predict_table(frame)
    assert list(told.index) == [7, 3] and 'nothing to answer from' in told.error[3] and list(frame.columns) == ['text']
    again = model.predict_table(told)
    assert list(again.columns).count('prediction') == 1
    with pytest.raises(TamersError, match='not a table'): model.predict_table(tmp_path/'t.xlsx')


def run(capsys, *argv, code=0):
    "Run the command on the CPU; its two outputs."
    flags = [*map(str, argv), '--device', 'cpu']
    if '--checkpoint' not in argv: flags += ['--checkpoint', str(demo_head())]
    try:
        tamers_predict(flags)
        found = 0
    except SystemExit as e: found = e.code
    out = capsys.readouterr()
    assert found == code, out.err
    return out.out, out.err


def test_the_command_answers_what_it_can(clip, tmp_path, capsys):
    (tmp_path/'bad.wav').write_text('no sound')
    out, err = run(capsys, clip, tmp_path/'bad.wav', clip, '--text', SAID, code=1)
    lines = out.splitlines()
    assert len(lines) == 4 and lines[0].split()[0] == 'file'
    assert 'anger' in lines[1] and 'no answer' in lines[2] and 'both' in lines[3]
    assert f'error: {tmp_path}/bad.wav: cannot be decoded' in err and 'a demonstration' in err and 'no sound' not in out
    _, err = run(capsys, tmp_path/'bad.wav', code=1)


def test_the_command_as_json_and_csv(clip, wave, tmp_path, capsys):
    sf.write(tmp_path/'long, "quoted".wav', np.tile(wave, 9), 16000)
    out, err = run(capsys, clip, tmp_path/'long, "quoted".wav', tmp_path/'gone.wav', '--json', code=1)
    first, long, gone = map(json.loads, out.splitlines())
    assert first['prediction'] == 'anger' and tuple(first['probabilities']) == EMOTIONS
    assert 'windows' not in first and first['warnings']
    assert len(long['windows']) == 4 and long['seconds'] > 14 and gone.keys() == {'file', 'error'}
    out, _ = run(capsys, clip, tmp_path/'long, "quoted".wav', tmp_path/'gone.wav', '--csv', code=1)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [Path(r['file']).name for r in rows] == [clip.name, 'long, "quoted".wav', 'gone.wav']
    assert float(rows[0]['anger']) == pytest.approx(first['probabilities']['anger'])
    assert rows[2]['prediction'] == '' and 'no such file' in rows[2]['error']


def test_the_command_on_a_table_and_on_words(clip, tmp_path, capsys):
    (tmp_path/'t.csv').write_text(f'audio,text\n{clip},"{SAID}"\n,I am so happy.\n')
    out, _ = run(capsys, '--manifest', tmp_path/'t.csv', '--json')
    both, words = map(json.loads, out.splitlines())
    assert (both['heard'], words['heard']) == ('both', 'text') and words['file'] == 'row 2'
    out, err = run(capsys, '--text', SAID)
    assert len(out.splitlines()) == 2 and 'text' in out and 'from the text alone' in err


@pytest.mark.parametrize('argv, words', [
    ([], 'nothing to answer'),
    (['a.wav', '--json', '--csv'], '--json --csv: choose one'),
    (['--text', ''], '--text: is empty'),
    (['a.wav', '--manifest', 'b.csv'], 'give files or a table'),
    (['--manifest', 'b.csv', '--text', 'x'], 'has its own transcripts'),
    (['--manifest', 'gone.csv'], 'gone.csv: no such file'),
    (['a.wav', '--checkpoint', 'gone.pt'], 'gone.pt: no such file or folder'),
    (['a.wav', '--batch-size', '0'], '--batch-size 0: must be at least 1'),
])
def test_the_command_refuses_in_one_line(argv, words, capsys):
    out, err = run(capsys, *argv, code=2)
    assert not out and words in err and err.startswith('error: ') and err.count('\n') == 1


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as e: tamers_predict(['--help'])
    out = capsys.readouterr().out
    words = ('FILE', '--manifest', 'tamers-predict *.wav', 'Exit code 0', 'decide nothing about a person')
    assert e.value.code == 0 and all(w in out for w in words)


def test_table_lines_fit(model, clip):
    line = table_line(dict(file='a/very/long/path/to/some/folder/' + clip.name), model.predict(clip, SAID))
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
    start, last, _ = found[-1]
    assert len(found) > 4 and len(last) + round(start*SAMPLE_RATE) == pytest.approx(len(whole), abs=2)
    for start, w, _ in found:
        n = len(w) - 200
        assert np.allclose(w[:n], whole[round(start*SAMPLE_RATE):][:n], atol=1e-4)


def test_training_keeps_a_sample(model, tmp_path):
    "A head of one's own can tell what is unlike all it knows; what is given away has no words of the corpus in it."
    kept = load_known(model.path.with_name('known.safetensors'))
    assert kept.ids == model.known.ids and all(kept.texts) and kept.source == 'dev of the demo corpus (made speech)'
    model.save_pretrained(tmp_path/'given')
    given = load_known(tmp_path/'given'/'known.safetensors')
    assert given.ids == kept.ids and not any(given.texts)
