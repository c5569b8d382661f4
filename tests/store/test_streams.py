"Corpora of shards, URLs and clips without words, from the command to the metrics."
import contextlib, csv, json, re
from collections import Counter
import pyarrow as pa
import pytest
import torch
import transformers as tf
from tokenizers import pre_tokenizers
import tamers.store.ingest, tamers.store.shards
from tests.harness.meld_tree import KEPT, make_tree
from tests.encoders.test_encoder import MAKE
from tests.store.test_shards import fields, server, sound, write_parquet, write_tar  # noqa: F401, a fixture
from tamers import commands
from tamers.model.checkpoint import load_checkpoint
from tamers.core import EMOTIONS
from tamers.encoders.encoder import Encoder
from tamers.store.shards import read_shard
from tamers.store.store import EmbeddingStore
from tamers.store.transcripts import Transcriber
from tamers.training.watch import read_log

SIZES = dict(train=28, dev=14, test=14)
CLIPS = pa.struct(dict(bytes=pa.binary(), path=pa.string()))


def made_rows(split, **sizes):
    "(id, clip, fields) of made utterances: tones that tell the class, of several lengths."
    start = 1000 * list(SIZES).index(split)
    for i in range((SIZES | sizes)[split]):
        label = EMOTIONS[i % 7]
        yield f'{split}{i:03}', sound(150 + 90*(i % 7) + start/100 + i,
            0.2 + 0.07*(i % 5)), dict(text=f'the {label} line number {i + start}', label=label, split=split)


def members(rows, names=('text', 'label', 'split')):
    return {f'{id}.{end}': data for id, clip, row in rows
        for end, data in dict(json=fields(**{k: row[k] for k in names}), wav=clip).items()}


def table(rows, names=('text', 'label', 'split')):
    rows = list(rows)
    return dict(audio=pa.array([dict(bytes=clip, path=f'{id}.wav') for id, clip, _ in rows], CLIPS),
        **{n: [row[n] for *_, row in rows] for n in names})


def everything(): return [row for split in SIZES for row in made_rows(split)]


def write_manifest(folder, rows, names=('text', 'label', 'split')):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder/'manifest.csv', 'w', newline='') as f:
        w = csv.writer(f)
        w.writerow(['id', 'audio', *names])
        for id, clip, row in rows:
            (folder/f'{id}.wav').write_bytes(clip)
            w.writerow([id, f'{id}.wav', *(row[n] for n in names)])
    return folder


def write_folder(folder):
    "Shards whose names tell their split: two tars for train, a tar in a folder for dev, a table for test."
    train = list(made_rows('train'))
    for i, part in enumerate((train[:15], train[15:])):
        write_tar(folder/f'speech-train-{i:03}.tar', members(part, ('text', 'label')))
    write_tar(folder/'validation'/'speech.tar', members(made_rows('dev'), ('text', 'label')))
    write_parquet(folder/'test-00000-of-00001.parquet', table(made_rows('test'), ('text', 'label')))
    return folder


def forms(folder):
    "The same corpus in each form, by name: a function that writes it and gives its root."
    def classes():
        columns = table(everything())
        columns['label'] = [EMOTIONS.index(x) for x in columns['label']]
        return write_parquet(folder/'x.parquet', columns, dict(label=list(EMOTIONS)), row_group_size=11)
    return dict(tar=lambda: write_tar(folder/'x.tar', members(everything())),
        gz=lambda: write_tar(folder/'x.tar.gz', members(everything()), 'w:gz'),
                folder=lambda: write_folder(folder/'c'), parquet=classes,
                glob=lambda: write_folder(folder/'c') and str(folder/'c'/'**'/'*[rt]'))


@pytest.fixture(scope='module')
def encoders(tmp_path_factory):
    "Folders of a tiny AST and a tiny GPT-2."
    found = {}
    for kind, name in dict(audio='ast', text='gpt2').items():
        torch.manual_seed(0)
        found[kind] = tmp_path_factory.mktemp(kind)/name
        for part in MAKE[name](): part.save_pretrained(found[kind])
    return found


