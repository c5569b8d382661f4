"""What is measured on: made speech of MELD's lengths, encoders with random weights, corpora and stores. No download."""
from __future__ import annotations
import csv, struct
from functools import cached_property
from pathlib import Path
import numpy as np
import soundfile as sf
import torch
from scipy.stats import norm
from tamers.core import EMOTIONS, sha256
from tamers.data.audio import SAMPLE_RATE
from tamers.data.demo import write_line
from tamers.store.store import EmbeddingStore
from tamers.data.voice import VOICES, express, generator, pick, speak

MELD = dict(train=9_989, dev=1_109, test=2_610)
END = '<|endoftext|>'


def durations(n: int, seed: int = 0) -> np.ndarray:
    """Seconds of `n` clips as in MELD (median 2.5, mean 3.1, 95 % under 7.7): the quantiles of a lognormal,
    shuffled, so that few clips stand for many."""
    return np.random.default_rng(seed).permutation(2.5 * np.exp(0.68 * norm.ppf((np.arange(n) + 0.5) / n)))


def utterance(seconds: float, rng) -> tuple[str, np.ndarray]:
    "One voice in one emotion reads lines until the time is over: the text, and the wave at 16 kHz."
    emotion, voice = pick(rng, EMOTIONS), pick(rng, [v for split in VOICES.values() for v in split.values()])
    lines, waves = [], []
    while sum(map(len, waves)) < seconds * SAMPLE_RATE:
        lines.append(write_line(emotion, rng))
        waves.append(speak(lines[-1], express(emotion, rng), voice, rng))
    return ' '.join(lines), np.concatenate(waves)[:round(seconds * SAMPLE_RATE)].astype(np.float32)


def speech(n: int, seed: int = 0) -> list[tuple[str, np.ndarray]]:
    "`n` utterances of MELD's lengths."
    rng = generator(seed, 77)
    return [utterance(s, rng) for s in durations(n, seed)]


def write_manifest(folder: Path, rows: list) -> Path:
    "A corpus of (clip, text, split)."
    with open(folder/'manifest.csv', 'w', newline='', encoding='utf-8') as f:
        out = csv.writer(f)
        out.writerow(('audio', 'text', 'label', 'split'))
        out.writerows((clip, text, EMOTIONS[i % 7], split) for i, (clip, text, split) in enumerate(rows))
    return folder


def spoken_corpus(folder: Path, n: int) -> Path:
    "`n` rows of train and one of dev, as wav files."
    folder.mkdir(parents=True)
    rows = []
    for i, (text, wave) in enumerate([*speech(n), *speech(1, 1)]):
        sf.write(folder/f'{i}.wav', wave, SAMPLE_RATE, subtype='PCM_16')
        rows.append((f'{i}.wav', f'{text} {i}', 'train' if i < n else 'dev'))
    return write_manifest(folder, rows)


def noise_corpus(folder: Path, splits: dict[str, int], samples: int = 1600) -> Path:
    "Rows whose clips are a tenth of a second of noise, each another: quick to write in any number."
    folder.mkdir(parents=True)
    size, rng, rows = 2 * samples, np.random.default_rng(0), []
    head = struct.pack('<4sI4s4sIHHIIHH4sI', b'RIFF', 36 + size, b'WAVE', b'fmt ', 16, 1, 1, SAMPLE_RATE,
        2 * SAMPLE_RATE, 2, 16,
        b'data', size)
    for split, n in splits.items():
        for i in range(n):
            (folder/f'{split}{i}.wav').write_bytes(head + rng.bytes(size))
            rows.append((f'{split}{i}.wav', f'made line {i} of {split}, about as long as a turn of a dialogue', split))
    return write_manifest(folder, rows)


def save_encoders(folder: Path, tiny: bool) -> tuple[str, str]:
    """An AST and a GPT-2 with random weights in the hub's format, of the published sizes (AST base, GPT-2 small) or
    tiny."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel, GPT2Config, GPT2Model, PreTrainedTokenizerFast
    ast = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_length=32) if tiny else {}
    gpt = dict(n_embd=16, n_layer=1, n_head=2, n_positions=64) if tiny else {}
    rng, bpe = generator(5), Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.train_from_iterator([write_line(pick(rng, EMOTIONS), rng) for _ in range(2000)], trainers.BpeTrainer(
        vocab_size=2000, special_tokens=[END], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False))
    torch.manual_seed(0)
    ASTModel(ASTConfig(**ast)).save_pretrained(folder/'ast')
    ASTFeatureExtractor(max_length=ast.get('max_length', 1024)).save_pretrained(folder/'ast')
    GPT2Model(GPT2Config(**gpt, bos_token_id=0, eos_token_id=0)).save_pretrained(folder/'gpt2')
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, bos_token=END, pad_token=END,
        model_max_length=gpt.get('n_positions', 1024)).save_pretrained(folder/'gpt2')
    return str(folder/'ast'), str(folder/'gpt2')


def fill_store(store: EmbeddingStore, keys: list[str], dim: int, shard: int = 500) -> None:
    "Made embeddings for `keys`, as if they had been encoded."
    g = torch.Generator().manual_seed(len(store.folder.name))
    for i in range(0, len(keys), shard):
        part = keys[i:i + shard]
        store.add(part, torch.randn(len(part), dim, generator=g), torch.zeros(len(part), dtype=torch.bool))
    store.reload()


class Made:
    """What several benchmarks share, made when it is first asked for; `loop`: seconds an utterance of the plain
    loop, once measured."""
    def __init__(self, folder: Path, quick: bool):
        self.folder, self.quick, self.cache, self.loop = folder, quick, folder/'cache', None

    @cached_property
    def encoders(self) -> tuple[str, str]: return save_encoders(self.folder/'encoders', tiny=self.quick)
    @cached_property
    def tiny(self) -> tuple[str, str]: return save_encoders(self.folder/'tiny', tiny=True)
    @cached_property
    def spoken(self) -> Path: return spoken_corpus(self.folder/'spoken', 8 if self.quick else 64)

    @cached_property
    def stored(self) -> dict:
        "A corpus of MELD's size with a complete store: the flags of a run on it."
        from tamers.encoders.encoder import make_encoders
        from tamers.data.files import open_corpus
        from tamers.data.files import FileIndex
        splits = {s: n // (100 if self.quick else 1) for s, n in MELD.items()}
        root, store = noise_corpus(self.folder/'stored', splits), self.folder/'store'
        corpus = open_corpus(str(root), FileIndex(self.folder/'unused.sqlite', lambda path: 0.1))
        for kind, e in make_encoders(*self.encoders).items():
            keys = [u.sha if kind == 'audio' else sha256(u.text) for u in corpus.utterances]
            fill_store(EmbeddingStore(store, e.spec), keys, e.source.config.hidden_size)
        return dict(root=str(root), store_path=str(store), audio_encoder=self.encoders[0],
            text_encoder=self.encoders[1], device='cpu')
