"""The linear layer that may go to another library: the same numbers and gradients, whatever comes in."""
import copy, pickle
import pytest
import torch
import torch.nn.functional as F
from tamers.encoders.precision import LEAST, Linear, linear, wide

K, N = 256, 96
LAYOUTS = dict(
    plain=lambda: torch.randn(128, K), tokens=lambda: torch.randn(4, 32, K), transposed=lambda: torch.randn(K, 128).T,
    every_second=lambda: torch.randn(256, K)[::2], a_slice=lambda: torch.randn(4, 40, K)[:, :32],
    matrices_transposed=lambda: torch.randn(4, K, 32).mT, one_row_for_all=lambda: torch.randn(1, K).expand(128, K),
    windows=lambda: torch.randn(127 + K).unfold(0, K, 1))
WEIGHTS = dict(plain=lambda: torch.randn(N, K), transposed=lambda: torch.randn(K, N).T,
               every_second=lambda: torch.randn(2 * N, K)[::2])


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('weight', WEIGHTS)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_output_and_gradients_in_any_layout(layout, weight, bias):
    torch.manual_seed(0)
    inputs = [LAYOUTS[layout](), WEIGHTS[weight](), *([torch.randn(N)] if bias else [])]
    assert inputs[0].numel() * N >= LEAST
    def told(f, dtype):
        leaves = [t.detach().to(dtype).requires_grad_() for t in inputs]   # the same layout
        y = f(*leaves)
        g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
        return [y.detach(), *torch.autograd.grad(y, leaves, g)]
    for ours, truth in zip(told(linear, torch.float32), told(F.linear, torch.float64)):
        assert (ours - truth).norm() <= 2e-6 * truth.norm()


def test_the_gradient_of_a_gradient():
    torch.manual_seed(0)
    x, w = torch.randn(128, K), torch.randn(N, K)
    def second(f):
        x_, w_ = x.clone().requires_grad_(), w.clone().requires_grad_()
        first, = torch.autograd.grad(f(x_, w_).pow(3).mean(), x_, create_graph=True)
        return torch.autograd.grad(first.square().sum(), w_)[0]
    torch.testing.assert_close(second(linear), second(F.linear), rtol=1e-2, atol=1e-4)


def test_it_is_used_where_it_should_be(monkeypatch):
    import tamers.encoders.precision as precision
    used, real = [], precision.product
    monkeypatch.setattr(precision, 'product', lambda *args: used.append(args) or real(*args))
    layer = Linear(K, N)
    layer(torch.randn(128, K))
    assert bool(used) == wide()
    used.clear()
    layer(torch.randn(2, K)), layer(torch.zeros(0, K)), layer.double()(torch.randn(128, K).double())
    with torch.autocast('cpu', torch.bfloat16): layer.float()(torch.randn(128, K))
    assert not used


def test_a_layer_is_copied_and_pickled_as_torchs_own():
    layer, x = Linear(K, N), torch.randn(128, K)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with torch.no_grad(): other.weight.zero_()
        assert (other(x) == other.bias).all() and not (layer(x) == layer.bias).all()
    plain = torch.nn.Linear(K, N)
    plain.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x), plain(x), rtol=0, atol=1e-4)
