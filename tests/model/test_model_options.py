"What the options of loss, fusion and head must keep: old checkpoints, resumption to the bit, one loss everywhere."
import csv, math
import pytest
import torch
import torch.nn.functional as F
from tamers.model.checkpoint import load_checkpoint, save_checkpoint
from tamers.config import AnalyzeConfig, TrainConfig
from tamers.core import EMOTIONS, TamersError
from tamers.data.corpus import Utterance
from tamers.data.demo import demo_corpus
from tamers.evaluation.analyze import analyze
from tamers.model.fusion import FusionModel, hide_one
from tamers.model.losses import classification_loss, contrastive_loss, identities, sigmoid_loss

from tamers.training.loop import blend
from tamers.training.watch import read_log
from tamers.training.run import demo_head, train
from tests.harness.corpora import demo_rows

ALL = dict(fusion='gated', modality_dropout=0.3, contrastive='sigmoid', classification='focal', label_smoothing=0.1,
           mixup=0.4, weight_averaging=0.8, class_weight_gamma=0.5)
DUPLICATES = dict(contrastive='duplicates', classification='adjusted')


@pytest.fixture(scope='module')
def common(tmp_path_factory):
    "Settings of short runs on a corpus of 126 training and 42 dev rows of uneven classes."
    folder, source = tmp_path_factory.mktemp('small'), demo_corpus()
    (folder/'clips').symlink_to(source)
    with open(folder/'manifest.csv', 'w', newline='') as f:
        w = csv.writer(f)
        w.writerow(['audio', 'text', 'label', 'split'])
        for split, per_class in (('train', (30, 6, 6, 20, 40, 10, 14)), ('dev', (6,)*7)):
            left = dict(zip(EMOTIONS, per_class))
            for row in demo_rows(split):
                if not left[row['Emotion']]: continue
                left[row['Emotion']] -= 1
                clip = f"clips/{split}/dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}.wav"
                w.writerow([clip, row['Utterance'], row['Emotion'], split])
    return dict(root=str(folder), audio_encoder='mini', text_encoder='mini', store_path=str(folder/'store'),
                device='cpu', num_workers=0, batch_size=21, early_stop_patience=0)


def test_a_checkpoint_gives_the_scores_of_the_published_design():
    "Worked out from its weights alone."
    c = load_checkpoint(demo_head())
    assert c.model_args['fusion'] == 'concat'
    w, g = c.model, torch.Generator().manual_seed(0)
    x = {k: torch.randn(5, c.model_args[f'{k}_dim'], generator=g) for k in ('audio', 'text')}
    def project(k):
        standard = (x[k] - w[f'{k}_input.mean']) / w[f'{k}_input.std']
        return F.normalize(F.linear(standard, w[f'{k}_projection.weight'], w[f'{k}_projection.bias']), dim=-1)
    h = torch.cat([project('audio'), project('text')], -1)
    h = F.layer_norm(h, h.shape[-1:], w['classifier.0.weight'], w['classifier.0.bias'])
    h = F.gelu(F.linear(h, w['classifier.1.weight'], w['classifier.1.bias']))
    want = F.linear(h, w['classifier.4.weight'], w['classifier.4.bias'])
    with torch.no_grad(): assert torch.allclose(c.build()(x['audio'], x['text']).logits, want, atol=1e-5)


def test_a_checkpoint_from_before_the_ideas_is_resumed(common, tmp_path):
    "It lacks the settings and arguments that came later, which means their defaults."
    train(TrainConfig(**common, epochs=3, save_path=str(tmp_path/'whole')))
    train(TrainConfig(**common, epochs=2, save_path=str(tmp_path/'half')))
    c = load_checkpoint(tmp_path/'half'/'last.pt')
    for k in ('fusion', 'modality_dropout', 'sigmoid_loss'): del c.model_args[k]
    for k in ALL:
        if k != 'class_weight_gamma': del c.config[k]
    c.config.update(audio_encoder=None, text_encoder=None)
    save_checkpoint(c, tmp_path/'half'/'last.pt')
    assert load_checkpoint(tmp_path/'half'/'last.pt').config['text_encoder'] == 'mini'
    train(TrainConfig(**common, epochs=3, load_checkpoint=str(tmp_path/'half'/'last.pt')))
    a, b = (load_checkpoint(tmp_path/n/'last.pt').model for n in ('whole', 'half'))
    assert all(torch.equal(a[k], b[k]) for k in a)
    with pytest.raises(TamersError, match='fusion: concat then, gated now'):
        train(TrainConfig(**common, epochs=4, fusion='gated', load_checkpoint=str(tmp_path/'half'/'last.pt')))