def train(root, folder, encoders, *flags, run='run'):
    commands.tamers_train(['--root', str(root), '--audio-encoder', str(encoders['audio']), '--text-encoder',
        str(encoders['text']), '--store-path', str(folder/'store'),
        '--save-path', str(folder/run), '--device', 'cpu', '--num-workers', '0', '--epochs', '2', '--batch-size', '14',
        *map(str, flags)])
    return load_checkpoint(folder/run/'best.pt')


def analyse(run, *flags):
    commands.tamers_analyze(['--checkpoint', str(run), '--device', 'cpu', '--num-workers', '0', '--no-figures', '--out',
        str(run/'out'), *map(str, flags)])
    return json.loads((run/'out'/'metrics.json').read_text())


@contextlib.contextmanager
def counted(monkeypatch):
    "What is opened and encoded: names of shards and kinds of encoders."
    seen, encode = Counter(), Encoder.encode
    def read(url):
        seen[url] += 1
        return read_shard(url)
    def encoded(self, batch):
        seen[self.kind] += 1
        return encode(self, batch)
    with monkeypatch.context() as m:
        for module in (tamers.store.ingest, tamers.store.shards): m.setattr(module, 'read_shard', read)
        m.setattr(Encoder, 'encode', encoded)
        yield seen


def held(folder):
    return {p: p.stat().st_mtime_ns for p in (folder/'store').rglob('*') if p.is_file() and p.suffix != '.sqlite'}


# ---- every form of a corpus is the same corpus ----

@pytest.fixture(scope='module')
def reference(tmp_path_factory, encoders):
    "A run on a manifest of files, and its metrics on test."
    folder = tmp_path_factory.mktemp('reference')
    ckpt = train(write_manifest(folder/'c', everything()), folder, encoders)
    return ckpt, analyse(folder/'run')


@pytest.mark.parametrize('form', forms(None))
def test_shards_give_what_files_give(form, tmp_path, encoders, reference, monkeypatch, capsys):
    root = forms(tmp_path)[form]()
    ckpt, m = train(root, tmp_path, encoders), analyse(tmp_path/'run')
    assert ckpt.train_counts == reference[0].train_counts == [4] * 7
    assert ckpt.metrics['n'] == 14 and ckpt.metrics['loss'] == pytest.approx(reference[0].metrics['loss'], abs=1e-3)
    assert m['n'] == 14 and m['loss'] == pytest.approx(reference[1]['loss'], abs=1e-3)
    assert m['confusion']['counts'] == reference[1]['confusion']['counts']
    before = held(tmp_path)
    with counted(monkeypatch) as seen:
        train(root, tmp_path, encoders, '--seed', 7, run='other')
        train(root, tmp_path, encoders, '--overwrite', '--load-checkpoint', tmp_path/'run'/'last.pt', '--epochs', 3)
        analyse(tmp_path/'run', '--split', 'dev')
    assert not seen, 'a new seed, a resumed run and an analysis of another split open no shard and load no encoder'
    assert held(tmp_path) == before and read_log(tmp_path/'run'/'metrics.jsonl')[-1]['epoch'] == 3


def test_a_url_is_read_once_and_needs_no_network_again(tmp_path, encoders, reference, server, monkeypatch, capsys):
    write_folder(tmp_path/'web')
    url, handler = server(tmp_path/'web')
    root = url + '/{speech-train-{000..001}.tar,validation/speech.tar,test-00000-of-00001.parquet}?token=secret'
    ckpt, m = train(root, tmp_path, encoders), analyse(tmp_path/'run')
    assert ckpt.train_counts == reference[0].train_counts and m['loss'] == pytest.approx(reference[1]['loss'], abs=1e-3)
    handler.asked.clear()
    train(root, tmp_path, encoders, '--seed', 3, run='again')
    assert {method for method, _ in handler.asked} == {'HEAD'}, 'tags alone'
    for p in (tmp_path/'web').rglob('*.*'):
        if p.is_file(): p.unlink()
    train(root, tmp_path, encoders, '--seed', 4, run='gone')
    assert all('secret' not in p.read_text(errors='ignore') for p in (tmp_path/'store'/'listings').iterdir())


