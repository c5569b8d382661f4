"Several processes must take the very step that one process takes on the joined batch."
import os
import socket
import pytest
import torch
import torch.multiprocessing as mp
from tamers.config import TrainConfig, to_flags
from tamers.runs import launch_processes
from tamers.model.checkpoint import load_checkpoint
from tamers.training.run import train
from tamers.training.watch import read_log


def made_batch():
    g = torch.Generator().manual_seed(1)
    return torch.randn(48, 12, generator=g), torch.randn(48, 10, generator=g), torch.randint(0, 7, (48,), generator=g)


VARIANTS = {
    'default': ({}, {}),
    'weights': (dict(class_weight_gamma=1.), {}),
    'duplicates': (dict(contrastive='duplicates'), {}),
    'supervised': (dict(contrastive='supervised', classification='focal', label_smoothing=0.1), {}),
    'sigmoid': (dict(contrastive='sigmoid', classification='adjusted'), dict(sigmoid_loss=True)),
    'gated': ({}, dict(fusion='gated')),
    'mixup': (dict(class_weight_gamma=1.), {}),
}


def gradients(rank: int, world: int, parts: int, port: int, out: str):
    "One process of a step: its gradients, of every variant, go into the file `out`."
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.set_num_threads(1)
    from accelerate import Accelerator
    from tamers.training.step import param_groups, train_step
    from tamers.model.fusion import FusionModel
    from tamers.model.losses import Objective
    acc, found = Accelerator(cpu=True), {}
    whole = (*made_batch(), torch.arange(96).view(48, 2) % 11, torch.linspace(0.5, 1, 48))
    a, t, y, ids, own = (x.tensor_split(world)[rank] for x in whole)
    extras = dict(duplicates=dict(ids=ids), mixup=dict(other=(y + 3) % 7, own=own))
    for name, (loss, shape) in VARIANTS.items():
        torch.manual_seed(0)
        model = FusionModel(audio_dim=12, text_dim=10, shared_dim=8, dropout=0., **shape)
        train_step(model, torch.optim.SGD(param_groups(model, 0.), lr=0.), list(zip(a.chunk(parts), t.chunk(parts))), y,
            accelerator=acc, objective=Objective(**loss, counts=torch.arange(3, 10)), extra=extras.get(name, {}))
        found.update({f'{name} {k}': p.grad for k, p in model.named_parameters()})
    torch.save(found, f'{out}/{world}-{parts}-{rank}.pt')
    if world > 1: torch.distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


@pytest.mark.parametrize('world, parts', [(2, 1), (4, 1), (2, 3)])
def test_gradients_equal_one_process(tmp_path, world, parts):
    for n, p in ((1, 1), (world, parts)): mp.spawn(gradients, (n, p, free_port(), str(tmp_path)), nprocs=n)
    want = torch.load(tmp_path/'1-1-0.pt')
    assert {k.split()[0] for k in want} == set(VARIANTS)
    assert all(g.abs().max() > 0 for k, g in want.items() if 'logit_scale' in k)
    for rank in range(world):
        got = torch.load(tmp_path/f'{world}-{parts}-{rank}.pt')
        for k in want: assert torch.allclose(got[k], want[k], atol=1e-5), k


IDEAS = dict(mixup=0.4, contrastive='duplicates', weight_averaging=0.8, fusion='gated', classification='focal')


@pytest.mark.parametrize('ideas', [{}, IDEAS], ids=['default', 'ideas'])
def test_use_multi_gpu_trains_as_one_process(tmp_path, capfd, ideas):
    "Two gloo processes with batches of 20 end where one process with batches of 40 ends, and write one log."
    common = dict(root=None, device='cpu', epochs=2, fusion_dropout=0., num_workers=0, early_stop_patience=0, **ideas)
    paths = {n: dict(save_path=str(tmp_path/n), store_path=str(tmp_path/f'store of {n}')) for n in ('one', 'two')}
    one = train(TrainConfig(batch_size=40, **paths['one'], **common))
    # the second store is empty, so the two processes share the encoding as well
    two = TrainConfig(batch_size=20, use_multi_gpu=True, **paths['two'], **common)
    assert launch_processes(to_flags(two), 2) == 0, capfd.readouterr().err
    a, b = (load_checkpoint(p).model for p in (one['last'], tmp_path/'two'/'last.pt'))
    for k in a: assert torch.allclose(a[k], b[k], atol=1e-4), k
    rows = read_log(tmp_path/'two'/'metrics.jsonl')
    assert [r['epoch'] for r in rows if r['event'] == 'eval'] == [1, 2]
    assert rows[-1]['accuracy'] == pytest.approx(one['metrics']['accuracy'], abs=0.02)
