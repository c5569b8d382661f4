"tamers-mini, the model that ships: what is in its folder, what it says, and that a wheel brings it along."
import csv
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
import numpy as np
import pytest
from tamers import load, load_checkpoint
from tamers.model.checkpoint import encoder_of
from tamers.core import EMOTIONS, shipped
from tamers.measure.scores import classification_metrics

ROOT = Path(__file__).resolve().parents[2]
LINES = dict(
    anger=('Get out of my house, you liar!', 'I hate you! Leave me alone!'),
    disgust=('Ew, that is disgusting.', 'Oh, gross!'),
    fear=("I'm scared.", "Oh God, I'm so afraid of him."),
    joy=("Oh my God, I'm so happy for you!", 'Congratulations! I love it!'),
    sadness=("I'm so sorry. I miss him so much.", 'It makes me so sad that she left.'),
    surprise=('What?! No way!', 'Oh my God! You did what?'))


@pytest.fixture(scope='module')
def model(): return load(device='cpu')


def test_its_folder_is_small_and_says_what_it_is():
    files = {str(f.relative_to(shipped())): f.stat().st_size for f in shipped().rglob('*') if f.is_file()}
    assert sum(files.values()) < 30e6
    assert set(files) == {
        'README.md', 'LICENSE', 'best.pt', 'known.safetensors', 'metrics.jsonl',
        'audio/config.json', 'audio/model.safetensors', 'audio/preprocessor_config.json',
        'text/config.json', 'text/model.safetensors', 'text/tokenizer.json', 'text/tokenizer_config.json'}
    assert 'Attribution-NonCommercial-ShareAlike 4.0' in (shipped()/'LICENSE').read_text()
    assert 'license: cc-by-nc-sa-4.0' in (shipped()/'README.md').read_text()
    assert {json.loads((shipped()/k/'config.json').read_text())['dtype'] for k in ('audio', 'text')} == {'float16'}
    ckpt = load_checkpoint(shipped('best.pt'))
    assert str(ROOT) not in json.dumps(ckpt.config, default=str) and ckpt.trainer == {}


def test_its_head_belongs_to_its_encoders():
    ckpt = load_checkpoint(shipped()/'best.pt')
    for kind, e in ckpt.encoders.items(): assert encoder_of(ckpt, kind).spec == e['spec'] and e['name'] == 'mini'
    assert set(ckpt.encoders) == {'audio', 'text'}
    assert ckpt.model_args['modality_dropout'] > 0 and ckpt.classes == list(EMOTIONS)


def test_it_understands_words(model):
    "Plain lines of each emotion, by the words alone: most are named, and neutral is named for what is neutral."
    said = [(e, t) for e, lines in LINES.items() for t in lines]
    found = [a.label for a in model.predict(None, [t for _, t in said])]
    assert np.mean([a == e for a, (e, _) in zip(found, said)]) >= .5, list(zip(found, said))
    assert model.predict(None, 'The meeting is at ten o\'clock on Monday.').label == 'neutral'


def test_it_hears_emotion_in_voices_it_never_heard(model, shared):
    "RAVDESS, actors 22 to 24, by the voice alone. Its card says 70 % of a linear discriminant; this is the head."
    place = shared/'data'/'ravdess'
    with open(place/'clips.csv', encoding='utf-8', newline='') as f:
        rows = [r for r in csv.DictReader(f) if r['split'] == 'test' and r['label'] != 'calm']
    found = model.predict([place.parent/r['file'] for r in rows], None)
    y = np.array([EMOTIONS.index(r['label']) for r in rows])
    p = np.array([list(a.probabilities.values()) for a in found])
    assert len(rows) == 156 and classification_metrics(y, p)['uar'] > .6


def test_a_wheel_brings_it_along(tmp_path):
    "Built from a copy of the clone, read outside of it."
    files = ['git', 'ls-files', '-co', '--exclude-standard', '-z']
    listed = subprocess.run(files, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.split('\0')[:-1]:
        left_out = name.startswith(('docs/', 'tests/', 'nbs/')) and not name.startswith('nbs/analysis/')
        if left_out or not (ROOT/name).is_file(): continue
        (tmp_path/'copy'/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT/name, tmp_path/'copy'/name)
    build = [sys.executable, 'setup.py', '-q', 'bdist_wheel', '-d', tmp_path]
    done = subprocess.run(build, cwd=tmp_path/'copy', capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    wheel, = tmp_path.glob('*.whl')
    with zipfile.ZipFile(wheel) as z:
        z.extractall(tmp_path/'site')
        meta, = (n for n in z.namelist() if n.endswith('.dist-info/METADATA'))
        assert 'Apache-2.0 AND CC-BY-NC-SA-4.0' in z.read(meta).decode()
    mini = tmp_path/'site'/'tamers'/'checkpoints'/'mini'
    for f in shipped().rglob('*'):
        if f.is_file(): assert (mini/f.relative_to(shipped())).read_bytes() == f.read_bytes(), f.name
    code = ("import tamers; print(tamers.__file__); "
            "print(tamers.load(device='cpu').predict(None, 'I hate you! Leave me alone!').label)")
    env = dict(os.environ, PYTHONPATH=str(tmp_path/'site'))
    out = subprocess.run([sys.executable, '-c', code], cwd=tmp_path/'site', capture_output=True, text=True, env=env)
    assert out.returncode == 0, out.stderr[-2000:]
    place, label = out.stdout.split()
    assert place.startswith(str(tmp_path)) and label == 'anger'


def test_it_is_itself_however_its_path_is_written(tmp_path, monkeypatch):
    "Its own corpus is not here, so that the demo corpus stands in, also when it is named."
    from tamers.evaluation.evaluate import corpus_of
    from tamers.evaluation.analyze import default_out
    from tamers.model.sample import load_known
    from tamers.prediction.known import write_known
    monkeypatch.chdir(shipped().parent)
    path = Path('mini')/'best.pt'
    assert corpus_of(load_checkpoint(path), path) is None
    assert default_out(path, 'test') == Path('checkpoints')/'shipped-test'
    made = write_known(path, out=tmp_path/'known.safetensors')
    assert load_known(made).source == 'dev of the demo corpus (made speech)'