def test_one_modality_reads_shards_without_words(tmp_path, encoders, capsys):
    root = write_tar(tmp_path/'x.tar', members(everything(), ('label', 'split')))
    assert list(train(root, tmp_path, encoders, '--modality', 'audio').encoders) == ['audio']
    assert analyse(tmp_path/'run')['n'] == 14
    with pytest.raises(SystemExit): train(root, tmp_path, encoders, run='both')
    err = capsys.readouterr().err
    assert 'x.tar: no usable row in train: no transcript (28)' in err and not (tmp_path/'both').exists()


# ---- EmoNet-Voice ----

BENCH = {'Elation': 16, 'Astonishment/Surprise': 13, 'Fear': 15, 'Sadness': 14, 'Impatience%20and%20Irritability': 18,
    'Contempt': 12, 'Doubt': 9, 'Shame': 6, 'Fatigue/Exhaustion': 5}
STRONG = dict(joy=16, surprise=13, fear=15, sadness=14, anger=18, disgust=12)
WEAK = STRONG | dict(neutral=9, sadness=20)


def write_bench(folder):
    "A table as EmoNet-Voice Bench has it: clips and votes; the last of each emotion was not heard by one rater."
    names = [(name, i == n) for name, n in BENCH.items() for i in range(n + 1)]
    votes = [str([{'human-1': {name: 1}}, {'human-2': {name: 0 if doubted else 2}}]) for name, doubted in names]
    clips = [dict(bytes=sound(150 + 9*i, 0.2 + 0.06*(i % 4), 'MP3', 24_000), path=f'{i}.mp3')
        for i in range(len(names))]
    return write_parquet(folder/'train-00000-of-00001.parquet', dict(audioId=pa.array(clips, CLIPS), label=votes))


def write_big(folder):
    "A tar as EmoNet-Voice Big has it: a clip and a number for each of the forty emotions."
    plain = {name: re.sub('[^a-z]+', '_', name.lower().replace('%20', ' ')) for name in BENCH}
    rows = [name for name, n in BENCH.items() for _ in range(n)] + [None] * 3       # three in which nothing is heard
    about = [{p: 3 if n == name else 0 for n, p in plain.items()} | dict(pride=0, awe=0, pain=0, language='de')
        for name in rows]
    return write_tar(folder/'big-000.tar', {f'{i:05}.{end}': data for i, row in enumerate(about)
        for end, data in dict(mp3=sound(150 + 9*i, 0.2 + 0.06*(i % 4), 'MP3', 24_000), json=fields(**row)).items()})


def rows_of(store):
    return len({key for p in store.glob('audio-*')
        for key in EmbeddingStore(store, json.loads((p/'spec.json').read_text())).index['key']})


