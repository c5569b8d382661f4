"Search and zero-shot: the command's lines and errors, queries of every sort, precision against a slow count."
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import soundfile as sf
import torch
import torch.nn.functional as F

from tamers.model.checkpoint import encoder_of, load_checkpoint
from tamers.config import TrainConfig
from tamers.core import EMOTIONS, TamersError
from tamers.data.corpus import Utterance
from tamers.data.demo import demo_corpus
from tamers.evaluation.search import DESCRIPTIONS, SAYINGS, SearchConfig, place, rank, search, zero_shot
from tamers.measure.space import class_retrieval, precision_at
from tamers.commands import tamers_search
from tamers.training.run import demo_head, train

HERE = dict(split='dev', device='cpu', num_workers=0)
FLAGS = ['--split', 'dev', '--device', 'cpu', '--num-workers', '0']


def find(query, **kw):
    return search(query, SearchConfig(**{**HERE, 'checkpoint': str(demo_head()), **kw}), say=lambda *_: None)


def test_the_command_prints_a_table(capsys):
    tamers_search(['Oh my God!', '--top', '3', *FLAGS, '--checkpoint', str(demo_head())])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    hits = find('Oh my God!', top=3)
    assert [line.split()[0] for line in lines[-4:]] == ['rank', '1', '2', '3']
    for line, hit in zip(lines[-3:], hits):
        u = hit.utterance
        assert u.id in line and u.text in line and str(u.audio) in line


def test_json_lines_alone(capsys):
    tamers_search(['Oh my God!', '--top', '4', '--json', *FLAGS, '--checkpoint', str(demo_head())])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r['rank'] for r in rows] == [1, 2, 3, 4]
    assert {'similarity', 'id', 'label', 'text', 'audio', 'rows'} <= rows[0].keys()
    assert rows[0]['similarity'] >= rows[3]['similarity']


@pytest.mark.parametrize('argv, message', [
    ([''], 'query: is empty'),
    (['gone.WAV'], 'no such file'),
    (['hello', '--top', '0'], '--top 0: must be at least 1'),
    (['hello', '--checkpoint', 'gone.pt'], 'gone.pt: no such checkpoint'),
])
def test_errors_are_one_line(argv, message, capsys):
    if '--checkpoint' not in argv: argv = [*argv, *FLAGS, '--checkpoint', str(demo_head())]
    with pytest.raises(SystemExit) as e: tamers_search(argv)
    err = capsys.readouterr().err
    assert e.value.code == 2 and err.startswith('error: ') and message in err and err.count('\n') == 1


def test_the_command_itself():
    code = 'from tamers.commands import tamers_search; tamers_search()'
    out = subprocess.run([sys.executable, '-c', code, '--help'], capture_output=True, text=True)
    assert out.returncode == 0 and 'QUERY' in out.stdout and '--store-path' in out.stdout


def test_sounds_that_cannot_be_read(tmp_path):
    (tmp_path/'text.wav').write_text('this is no sound')
    sf.write(tmp_path/'short.wav', torch.zeros(10).numpy(), 16_000)
    for name in ('text.wav', 'short.wav'):
        with pytest.raises(TamersError, match=name): find(str(tmp_path/name))


@pytest.mark.parametrize('query', ['x' * 5000, 'Yes/no?', 'é☃ 你好', '.', 'a\0b'],
                         ids=['long', 'slash', 'unicode', 'dot', 'zero'])
def test_any_other_string_is_a_sentence(query):
    assert len(find(query, top=2)) == 2


def test_more_than_there_is():
    "Every clip of the split is listed once, and the transcripts that are the same once."
    clips = find('hello', top=10**6)
    assert len(clips) == 252 and len({h.utterance.audio for h in clips}) == 252
    texts = find(str(clips[0].utterance.audio), top=10**6)
    assert sum(h.rows for h in texts) == 252 and len({h.utterance.text for h in texts}) == len(texts) < 252


def test_its_own_half_is_near():
    "A clip finds its own words earlier than chance would."
    ranks = []
    for clip in sorted((demo_corpus()/'dev').glob('dia1_*.wav')):
        ids = [h.utterance.id for h in find(str(clip), top=10**6)]
        ranks.append(ids.index(clip.stem) if clip.stem in ids else len(ids))
    assert sum(ranks) / len(ranks) < 40


