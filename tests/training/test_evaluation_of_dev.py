"What dev says does not hang on how it is read: batch size, order of the corpus, dropout, a device."
import pytest
import torch
from accelerate import Accelerator
from tamers.config import TrainConfig
from tamers.model.fusion import FusionModel
from tamers.model.losses import Objective
from tamers.store.features import Split, StoredFeatures
from tamers.training import run as training
from tamers.training.batches import balanced_batches
from tamers.training.loop import Trainer
from tamers.training.step import evaluate, param_groups, train_step
from tamers.training.watch import BestScore, Plateau


def made(n=150):
    torch.manual_seed(0)
    x = torch.randn(2, n, 6)
    return FusionModel(audio_dim=6, text_dim=6, shared_dim=4), StoredFeatures(*x), torch.arange(n) % 7


def test_the_loss_does_not_hang_on_the_batch_size():
    "InfoNCE of 150 rows at once is ln 150 for a model that knows nothing, and ln 16 in sixteens."
    model, x, y = made()
    weighted = Objective(class_weight_gamma=1., counts=torch.arange(1, 8))
    losses = [evaluate(model, x, y, batch_size=size, objective=weighted).metrics for size in (16, 64, 128, 150)]
    for k in 'loss', 'contrastive', 'classification':
        assert [m[k] for m in losses] == pytest.approx([losses[0][k]] * 4, rel=1e-6)


@pytest.mark.parametrize('shuffle', [False, True])
def test_some_batches_are_drawn_over_the_whole_split(shuffle, monkeypatch):
    model, x, y = made(1000)
    split = Split([None] * 1000, x, y)
    t = Trainer(model=model, optimizer=None, plateau=Plateau(2, 1e-3, .5, 1e-6, 2., .1), best=BestScore(0, 0.),
                train=split, dev=split, accelerator=Accelerator(cpu=True), batch_size=16)
    seen = []
    ask = StoredFeatures.batches
    def spied(self, plan):
        plan = list(plan)
        seen.extend(torch.cat(plan).tolist())
        return ask(self, plan)
    monkeypatch.setattr(StoredFeatures, 'batches', spied)
    assert t.score(split, batches=2, shuffle=shuffle)['n'] == 32
    assert len(set(seen)) == 32 and min(seen) < 200 and max(seen) > 800


def test_classes_are_drawn_evenly_however_many_rows_there_are():
    "torch.multinomial takes at most 2^24 rows."
    labels = torch.zeros(2**24 + 1, dtype=torch.long)
    labels[7:10] = 3
    drawn = torch.cat(balanced_batches(labels, 2**22, torch.Generator().manual_seed(0)))
    rare = drawn[labels[drawn] == 3]
    assert len(rare) / len(drawn) == pytest.approx(.5, abs=.01) and set(rare.tolist()) == {7, 8, 9}
    assert drawn.max() > 2**24 - 100


def test_nearly_everything_may_be_dropped():
    torch.manual_seed(0)
    model = FusionModel(audio_dim=6, text_dim=6, shared_dim=4, dropout=.999)
    opt = torch.optim.AdamW(param_groups(model, .01), lr=1e-3)
    for i in range(50):
        out = train_step(model, opt, [tuple(torch.randn(2, 64, 6))], torch.arange(64) % 7,
                         accelerator=Accelerator(cpu=True), seed=i)
        assert all(v.isfinite().all() for v in out.values())


def test_a_cpu_run_pins_no_memory(monkeypatch):
    "Pinned memory opens a CUDA context, which a run on the CPU has no business with."
    seen = []
    class Seen(Exception): pass
    def spied(reader, *_, **__):
        seen.append(reader.workers.pin_memory)
        raise Seen
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(training, 'read_splits', spied)
    with pytest.raises(Seen): training.train(TrainConfig(device='cpu', save_path=None))
    assert seen == [False] and TrainConfig().pin_memory
