"""Weights that are huge, tiny or kept in half precision: their squares neither overflow nor vanish."""

import pytest
import torch

import torchlasso as tl
from torchlasso.penalties.blocks import Chunks, Columns, Filters, Heads, InputChannels, Rows, SingularValues
from torchlasso.penalties.magnitudes import norms, scaled_norms

GROUPS = [Rows(), Columns(), Filters(), InputChannels(), Chunks(n=5), Heads(n=2), SingularValues()]
SCALES = [1e-38, 1e-30, 1e-20, 1e20, 1e30, 1e36]


def weights(scale: float, dtype=torch.float32) -> torch.Tensor:
    w = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    w[1] = 0.0
    return (w * scale).to(dtype)


def assert_same(ours: torch.Tensor, theirs: torch.Tensor, scale: float, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(
        ours.double() / scale, theirs / scale, rtol=tolerance, atol=tolerance, msg=lambda text: f"at {scale}: {text}"
    )


@pytest.mark.parametrize("scale", SCALES)
def test_norms_agree_with_float64(scale):
    w = weights(scale).reshape(6, 12)
    for computed in (norms(w), scaled_norms(w)):
        assert_same(computed, torch.linalg.vector_norm(w.double(), dim=1), scale)
    tiny = (w * (1 / scale) * 1e-30).requires_grad_()
    norms(tiny).sum().backward()
    unit = tiny.detach().double() / torch.linalg.vector_norm(tiny.detach().double(), dim=1, keepdim=True)
    torch.testing.assert_close(tiny.grad.double(), unit.nan_to_num(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("over", GROUPS, ids=str)
@pytest.mark.parametrize("make", [tl.L1, tl.MCP, tl.SCAD, tl.ElasticNet], ids=lambda cls: cls.__name__)
def test_penalties_of_huge_and_tiny_weights_agree_with_float64(make, over):
    penalty = make(over=over)
    for scale in SCALES:
        w, grad = weights(scale), weights(scale).flip(0)
        # the prox of most penalties then only changes by the scale
        lam, step = (0.2, 0.5 * scale) if make is tl.ElasticNet else (0.2 * scale, 0.5)
        assert_same(penalty.prox(w, lam, step), penalty.prox(w.double(), lam, step), scale)
        assert_same(penalty.prox(w, 0.0, step), w.double(), scale)
        theirs = penalty.subdiff_distance(w.double(), grad.double(), lam)
        assert_same(penalty.subdiff_distance(w, grad, lam), theirs, scale)
        assert_same(penalty.lambda_max(w), penalty.lambda_max(w.double()), scale)
        assert torch.equal(penalty.support(w), penalty.support(w.double())), scale


@pytest.mark.parametrize("over", [Rows(), Columns(), Chunks(n=4)], ids=str)
@pytest.mark.parametrize("make", [tl.L1, tl.MCP, tl.SCAD, tl.SparseGroup], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("share", [0.02, 0.3, 3.0])
def test_so_is_their_prox_in_a_metric(make, over, share):
    step = 10 ** torch.rand(6, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    penalty = make(over=over)
    at_one = penalty.prox(weights(1, torch.float64), share, step)
    for scale in SCALES:
        w, lam = weights(scale), share * scale
        ours, theirs = penalty.prox(w, lam, step.float()), penalty.prox(w.double(), lam, step.float().double())
        assert_same(ours, theirs, scale, 1e-4)
        assert_same(theirs, scale * at_one, scale, 1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("over", GROUPS, ids=str)
def test_half_precision_is_computed_in_more(over, dtype):
    for scale in (3e4, 1e-3) if dtype == torch.float16 else (1e30, 1e-30):
        w = (weights(1) / weights(1).abs().max() * scale).to(dtype)
        penalty = tl.L1(over=over)
        theirs = penalty.prox(w.double(), 0.1 * scale, 0.5)
        assert_same(penalty.prox(w, 0.1 * scale, 0.5), theirs, scale, 1e-2 if over != SingularValues() else 2e-2)
        assert_same(penalty.value(w, 0.1), penalty.value(w.double(), 0.1), scale)


@pytest.mark.parametrize("penalty", [tl.SCAD(), tl.MCP(), tl.L1(), tl.LogSum(), tl.LHalf()], ids=str)
@pytest.mark.parametrize("step", [0.1, 2.0, 50.0, 1e6])
def test_every_strength_agrees_with_float64(penalty, step):
    exponents = torch.tensor([-30, -10, 0, 10, 25], dtype=torch.float64)
    scales = (10**exponents)[:, None]
    w = (torch.tensor([1.0, -2.0, 3.7, 0.0, 8.0]) * scales).float()
    for lam in (1e-30, 1e-10, 1e10, 1e19, 1e25, 1e32):
        ours, theirs = penalty.prox(w, lam, step), penalty.prox(w.double(), lam, step)
        torch.testing.assert_close(
            ours / scales, theirs / scales, rtol=1e-4, atol=1e-4, msg=lambda text, lam=lam: f"λ = {lam}: {text}"
        )
        assert (ours.abs() <= w.abs()).all(), lam


@pytest.mark.parametrize("over", [Rows(), Columns()], ids=str)
@pytest.mark.parametrize("make", [tl.SCAD, tl.MCP], ids=lambda cls: cls.__name__)
def test_a_huge_strength_makes_zeros_of_groups_in_a_metric(make, over):
    step = torch.full((6, 4, 3), 0.5)
    for lam in (1e10, 1e25, 1e35):
        assert not make(over=over).prox(weights(1), lam, step).any()
        assert not make(over=over).prox(weights(1), lam, 0.5).any()
