"What a processor cannot run is held here: which types a device is asked for, and which precision it is given."
from types import SimpleNamespace
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from tamers import runs
from tamers.encoders.precision import pick_dtype
from tamers.model.fusion import FusionOutput, Standardise
from tamers.model.losses import class_weights, Objective


class NoFloat64(TorchDispatchMode):
    "A device without double precision, as Apple's: an operation that asks for it there is refused."
    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        out = f(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.dtype == torch.float64 and x.device.type != 'cpu':
                raise TypeError(f'{f}: {x.device.type} has no float64')
        return out


@pytest.fixture
def device():
    "A device that is not there: shapes and types are followed, nothing is computed."
    with FakeTensorMode(), NoFloat64(): yield 'cuda'


def test_the_ban_bites(device):
    x = torch.ones(3, device=device)
    with pytest.raises(TypeError, match='no float64'): x.double()
    assert x.cpu().double().dtype == torch.float64


def test_standardisation_asks_for_no_float64(device):
    s = Standardise(5).to(device)
    for _ in range(2): s.update(torch.ones(8, 5, device=device))
    s.finish()
    assert s.mean.device.type == device and s.mean.dtype == torch.float32
    assert s(torch.ones(8, 5, device=device)).dtype == torch.float32


@pytest.mark.parametrize('settings', [{}, dict(classification='adjusted'), dict(classification='focal')])
def test_the_objective_asks_for_no_float64(device, settings):
    counts = torch.ones(7, dtype=torch.long, device=device)
    assert class_weights(counts, 0.5).device.type == device
    out = FusionOutput(None, None, torch.ones(4, 7, device=device))
    objective = Objective(contrastive_weight=0., class_weight_gamma=0.5, counts=counts, **settings)
    loss = objective(out, torch.ones(4, dtype=torch.long, device=device), None)['loss']
    assert loss.device.type == device and loss.dtype == torch.float32


CARDS = dict(Volta=((7, 0), 'fp16', torch.float16), Turing=((7, 5), 'fp16', torch.float16),
             Ampere=((8, 0), 'bf16', torch.bfloat16), Hopper=((9, 0), 'bf16', torch.bfloat16))


@pytest.fixture
def asked(monkeypatch):
    "What accelerate is asked for, on a device that is not there."
    monkeypatch.setattr('accelerate.Accelerator', lambda **asked: asked)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 0)
    monkeypatch.setattr(torch.cuda, '_check_bf16_tensor_supported', lambda device: True)   # it is emulated everywhere
    def on(kind, capability=None, amp=True):
        card = SimpleNamespace(major=capability and capability[0], minor=capability and capability[1])
        monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: card)
        monkeypatch.setattr(runs, 'pick_device', lambda device: torch.device(kind))
        return runs.make_accelerator(None, amp=amp)['mixed_precision']
    return on


@pytest.mark.parametrize('card', CARDS)
def test_bfloat16_where_it_is_built_in_and_not_where_it_is_emulated(asked, card):
    "Volta and Turing have none: torch emulates it, slowly, and says that it is supported."
    capability, precision, dtype = CARDS[card]
    assert asked('cuda', capability) == precision
    assert torch.cuda.is_bf16_supported()
    assert pick_dtype('cuda', 100e6) == dtype
    assert asked('cuda', capability, amp=False) == 'no'


@pytest.mark.parametrize('kind', ['mps', 'cpu'])
def test_no_mixed_precision_where_it_gains_nothing(asked, kind):
    assert asked(kind) == 'no'
    assert pick_dtype('mps', 100e6) == torch.float32
