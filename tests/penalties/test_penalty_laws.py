"""Laws that every registered penalty keeps over every kind of blocks, in every precision."""

import math

import pytest
import torch

import torchlasso as tl
from tests.support.pairwise import pairwise
from tests.support.penalty_laws import (
    CONVEX,
    DTYPES,
    SEPARABLE,
    SHAPE,
    TOLERANCE,
    law,
    make,
    metric,
    metric_suits,
    objective,
    weights,
)
from torchlasso.penalties import L1, MCP, LHalf, LogSum, Separable, SparseGroup, registry
from torchlasso.penalties.blocks import (
    Chunks,
    Columns,
    Elements,
    Filters,
    Heads,
    Rows,
    SingularValues,
)


@pairwise(
    name=SEPARABLE,
    step=[1e-8, 1e-3, 0.3, 1.0, 2.7, 2.9999, 3.0, 3.0001, 5.0, 100.0, 1e6, 1e12],
    lam=[1e-3, 0.5, 2.0],
)
def test_scalar_prox_beats_a_grid_at_every_step(name, step, lam):
    penalty = make(name, Elements())
    r = torch.logspace(-6, 3, 181, dtype=torch.float64)
    u = penalty.prox_phi(r, lam, step)
    assert ((u >= 0) & (u <= r)).all()
    fractions = torch.cat([torch.logspace(-9, 0, 2000, dtype=torch.float64), torch.linspace(0, 1, 2001).double()])
    grid = r[:, None] * fractions

    def cost(v, r):
        # ½(v − r)² less the constant ½r², so that large r do not drown the comparison
        return v * (v / 2 - r) / step + penalty.phi(v, lam)

    best = cost(grid, r[:, None]).min(dim=1).values
    scale = 1e-12 * (r * r / step + lam)
    assert (cost(u, r) <= best + scale).all()


@law(dtype=DTYPES, step=[0.1, 4.0])
def test_prox_beats_perturbations(name, over, dtype, step):
    penalty, z = make(name, over), weights(0, dtype)
    u = penalty.prox(z, 0.2, step)
    assert u.dtype == dtype
    assert u.shape == z.shape
    ours = objective(penalty, u, z, 0.2, step)
    generator = torch.Generator().manual_seed(1)
    for scale in (1e-4, 1e-2, 1.0):
        for _ in range(5):
            other = u.double() + scale * torch.randn(SHAPE, generator=generator, dtype=torch.float64)
            assert ours <= objective(penalty, other, z, 0.2, step) + TOLERANCE[dtype] * (1 + abs(ours))
    for other in (torch.zeros_like(z), z):
        assert ours <= objective(penalty, other, z, 0.2, step) + TOLERANCE[dtype] * (1 + abs(ours))


@law(spread=[(-3, 1), (-8, 4), (0, 8)], lam=[0.02, 0.3, 2.0])
def test_prox_under_a_metric_is_the_global_minimum(name, over, spread, lam):
    penalty, z, step = make(name, over), weights(2), metric(2, *spread)
    if not metric_suits(name, over):
        with pytest.raises(ValueError, match="per-coordinate step"):
            penalty.prox(z, lam, step)
        return
    u = penalty.prox(z, lam, step)
    assert torch.isfinite(u).all()
    ours = objective(penalty, u, z, lam, step)
    slack = 1e-9 * (1 + abs(ours))
    # Every stationary point lies on u_i = z_i v / (v + τ_i), with one v per block: replace blocks one by one. Three
    # decades below the smallest step this is as good as zero, and three above the largest one as good as z.
    low, high = spread[0] - 3, spread[1] + 3
    for v in torch.logspace(low, high, 4 * (high - low) + 1, dtype=torch.float64):
        path = z * v / (v + step)
        for mixed in (path, *(_with_block(penalty.over, u, path, g) for g in range(2 * (not over.spares)))):
            assert ours <= objective(penalty, mixed, z, lam, step) + slack
    generator = torch.Generator().manual_seed(3)
    for scale in (1e-5, 1e-2):
        other = u + scale * torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        assert ours <= objective(penalty, other, z, lam, step) + slack