@pytest.mark.parametrize('write', [write_bench, write_big])
def test_emonet_trains_on_sound_and_is_tried_on_meld(write, tmp_path, encoders, monkeypatch, capsys):
    root = write(tmp_path/'emonet')
    ckpt = train(root, tmp_path, encoders, '--modality', 'audio')
    out = capsys.readouterr().out
    sizes = sum(ckpt.train_counts), ckpt.metrics['n'], analyse(tmp_path/'run')['n']
    assert sum(sizes) == sum(STRONG.values()) and sizes[0] > 60 and 'dealt out by the hash of their clip' in out
    assert 'a weaker sign of its class, off by default (15)' in out
    assert rows_of(tmp_path/'store') == sum(STRONG.values()), 'rows without a class of ours are not encoded'
    weak = train(root, tmp_path, encoders, '--modality', 'audio', '--weak-labels', run='weak')
    assert weak.train_counts[EMOTIONS.index('neutral')]
    assert sum(weak.train_counts) + weak.metrics['n'] + analyse(tmp_path/'weak')['n'] == sum(WEAK.values())
    assert rows_of(tmp_path/'store') == sum(WEAK.values())
    with counted(monkeypatch) as seen: train(root, tmp_path, encoders, '--modality', 'audio', run='strong')
    assert not seen and load_checkpoint(tmp_path/'strong'/'best.pt').train_counts == ckpt.train_counts
    meld = analyse(tmp_path/'run', '--root', make_tree(tmp_path/'meld', 'extracted'), '--split', 'test')
    assert meld['n'] == sum(s == 'test' for s, _ in KEPT) and meld['per_class']['neutral']['support'] == 1


def test_emonet_is_joined_by_those_who_are_calm(tmp_path, encoders, capsys):
    write_bench(tmp_path/'c')
    calm = [(id, clip, row | dict(label='Neutral')) for id, clip, row in made_rows('train')]
    write_tar(tmp_path/'c'/'calm.tar', members(calm, ('text', 'label')))
    ckpt = train(tmp_path/'c', tmp_path, encoders, '--modality', 'audio')
    assert ckpt.train_counts[EMOTIONS.index('neutral')] > 20
    assert rows_of(tmp_path/'store') == sum(STRONG.values()) + SIZES['train']


def save_whisper(folder):
    "A Whisper of random weights, which writes nonsense in the letters of its 256 bytes."
    torch.manual_seed(0)
    marks = ['<|endoftext|>', '<|startoftranscript|>', '<|en|>', '<|transcribe|>', '<|translate|>', '<|notimestamps|>']
    vocab = {c: i for i, c in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), *marks])}
    silent = [*range(33), *range(94, 262)]
    size = dict(d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=16)
    model = tf.WhisperForConditionalGeneration(tf.WhisperConfig(**size, vocab_size=len(vocab), max_target_positions=12,
        suppress_tokens=None, begin_suppress_tokens=silent,
        pad_token_id=256, bos_token_id=256, eos_token_id=256, decoder_start_token_id=257))
    model.generation_config.update(no_timestamps_token_id=261, lang_to_id={'<|en|>': 258}, is_multilingual=True,
        max_length=12, suppress_tokens=silent, task_to_id=dict(transcribe=259, translate=260))
    for part in (model, tf.WhisperTokenizerFast(vocab=vocab, merges=[], language='en', task='transcribe',
        pad_token=marks[0]), tf.WhisperFeatureExtractor()):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope='module')
def whisper(tmp_path_factory): return save_whisper(tmp_path_factory.mktemp('whisper'))


def words_of(out):
    return {r['id']: r['text'] for r in csv.DictReader(open(out/'predictions.csv', encoding='utf-8', newline=''))}


def test_emonet_gets_words(tmp_path, encoders, whisper, monkeypatch, capsys):
    root = write_bench(tmp_path/'emonet')
    ckpt, m = train(root, tmp_path, encoders, '--transcribe', whisper, '--modality', 'both'), analyse(tmp_path/'run')
    assert list(ckpt.encoders) == ['audio', 'text']
    assert sum(ckpt.train_counts) + ckpt.metrics['n'] + m['n'] == sum(STRONG.values()) and 'recall_at_1' in m
    assert all(words_of(tmp_path/'run'/'out').values())
    with counted(monkeypatch) as seen:
        train(root, tmp_path, encoders, '--transcribe', whisper, '--seed', 5, run='again')
        monkeypatch.setattr(Transcriber, 'load', lambda t: pytest.fail('the recogniser was loaded'))
        analyse(tmp_path/'run', '--split', 'dev')
    assert not seen
    assert analyse(tmp_path/'run', '--root', make_tree(tmp_path/'meld', 'extracted'), '--split',
        'test')['n'] == sum(s == 'test' for s, _ in KEPT)


