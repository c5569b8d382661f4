"What tamers-predict prints: doubts first, windows, cells that are no formulas, folders, and the name of the model."
import csv
import io
import json
import shutil
from pathlib import Path
import numpy as np
import pytest
import soundfile as sf
from tamers.commands import tamers_predict
from tamers.core import EMOTIONS, TamersError, csv_cell
from tamers.data.audio import load_audio
from tamers.data.demo import demo_corpus
from tamers.prediction import recognizer
from tamers.prediction.recognizer import columns_of, load

SAID = 'So, shut up about my brother!'


@pytest.fixture
def clips(tmp_path, monkeypatch):
    "A folder of two clips, a text and a folder with a third clip; the command runs beside it."
    (tmp_path/'talks'/'more').mkdir(parents=True)
    for name in ('b.wav', 'a.WAV', 'more/c.wav', '.hidden.wav'):
        shutil.copy(demo_corpus()/'dev'/'dia0_utt5.wav', tmp_path/'talks'/name)
    (tmp_path/'talks'/'notes.txt').write_text('no sound')
    monkeypatch.chdir(tmp_path)
    return tmp_path/'talks'


@pytest.fixture
def ask(capsys):
    def run(*argv):
        tamers_predict([*map(str, argv), '--device', 'cpu'])
        return capsys.readouterr()
    return run


def rows(out): return list(csv.DictReader(io.StringIO(out)))


def test_a_voice_unlike_all_that_is_known_leads_with_the_doubt(clips, ask):
    out, err = ask('talks/b.wav')
    line = out.splitlines()[1]
    assert 'guess: anger' in line and '%' not in line
    assert err.splitlines()[-1] == 'talks/b.wav: audio: sounds unlike what the model knows; take the answer as a guess'


def test_the_doubt_is_said_once_for_many_files(clips, ask):
    out, err = ask('talks/b.wav', 'talks/a.WAV', 'talks/more/c.wav')
    assert out.count('guess: ') == 3 and err.count('sounds unlike') == 1
    assert '3 of 3 answers: audio: sounds unlike what the model knows' in err


def test_what_is_known_has_its_percentage(clips, ask, demo):
    out, err = ask('talks/b.wav', '--text', SAID, '--checkpoint', demo)
    assert 'guess' not in out and 'anger ' in out and '%' in out and 'unlike' not in err
    told = json.loads(ask('talks/b.wav', '--checkpoint', demo, '--json').out)
    assert 0 < told['strange']['audio'] < 1


def test_a_folder_stands_for_its_recordings(clips, ask):
    out, _ = ask('talks', '--csv')
    assert [r['file'] for r in rows(out)] == [str(Path('talks', n)) for n in ('a.WAV', 'b.wav')]


def test_names_come_back_as_they_were_given(clips, ask, monkeypatch):
    monkeypatch.chdir(clips)
    Path('t.csv').write_text('audio,text\nb.wav,hello there\n./a.WAV,\n,hi you\n')
    out, err = ask('--manifest', 't.csv', '--csv')
    assert [r['file'] for r in rows(out)] == ['b.wav', './a.WAV', 'row 3']
    assert columns_of([dict(audio='b.wav')], 't.csv')[0] == ['b.wav']


def test_numbers_of_csv_have_few_digits(clips, ask):
    row, = rows(ask('talks/b.wav', '--csv').out)
    assert all(len(row[k].lstrip('0.').partition('e')[0]) <= 6 for k in ('confidence', 'anger', 'joy', 'seconds'))
    assert sum(float(row[k]) for k in EMOTIONS) == pytest.approx(1, abs=1e-4)


def test_windows_of_a_long_recording(clips, ask):
    wave = load_audio(clips/'b.wav')
    sf.write('long.wav', np.concatenate([wave, wave, wave, wave, np.zeros(160_000), wave]), 16000)
    found = rows(ask('long.wav', 'talks/b.wav', '--csv', '--windows').out)
    long, short = found[:-1], found[-1]
    assert len(long) > 3 and float(long[0]['start']) == 0 and float(long[1]['start']) < float(long[0]['end'])
    assert any(r['warnings'] == 'silence' and r['prediction'] == '' for r in long)
    assert float(long[0]['anger']) == float(long[0]['confidence']) > .5
    assert (short['file'], short['start'], short['end']) == ('talks/b.wav', '0', short['seconds'])
    out, _ = ask('long.wav', '--windows')
    assert len(out.splitlines()) == len(long) + 1 and 'long.wav 0.0-' in out and 'silence' in out
    out, _ = ask('long.wav', '--windows', '--json')
    assert [json.loads(line)['start'] for line in out.splitlines()] == pytest.approx([float(r['start']) for r in long])
    assert rows(ask('--text', SAID, '--csv', '--windows').out)[0]['start'] == ''


def test_no_cell_is_a_formula(clips, ask, monkeypatch):
    monkeypatch.chdir(clips)
    Path('b.wav').rename('=1+96.wav')
    out, _ = ask('=1+96.wav', '--csv')
    assert rows(out)[0]['file'] == "'=1+96.wav"
    for text in ('=1', '+1', '-1', '@x', '\t=1', '\r=1', ' =1'): assert csv_cell(text).startswith("'")
    assert csv_cell('a\x1b[2Jb\x07') == 'a [2Jb ' and csv_cell('a=1') == 'a=1' and csv_cell(None) is None


def test_the_model_is_named_and_found_by_one_rule(clips, ask, demo):
    assert 'using tamers-mini, the model that ships (trained on MELD-acted, audio and text)' in ask('talks/b.wav').err
    for seed in (7, 8):
        Path('checkpoints/five', f'seed-{seed}').mkdir(parents=True)
        shutil.copy(demo, f'checkpoints/five/seed-{seed}/best.pt')
    assert 'using checkpoints/five (trained on the demo corpus, audio and text)' in ask('talks/b.wav').err
    assert 'using tamers-mini' in ask('talks/b.wav', '--checkpoint', 'mini').err
    assert 'using checkpoints/five (' in ask('talks/b.wav', '--checkpoint', 'checkpoints/five').err
    assert load('checkpoints/five', device='cpu', warm=False).path == Path('checkpoints/five/seed-7/best.pt')


@pytest.mark.parametrize('name', ['typo', 'gone/best.pt', './gone/run', 'a/b/c', '/gone'])
def test_the_hub_is_not_asked_for_what_it_cannot_have(name, monkeypatch):
    monkeypatch.setattr(recognizer.Recognizer, 'from_pretrained', lambda *a, **kw: pytest.fail('asked'))
    with pytest.raises(TamersError, match='no such file or folder'): load(name)
    asked = []
    monkeypatch.setattr(recognizer.Recognizer, 'from_pretrained', lambda *a, **kw: asked.append(a))
    load('owner/name')
    assert asked