@pytest.mark.parametrize('ideas', [ALL, DUPLICATES], ids=['all', 'duplicates'])
def test_stopped_and_resumed_is_undisturbed(common, tmp_path, ideas):
    "To the bit, the averaged weights and those that training goes on with; in the middle of an epoch, too."
    often = dict(eval_frequency='step', eval_every=4)
    train(TrainConfig(**common, **ideas, **often, epochs=4, save_path=str(tmp_path/'whole')))
    train(TrainConfig(**common, **ideas, **often, epochs=2, save_path=str(tmp_path/'half')))
    train(TrainConfig(**common, **ideas, **often, epochs=4, load_checkpoint=str(tmp_path/'half'/'last.pt')))
    a, b = (load_checkpoint(tmp_path/n/'last.pt') for n in ('whole', 'half'))
    for x, y in (a.model, b.model), (a.trainer.get('weights', {}), b.trainer.get('weights', {})):
        assert all(torch.equal(x[k], y[k]) for k in x)
    assert a.trainer.get('averaged') == b.trainer.get('averaged')
    whole, half = (read_log(tmp_path/name/'metrics.jsonl')[-1] for name in ('whole', 'half'))
    assert whole['loss'] == half['loss']


def test_averaging_can_be_taken_up_and_given_up(common, tmp_path):
    base = dict(common, epochs=2, save_path=str(tmp_path/'a'))
    train(TrainConfig(**base))
    train(TrainConfig(**{**common, 'epochs': 3}, weight_averaging=0.5, load_checkpoint=str(tmp_path/'a'/'last.pt')))
    middle = load_checkpoint(tmp_path/'a'/'last.pt')
    name = 'text_projection.weight'
    assert middle.trainer['averaged'] == 6
    assert not torch.equal(middle.model[name], middle.trainer['weights'][name])
    train(TrainConfig(**{**common, 'epochs': 4}, weight_averaging=0., load_checkpoint=str(tmp_path/'a'/'last.pt')))
    train(TrainConfig(**{**common, 'epochs': 4}, save_path=str(tmp_path/'b')))
    a, b = (load_checkpoint(tmp_path/n/'last.pt') for n in 'ab')
    assert 'weights' not in a.trainer
    assert all(torch.equal(a.model[k], b.model[k]) for k in a.model), 'the average never disturbed the walk'


@pytest.mark.parametrize('ideas', [{}, ALL, DUPLICATES, dict(contrastive='supervised', modality='both')])
def test_evaluation_computes_the_loss_of_training(common, tmp_path, ideas):
    "The dev metrics in the checkpoint are those that tamers-analyze finds with it."
    best = train(TrainConfig(**common, **ideas, epochs=2, save_path=str(tmp_path/'run')))
    cfg = AnalyzeConfig(checkpoint=str(best['best']), split='dev', figures=False, device='cpu', out=str(tmp_path/'out'))
    m = analyze(cfg, say=lambda *_: None)
    for k in 'loss', 'contrastive', 'classification', 'accuracy', 'uar':
        assert m[k] == pytest.approx(best['metrics'][k], abs=1e-6), k


def test_mixup_hides_no_row_and_needs_no_store(common, tmp_path):
    "With and without a store the same mixtures are made."
    def run(store):
        return train(TrainConfig(**common, epochs=1, mixup=0.4, store=store, save_path=str(tmp_path/str(store))))
    a, b = run(True), run(False)
    assert a['metrics']['loss'] == pytest.approx(b['metrics']['loss'], abs=1e-3)


def test_mixup_blends_layers_and_vectors():
    "Every row by its own share, whatever the shape of an embedding."
    own = torch.tensor([1., .5, 0.])
    for shape in ((4,), (2, 4), (3, 4)):
        rows, partners = torch.zeros(3, *shape), torch.ones(3, *shape)
        mixed, nothing = blend((torch.cat([rows, partners]), None), own)
        assert nothing is None and mixed.shape == rows.shape
        assert torch.equal(mixed, (1 - own).view(-1, *[1] * len(shape)).expand_as(rows))


