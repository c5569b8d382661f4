"The demo corpus: the same bytes everywhere, MELD's layout, and as ambiguous as claimed."
import csv, hashlib, re
from pathlib import Path
import numpy as np
import pytest
import soundfile as sf
from tamers.data import demo
from tamers.core import EMOTIONS, SPLITS, TamersError
from tamers.data.voice import VOICES

# What every machine must make, because checkpoints are trained on it. A change here needs a new DEMO_VERSION.
VERSION = '2'
DIGESTS = {'rows': '03f6d9df6e814335', 'clips': '9f29c5080cc0ac34'}


def digest(paths):
    "One hash of the content of several files."
    h = hashlib.sha256()
    for p in paths: h.update(hashlib.sha256(Path(p).read_bytes()).digest())
    return h.hexdigest()[:16]


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    "A cache with all of the demo in it."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TAMERS_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield demo.demo_corpus().parent


def read(root, split):
    with open(root/f'{split}_sent_emo.csv', encoding='utf-8', newline='') as f: return list(csv.DictReader(f))


def test_two_builds_are_identical(cache, tmp_path):
    demo.write_split(tmp_path/f'demo-corpus-{VERSION}', 'dev')
    again = {p.relative_to(tmp_path): digest([p]) for p in tmp_path.rglob('*') if p.is_file()}
    assert len(again) > sum(demo.COUNTS['dev'])
    assert again == {p: digest([cache/p]) for p in again}


def test_every_machine_makes_the_same(cache):
    root = demo.demo_corpus()
    found = dict(rows=digest(root/f'{s}_sent_emo.csv' for s in SPLITS), clips=digest(sorted(root.rglob('*.wav'))))
    assert demo.DEMO_VERSION == VERSION and found == DIGESTS


def test_layout_is_melds(cache):
    root = demo.demo_corpus()
    raw = (root/'dev_sent_emo.csv').read_bytes()
    header = b'Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime'
    assert raw.startswith(header + b'\r\n')
    assert raw.count(b'\n') == raw.count(b'\r\n') == 1 + sum(demo.COUNTS['dev'])
    for split in SPLITS:
        rows = read(root, split)
        names = [f"dia{r['Dialogue_ID']}_utt{r['Utterance_ID']}.wav" for r in rows]
        assert len(set(names)) == len(names) and set(names) == {p.name for p in (root/split).iterdir()}
        assert tuple(sum(r['Emotion'] == e for r in rows) for e in EMOTIONS) == demo.COUNTS[split]
        turns = [[r for r in rows if r['Dialogue_ID'] == d] for d in {r['Dialogue_ID'] for r in rows}]
        assert all(5 <= len(t) <= 10 and 2 <= len({r['Speaker'] for r in t}) <= 3 for t in turns)
        assert {r['Speaker'] for r in rows} == set(VOICES[split])
    assert min(demo.COUNTS['dev']) >= 25 and min(demo.COUNTS['test']) >= 25


def test_clips_are_16_khz_mono_and_as_long_as_the_times_say(cache):
    root = demo.demo_corpus()
    def seconds(clock):
        parts = re.fullmatch(r'(\d\d):(\d\d):(\d\d),(\d{3})', clock).groups()
        return sum(float(x)*k for x, k in zip(parts, (3600, 60, 1, .001)))
    for r in read(root, 'test'):
        wave, rate = sf.read(root/'test'/f"dia{r['Dialogue_ID']}_utt{r['Utterance_ID']}.wav", dtype='float32')
        assert rate == 16_000 and wave.ndim == 1 and .3 < len(wave)/rate < 5.12
        assert abs(seconds(r['EndTime']) - seconds(r['StartTime']) - len(wave)/rate) < .0011
        assert .001 < np.sqrt(np.mean(wave**2)) < .5 and np.mean(np.abs(wave) > .999) < .001
    assert sf.info(root/'test'/'dia0_utt0.wav').subtype == 'PCM_16'


def test_most_transcripts_leave_the_emotion_open(cache):
    slot = lambda m: '(?:' + '|'.join(map(re.escape, demo.SLOTS[m[1]])) + ')'
    opener = '(?:' + '|'.join(map(re.escape, demo.SLOTS['opener'])) + ')'
    def filled(template): return opener + re.sub(r'\\\{(\w+)\\\}', slot, re.escape(template))
    pattern = {names: re.compile('|'.join(map(filled, templates)), re.I) for names, templates in demo.GROUPS.items()}
    kinds = [[names for names, p in pattern.items() if p.fullmatch(r['Utterance']) and r['Emotion'] in names]
             for s in SPLITS for r in read(demo.demo_corpus(), s)]
    assert all(kinds)  # every row is a line that its emotion may say
    assert .62 < np.mean([len(k[0]) > 1 for k in kinds]) < .78
    assert .04 < np.mean([len(k[0]) == len(EMOTIONS) for k in kinds]) < .12


def test_voices_are_disjoint():
    names = [set(VOICES[s]) for s in SPLITS]
    assert len(set.union(*names)) == sum(map(len, names)) == 20


def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv('TAMERS_CACHE', str(tmp_path))
    def half(folder, split):
        (folder/'half').touch()
        raise KeyboardInterrupt
    monkeypatch.setattr(demo, 'write_split', half)
    with pytest.raises(KeyboardInterrupt): demo.demo_corpus()
    assert list((tmp_path/'demo').iterdir()) == []


def test_the_slower_of_two_builds_takes_the_other_ones(tmp_path, monkeypatch):
    monkeypatch.setenv('TAMERS_CACHE', str(tmp_path))
    first = tmp_path/'demo'/f'demo-corpus-{VERSION}'
    def overtaken(folder, split):
        (folder/'who').write_text('late')
        first.mkdir(exist_ok=True)
        (first/'who').write_text('first')
    monkeypatch.setattr(demo, 'write_split', overtaken)
    assert demo.demo_corpus() == first and (first/'who').read_text() == 'first'
    assert list((tmp_path/'demo').iterdir()) == [first]


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path/'file').touch()
    monkeypatch.setenv('TAMERS_CACHE', str(tmp_path/'file'))
    with pytest.raises(TamersError, match='cannot be written .* set TAMERS_CACHE'): demo.demo_corpus()


def test_it_is_called_what_it_is(cache):
    "What is printed of a corpus begins with the name of its folder."
    from tamers.data.load import load_corpus
    assert str(load_corpus(cache/f'demo-corpus-{VERSION}', clips=False)).startswith('demo-corpus-2')