def _with_block(over, u, path, g):
    rows, restore = over.rows(u)
    rows = rows.clone()
    rows[g] = over.rows(path)[0][g]
    return restore(rows)


@pytest.mark.parametrize("name", [name for name, penalty in registry().items() if penalty.convex])
def test_prox_under_a_metric_solves_ten_thousand_blocks_exactly(name):
    penalty = make(name, Chunks(n=7, weighted=False))
    generator = torch.Generator().manual_seed(4)
    z = torch.randn(70_000, generator=generator, dtype=torch.float64)
    step = 10 ** (12 * torch.rand(70_000, generator=generator, dtype=torch.float64) - 6)
    u = penalty.prox(z, 0.3, step)
    distance = penalty.subdiff_distance(u, (u - z) / step, 0.3)
    scale = torch.linalg.vector_norm((z / step).reshape(-1, 7), dim=1) + 0.3
    assert (distance / scale).max() < 1e-9


@law(dtype=[torch.float64, torch.float32])  # in bfloat16 (u − z)/step is too coarse
def test_subdifferential_distance_vanishes_at_the_prox(name, over, dtype):
    penalty, z = make(name, over), weights(5, dtype)
    steps = [0.5, metric(5).to(dtype)] if metric_suits(name, over) else [0.5]
    for step in steps:
        u = penalty.prox(z, 0.3, step)
        grad = (u - z) / step
        # a gradient computed from rounded weights is off by eps·|z|/step
        slack = (torch.finfo(dtype).eps * 100 * (z.abs() / step).max()).item() + TOLERANCE[dtype]
        distance = penalty.subdiff_distance(u, grad, 0.3)
        assert distance.shape == penalty.support(u).shape
        assert distance.max() < slack
        assert penalty.subdiff_distance(u, grad + 1.0, 0.3).max() > 0.05


@pytest.mark.parametrize("name", SEPARABLE)
def test_dphi_is_the_derivative_of_phi(name):
    penalty = make(name, Elements())
    r = torch.logspace(-3, 2, 101, dtype=torch.float64, requires_grad=True)
    for lam in (0.01, 1.0, 7.0):
        (grad,) = torch.autograd.grad(penalty.phi(r, lam).sum(), r)
        torch.testing.assert_close(penalty.dphi(r.detach(), lam), grad, rtol=1e-9, atol=1e-12)


@law(dtype=DTYPES)
def test_zero_is_stationary_from_lambda_max_on(name, over, dtype):
    penalty, grad = make(name, over), weights(6, dtype)
    zero = torch.zeros(SHAPE, dtype=dtype)
    lam_max = penalty.lambda_max(grad).item()
    if over.spares:
        assert lam_max == math.inf
        assert penalty.subdiff_distance(zero, grad, 1e6).max() > 0
        return
    if isinstance(penalty, LHalf):
        assert lam_max == 0.0
        assert penalty.subdiff_distance(zero, grad, 1e-6).max() == 0
        return
    assert penalty.subdiff_distance(zero, grad, lam_max * (1 + 1e-5)).max() == 0
    assert penalty.subdiff_distance(zero, grad, 0.99 * lam_max).max() > 0
    # and the prox agrees: a gradient step from zero returns to zero exactly
    tiny = 1e-4
    assert (penalty.prox((zero - tiny * grad).to(dtype), lam_max * 1.01, tiny) == 0).all() or isinstance(
        over, SingularValues
    )


@CONVEX
def test_convex_prox_does_not_expand(name, over):
    penalty = make(name, over)
    for seed in range(5):
        a, b = weights(seed), weights(50 + seed)
        for step in [0.7, metric(seed)] if metric_suits(name, over) else [0.7]:
            inverse = 1 / torch.as_tensor(step, dtype=torch.float64)
            before = ((a - b).square() * inverse).sum()
            after = ((penalty.prox(a, 0.4, step) - penalty.prox(b, 0.4, step)).square() * inverse).sum()
            assert after <= before * (1 + 1e-12)