def test_clips_are_the_same_behind_links(tmp_path):
    (tmp_path/'a.wav').write_bytes(b'x')
    (tmp_path/'b.wav').symlink_to(tmp_path/'a.wav')
    u = lambda i, text, clip: Utterance(str(i), 'train', text, 'joy', clip)
    ids = identities([u(0, 'Hi', tmp_path/'a.wav'), u(1, 'Ho', tmp_path/'b.wav'), u(2, 'Hi', None), u(3, 'Ha', None)])
    words, clips = ((ids[:, None] == ids)[..., n].nonzero().tolist() for n in (0, 1))
    assert words == [[0, 0], [0, 2], [1, 1], [2, 0], [2, 2], [3, 3]]
    assert clips == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 2], [3, 3]], 'rows without one share none'


def test_sigmoid_loss_is_the_mean_of_its_pairs():
    g = torch.Generator().manual_seed(0)
    a, t = F.normalize(torch.randn(2, 6, 8, generator=g), dim=-1)
    s, b = torch.tensor(1.5), torch.tensor(-2.)
    def cost(i, j):
        score = math.exp(1.5) * (a[i] @ t[j]).item() - 2
        return math.log(1 + math.exp(-score if i == j else score))
    want = sum(cost(i, j) for i in range(6) for j in range(6)) / 6
    assert sigmoid_loss(a, t, s, b).item() == pytest.approx(want, abs=1e-4)


def test_several_positives_row_by_row():
    g = torch.Generator().manual_seed(0)
    a, t = F.normalize(torch.randn(2, 6, 8, generator=g), dim=-1)
    y = torch.tensor([0, 0, 1, 2, 1, 0])
    log_p = [(2*a @ t.T).log_softmax(1), (2*t @ a.T).log_softmax(1)]
    want = -sum(p[i, [j for j in range(6) if y[j] == y[i]]].mean() for p in log_p for i in range(6)) / 12
    assert torch.allclose(contrastive_loss(a, t, torch.tensor(math.log(2.)), y[:, None] == y), want)


def test_a_mixture_costs_what_its_parts_cost():
    g = torch.Generator().manual_seed(0)
    logits, own = torch.randn(9, 7, generator=g), torch.rand(9, generator=g)
    y, other = torch.arange(9) % 7, torch.arange(9).flip(0) % 7
    each = lambda labels, **kw: torch.stack([classification_loss(logits[i:i+1], labels[i:i+1], **kw) for i in range(9)])
    for kw in ({}, dict(gamma=2.), dict(smoothing=0.2), dict(log_prior=torch.linspace(-2, 0, 7))):
        want = (own*each(y, **kw) + (1 - own)*each(other, **kw)).mean()
        assert torch.allclose(classification_loss(logits, y, other=other, own=own, **kw), want, atol=1e-6)


def test_hiding_needs_no_rows_to_be_whole():
    a, t = hide_one(torch.ones(1000, 3), torch.ones(1000, 3), 1.)
    assert ((a + t) == 1).all(), 'at p = 1 always one of the two'
    a, t = hide_one(torch.ones(1000, 3), torch.ones(1000, 3), 0.)
    assert ((a + t) == 2).all()


@pytest.mark.parametrize('settings, words', [
    (dict(fusion='gated', modality='audio'), '--fusion gated: needs both'),
    (dict(modality_dropout=0.2, modality='text'), '--modality-dropout 0.2: needs both'),
    (dict(mixup=0.4, fusion='attention'), '--mixup 0.4: mixes one vector'),
    (dict(contrastive='simclr'), '--contrastive simclr: must be one of'),
    (dict(classification='hinge'), '--classification hinge: must be one of')])
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(TamersError, match=words): TrainConfig(**settings)


@pytest.mark.parametrize('fusion, parts', [('concat', 'classifier'), ('gated', 'classifier gate'),
                                           ('attention', 'attention classifier')])
def test_weights_keep_their_names_and_their_order(fusion, parts):
    "An optimizer that is resumed knows its weights by their order, so that of old checkpoints must stay."
    tokens = dict(audio_pooling='tokens', text_pooling='tokens', audio_rows=4, text_rows=4)
    model = FusionModel(audio_dim=6, text_dim=5, shared_dim=8, fusion=fusion, **tokens)
    order = dict.fromkeys(name.split('.')[0] for name, _ in model.named_parameters())
    projections = [f'{kind}_{part}' for kind in ('audio', 'text') for part in ('reduce', 'projection')]
    assert list(order) == ['logit_scale', *projections, *parts.split()]