# ---- files without words ----

def test_a_manifest_without_a_column_of_text(tmp_path, encoders, whisper, monkeypatch, capsys):
    root = write_manifest(tmp_path/'c', everything(), ('label', 'split'))
    with pytest.raises(SystemExit): train(root, tmp_path, encoders)
    assert 'manifest.csv: lacks text' in capsys.readouterr().err
    train(root, tmp_path, encoders, '--modality', 'audio', run='audio')
    assert analyse(tmp_path/'audio')['n'] == 14
    train(root, tmp_path, encoders, '--transcribe', whisper)
    assert analyse(tmp_path/'run')['n'] == 14 and all(words_of(tmp_path/'run'/'out').values())
    monkeypatch.setattr(Transcriber, 'load', lambda t: pytest.fail('the recogniser was loaded'))
    with counted(monkeypatch) as seen:
        train(root, tmp_path, encoders, '--transcribe', whisper, '--seed', 5, run='again')
    assert not seen


def test_words_that_are_there_are_kept(tmp_path, encoders, whisper, capsys):
    rows = [(id, clip, row | dict(text='' if i % 2 else row['text'])) for i, (id, clip, row) in enumerate(everything())]
    train(write_manifest(tmp_path/'c', rows), tmp_path, encoders, '--transcribe', whisper)
    streamed = write_tar(tmp_path/'x.tar', members(rows))
    train(streamed, tmp_path, encoders, '--transcribe', whisper, run='streamed')
    analyse(tmp_path/'run'), analyse(tmp_path/'streamed')
    given, heard = {id: row['text'] for id, _, row in rows if row['split'] == 'test'}, words_of(tmp_path/'run'/'out')
    assert all(heard.values()) and {k: t for k, t in heard.items() if given[k]} == {k: t for k, t in given.items() if t}
    assert words_of(tmp_path/'streamed'/'out') == heard


# ---- buckets ----

def test_buckets_are_remembered_and_not_mixed_up(tmp_path, encoders, monkeypatch, capsys):
    root = write_folder(tmp_path/'c')
    whole, ckpt = train(root, tmp_path, encoders, run='whole'), train(root, tmp_path, encoders, '--audio-buckets')
    assert ckpt.encoders['audio']['spec'] == whole.encoders['audio']['spec'] | dict(bucket='64 frames')
    assert ckpt.encoders['text'] == whole.encoders['text']
    assert rows_of(tmp_path/'store') == sum(SIZES.values()), 'each has a store of its own'
    assert len(list((tmp_path/'store').glob('audio-*'))) == 2, 'each has a store of its own'
    with counted(monkeypatch) as seen:
        analyse(tmp_path/'run'), train(root, tmp_path, encoders, '--load-checkpoint', tmp_path/'run'/'last.pt',
            '--epochs', 3, '--overwrite')
    assert not seen, 'analysed and resumed with the same buckets'
    for flags in (['--load-checkpoint', tmp_path/'run'/'last.pt', '--no-audio-buckets'],
        ['--load-checkpoint', tmp_path/'whole'/'last.pt', '--audio-buckets']):
        with pytest.raises(SystemExit): train(root, tmp_path, encoders, *flags, '--epochs', 9, run='mixed')
        err = capsys.readouterr().err
        assert re.search('bucket: (64 frames then, None|None then, 64 frames) now', err), err
    with pytest.raises(SystemExit):
        train(root, tmp_path, dict(encoders, audio='mini'), '--load-checkpoint', tmp_path/'run'/'last.pt', run='mixed')
    assert 'identity' in capsys.readouterr().err and not (tmp_path/'mixed'/'best.pt').exists()