@law()
def test_blocks_are_zero_from_their_lambda_on(name, over):
    penalty, w = make(name, over), weights(3)
    least = penalty.zero_from(w)
    if least is None:
        assert not isinstance(penalty, Separable) or not penalty.convex or over.spares or not over.of_weights
        return
    for i, lam in enumerate(least.flatten()):
        if not lam:  # a weight that may not be negative, and is
            continue
        for factor, zero in ((1 - 1e-9, False), (1 + 1e-9, True)):
            support = penalty.support(penalty.prox(w, float(lam) * factor, 1.0))
            assert bool(support.flatten()[i]) != zero


@pytest.mark.parametrize("name", registry())
@pytest.mark.parametrize("over", [Chunks(n=1), Rows(), Filters(), Heads(n=24)], ids=str)
def test_blocks_of_one_weight_agree_with_elements(name, over):
    w = weights(7).reshape(-1)[:24] if isinstance(over, Heads) else weights(7).reshape(-1)
    grad = torch.roll(w, 1)
    step = metric(7).reshape(-1)[: len(w)]
    one = make(name, over)
    if name == "sparse-group":
        assert torch.allclose(one.prox(w, 0.3, 0.7), L1().prox(w, 0.3, 0.7))
        assert torch.allclose(one.prox(w, 0.3, step), L1().prox(w, 0.3, step), atol=1e-12)
        return
    elements = make(name, Elements())
    torch.testing.assert_close(one.value(w, 0.3), elements.value(w, 0.3))
    torch.testing.assert_close(one.prox(w, 0.3, 0.7), elements.prox(w, 0.3, 0.7))
    torch.testing.assert_close(one.prox(w, 0.3, step), elements.prox(w, 0.3, step))
    torch.testing.assert_close(one.subdiff_distance(w, grad, 0.3), elements.subdiff_distance(w, grad, 0.3))
    torch.testing.assert_close(one.lambda_max(grad), elements.lambda_max(grad))


@law(dtype=DTYPES)
def test_identities(name, over, dtype):
    penalty, w = make(name, over), weights(8, dtype)
    w.view(-1)[:5] = 0.0
    kept = w.clone()
    steps = [0.3, 0.0, torch.tensor(0.3)]
    if metric_suits(name, over):
        steps += [metric(8).to(dtype), torch.zeros(SHAPE, dtype=dtype)]
    same = torch.equal if not isinstance(over, SingularValues) else torch.allclose
    exact = {} if same is torch.equal else {"atol": TOLERANCE[dtype]}
    zero = torch.zeros(SHAPE, dtype=dtype)
    for step in steps:
        allowed = w if over.symmetric else w.clamp_min(0)
        assert same(penalty.prox(w, 0.0, step), allowed, **exact), "λ = 0 is the identity"
        for lam in (0.0, 0.2):
            assert torch.equal(penalty.prox(zero, lam, step), zero), "zero stays zero, never NaN"
        if not torch.as_tensor(step).any():
            torch.testing.assert_close(penalty.prox(w, 0.2, step), allowed)
        u = penalty.prox(w, 1e6, step)
        assert torch.isfinite(u).all()
        if torch.as_tensor(step).all() and not (isinstance(over, SingularValues) or over.spares):
            assert (u == 0).all(), "a large λ gives exact zeros"
            assert not penalty.support(u).any()
    assert torch.equal(w, kept), "the input is unchanged"


@law()
def test_low_precision_follows_double(name, over):
    penalty = make(name, over)
    z = weights(9, torch.bfloat16)
    exact = penalty.prox(z.double(), 0.2, 0.5)
    for dtype in (torch.float32, torch.bfloat16):
        torch.testing.assert_close(
            penalty.prox(z.to(dtype), 0.2, 0.5).double(), exact, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype]
        )
    assert penalty.value(z, 0.2).item() == pytest.approx(penalty.value(z.double(), 0.2).item(), rel=1e-2)