def test_one_modality_has_no_space(tmp_path):
    run = train(TrainConfig(modality='text', epochs=1, device='cpu', num_workers=0, save_path=str(tmp_path/'run')))
    with pytest.raises(TamersError, match='trained on text alone'): find('hello', checkpoint=str(run['best']))


def test_a_clip_behind_links_is_one_clip(tmp_path):
    (tmp_path/'clip.wav').write_bytes(b'x')
    for name in 'ab': (tmp_path/f'{name}.wav').symlink_to(tmp_path/'clip.wav')
    rows = [Utterance(n, 'dev', n, 'joy', tmp_path/f'{n}.wav') for n in 'ab']
    assert [(h.utterance.id, h.rows) for h in rank(torch.tensor([0.2, 0.3]), rows, 'audio', 5)] == [('b', 2)]


def test_an_encoder_that_reads_a_context():
    "A prompt is a turn without a history."
    ckpt = load_checkpoint(demo_head())
    spec = dict(ckpt.encoders['text']['spec'], context=dict(turns=3, speakers=False, separator='\n'))
    talk = encoder_of(replace(ckpt, encoders=dict(ckpt.encoders, text=dict(ckpt.encoders['text'], spec=spec))), 'text')
    z = place(ckpt.build(), talk, ['hello', 'I am sad'])
    alone = place(ckpt.build(), encoder_of(ckpt, 'text'), ['hello', 'I am sad'])
    assert talk.context['turns'] == 3 and torch.allclose(z, alone, atol=1e-5)


def test_prompts():
    assert tuple(SAYINGS) == tuple(DESCRIPTIONS) == EMOTIONS
    for prompts in (*SAYINGS.values(), *DESCRIPTIONS.values()): assert len(set(prompts)) == len(prompts) >= 5
    ckpt = load_checkpoint(demo_head())
    model, encoder = ckpt.build(), encoder_of(ckpt, 'text')
    z = F.normalize(torch.randn(5, ckpt.model_args['shared_dim']), dim=-1)
    once, twice = (zero_shot(model, encoder, z, {'a': ['yes'] * n, 'b': ['no']}) for n in (1, 2))
    assert torch.allclose(once, twice, atol=1e-5) and not once.requires_grad
    assert torch.allclose(once.sum(1), torch.ones(5), atol=1e-5)


def slow(z_a, z_t, labels, k):
    shares = []
    for i in range(len(z_a)):
        others = sorted((j for j in range(len(z_t)) if j != i), key=lambda j: -(z_a[i] @ z_t[j]).item())
        shares.append(sum(labels[j] == labels[i] for j in others[:k]).item() / k)
    return torch.tensor(shares)


@pytest.mark.parametrize('k', (1, 3, 20))
def test_precision_against_a_slow_count(k):
    g = torch.Generator().manual_seed(k)
    z_a, z_t = F.normalize(torch.randn(2, 40, 8, generator=g), dim=-1)
    labels = torch.randint(0, 4, (40,), generator=g)
    for chunk in (7, 1024):
        found = precision_at(z_a, z_t, labels, k, chunk).float()
        assert torch.allclose(found, slow(z_a, z_t, labels, k), atol=1e-6)


def test_precision_with_ties_does_not_depend_on_the_order():
    g = torch.Generator().manual_seed(0)
    z_a, few = F.normalize(torch.randn(2, 60, 8, generator=g), dim=-1)
    z_t, labels = few[torch.randint(0, 5, (60,), generator=g)], torch.randint(0, 3, (60,), generator=g)
    order = torch.randperm(60, generator=g)
    a, b = class_retrieval(z_a, z_t, labels), class_retrieval(z_a[order], z_t[order], labels[order])
    for name in a:
        for way in a[name]: assert a[name][way] == pytest.approx(b[name][way], abs=1e-5)


def test_chance_is_what_random_vectors_reach():
    g = torch.Generator().manual_seed(0)
    z_a, z_t = F.normalize(torch.randn(2, 2000, 16, generator=g), dim=-1)
    found = class_retrieval(z_a, z_t, torch.randint(0, 4, (2000,), generator=g).clamp(max=2))
    for name, ways in found.items(): assert ways['audio_to_text'] == pytest.approx(ways['chance'], abs=0.02), name
