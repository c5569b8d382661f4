"A row that a batch holds twice is no rival of itself."
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from tamers.model.fusion import FusionModel, FusionOutput
from tamers.model.losses import align, Objective
from tamers.store.features import Split
from tamers.training import loop
from tamers.training.step import param_groups
from tamers.training.watch import BestScore, Plateau
from tests.training.test_evaluation_of_dev import made


def out_of(rows):
    g = torch.Generator().manual_seed(0)
    z_a, z_t = (F.normalize(torch.randn(5, 8, generator=g), dim=-1)[rows] for _ in range(2))
    return FusionOutput(z_a, z_t, torch.zeros(len(rows), 7))


def by_hand(z_a, z_t, scale, rows, sigmoid=None):
    "Pair by pair; what is one row is left out."
    total, n = 0., len(rows)
    for i in range(n):
        others = [j for j in range(n) if j == i or rows[j] != rows[i]]
        if sigmoid is not None:
            total -= sum(F.logsigmoid((1 if j == i else -1) * (scale * z_a[i] @ z_t[j] + sigmoid)) for j in others)
            continue
        for x, y in ((z_a, z_t), (z_t, z_a)):
            s = torch.stack([scale * x[i] @ y[j] for j in others])
            total -= (scale * x[i] @ y[i] - s.logsumexp(0)) / 2
    return total / n


@pytest.mark.parametrize('kind', ['infonce', 'sigmoid'])
def test_the_loss_leaves_out_a_row_and_its_repeats(kind):
    rows = torch.tensor([0, 3, 0, 2, 3, 3, 1])
    model, out = FusionModel(audio_dim=4, text_dim=4, shared_dim=8, sigmoid_loss=kind == 'sigmoid'), out_of(rows)
    bias = model.logit_bias.detach() if kind == 'sigmoid' else None
    expected = by_hand(out.z_a, out.z_t, model.logit_scale.exp(), rows.tolist(), bias)
    assert align(kind, out, None, model, rows=rows).item() == pytest.approx(expected.item(), rel=1e-5)
    assert align(kind, out, None, model).item() > expected.item() + 1e-3


def test_a_row_is_among_the_positives_of_its_repeats():
    rows = torch.tensor([0, 3, 0, 2])
    model, labels = FusionModel(audio_dim=4, text_dim=4, shared_dim=8), torch.tensor([1, 2, 1, 2])
    with_rows = align('supervised', out_of(rows), labels, model, rows=rows)
    assert with_rows == align('supervised', out_of(rows), labels, model) and with_rows.isfinite()


@pytest.mark.parametrize('sampler', ['shuffle', 'weighted', 'interleaved'])
def test_the_loop_tells_which_rows_come_twice(sampler, monkeypatch):
    model, x, y = made(60)
    split, seen = Split([None] * 60, x, y), []
    t = loop.Trainer(model=model, optimizer=torch.optim.AdamW(param_groups(model, .01)), train=split, dev=split,
                     plateau=Plateau(2, 1e-3, .5, 1e-6, 2., .1), best=BestScore(0, 0.),
                     accelerator=Accelerator(cpu=True), batch_size=30, sampler=sampler)
    call = Objective.__call__
    monkeypatch.setattr(Objective, '__call__', lambda *a, **kw: seen.append(kw.get('rows')) or call(*a, **kw))
    plan = t.plan()
    for _ in t.steps(): pass
    if sampler == 'shuffle': assert seen == [None, None]
    else: assert all(torch.equal(a, b) for a, b in zip(seen, plan, strict=True))