@law()
def test_value_is_differentiable_and_finite(name, over):
    w = weights(10) if over.symmetric else weights(10).abs()
    penalty, w = make(name, over), w.requires_grad_()
    value = penalty.value(w, 0.3)
    assert value.shape == ()
    assert value > 0
    (grad,) = torch.autograd.grad(value, w)
    # −∇Ω is the only gradient at which these weights are stationary
    assert penalty.subdiff_distance(w.detach(), -grad, 0.3).max() < 1e-9


@pytest.mark.parametrize("name", registry())
def test_strength_may_differ_from_block_to_block(name):
    penalty = make(name, Rows(weighted=False))
    w, lam = weights(11), torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 1e6], dtype=torch.float64)
    for step in [0.5, metric(11)] if metric_suits(name, Rows()) else [0.5]:
        whole = penalty.prox(w, lam, step)
        for i in range(6):
            part = penalty.prox(w[i : i + 1], lam[i].item(), step if isinstance(step, float) else step[i : i + 1])
            torch.testing.assert_close(whole[i : i + 1], part)
        assert torch.equal(whole[0], w[0])
        assert (whole[5] == 0).all()


def test_sparse_group_with_extreme_ratios_is_the_lasso_and_the_group_lasso():
    w, step = weights(12), metric(12)
    for s in (0.4, step):
        torch.testing.assert_close(SparseGroup(over=Rows(), l1_ratio=1.0).prox(w, 0.3, s), L1().prox(w, 0.3, s))
        torch.testing.assert_close(
            SparseGroup(over=Rows(), l1_ratio=0.0).prox(w, 0.3, s), L1(over=Rows()).prox(w, 0.3, s)
        )


def test_nuclear_norm_prox_lowers_the_rank():
    w = weights(13)
    penalty = L1(over=SingularValues())
    u = penalty.prox(w, 1.0, 3.0)
    before = torch.linalg.svdvals(w.reshape(6, -1))
    after = torch.linalg.svdvals(u.reshape(6, -1))
    torch.testing.assert_close(after, (before - 3.0).clamp_min(0))
    assert penalty.support(u).sum() == (before > 3.0).sum() < 6


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MCP(gamma=0.0), "gamma must be a number above 0"),
        (lambda: registry()["scad"](a=2.0), "a must be a number above 2"),
        (lambda: registry()["elastic-net"](l1_ratio=1.5), "l1_ratio must be a number above 0 and at most 1"),
        (lambda: SparseGroup(l1_ratio=-0.1), "l1_ratio must be a number from 0 to 1"),
        (lambda: LogSum(theta=math.nan), "theta must be a number above 0"),
        (lambda: Heads(n=0), "n must be a whole number of at least 1"),
        (lambda: Chunks(n=2.5), "n must be a whole number of at least 1"),
        (lambda: L1(over=Heads(n=4)).value(torch.ones(6, 2), 1.0), "does not divide into"),
        (lambda: L1(over=Columns()).value(torch.ones(6), 1.0), "at least 2 dimensions"),
        (lambda: L1(over=Rows()).value(torch.ones(0, 3), 1.0), "needs a tensor with weights"),
    ],
)
def test_bad_shapes_of_penalties_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("penalty", [L1, tl.ElasticNet, MCP, tl.SCAD, SparseGroup])
@pytest.mark.parametrize("tiny", [1e-30, 3e-19, 1e-6])
def test_a_weight_with_a_step_of_zero_stays_however_small_it_is_beside_its_block(penalty, tiny):
    # a part of a unit that had no gradient in this step, such as a block of layers that was skipped
    w = torch.tensor([[2.9e-3, -1e-3, tiny, -tiny], [1.0, 2.0, tiny, 0.0]])
    step = torch.tensor([[4.9, 0.02, 0.0, 0.0], [1e-3, 1e-3, 0.0, 0.0]])
    for lam in (1e-3, 1.0, 100.0):
        u = penalty(over=Rows()).prox(w, lam, step)
        assert u.isfinite().all()
        torch.testing.assert_close(u[:, 2:], w[:, 2:], rtol=1e-6, atol=0.0)
