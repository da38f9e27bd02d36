"""Parameter groups, gradients that come and go, closures, tensor rates, fused steps and gradient scalers."""

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers

import torchlasso as tl
from tests.support.optimizers import CASES, EVERY, FUSED, STEPS, build, flat, identical, network, train


@EVERY
def test_a_group_that_is_added_later_has_its_own_penalty_and_strength(case):
    base, options = CASES[case]
    old, big, free = (nn.Parameter(torch.full((4,), 0.5)) for _ in range(3))
    optimizer = tl.proximal(base)([old], penalty=tl.L1(), lam=1e-6, **options)
    for step in range(20):
        if step == 10:
            optimizer.add_param_group({"params": [big], "penalty": tl.L1(over=tl.Chunks(n=2)), "lam": 1e4})
            optimizer.add_param_group({"params": [free], "penalty": None, "lr": 1e-4})
            assert (big == 0.5).all()
        for w in (old, big, free):
            w.grad = torch.tensor([1.0, -1.0, 1.0, -1.0])
        optimizer.step()
    assert [group["lam"] for group in optimizer.param_groups] == [1e-6, 1e4, 0.0]
    assert optimizer.penalties == [tl.L1(), tl.L1(over=tl.Chunks(n=2)), None]
    assert not big.any()
    assert old.all()
    assert free.all()
    assert (free != 0.5).all()
    assert [group["penalty"] for group in optimizer.penalised_groups()] == [tl.L1(), tl.L1(over=tl.Chunks(n=2))]


@EVERY
def test_a_parameter_without_gradient_is_left_alone(case):
    base, options = CASES[case]
    used, unused, frozen = (nn.Parameter(torch.full((3,), 0.5)) for _ in range(3))
    frozen.requires_grad_(False)
    optimizer = tl.proximal(base)([used, unused, frozen], penalty=tl.L1(), lam=1e4, **options)
    for _ in range(3):
        optimizer.zero_grad()
        used.square().sum().backward()
        optimizer.step()
    assert not used.any()
    assert (unused == 0.5).all()
    assert (frozen == 0.5).all()
    with torch.no_grad():
        used.fill_(0.5)
    optimizer.zero_grad(set_to_none=True)
    optimizer.step()
    assert (used == 0.5).all(), "gradients were set to None: the prox has nothing to follow"
    used.grad = torch.zeros(3)
    optimizer.step()
    assert not used.any(), "a gradient of zero is one"


@EVERY
def test_closure_is_evaluated_once_at_the_sparse_weights_with_gradients(case):
    base, options = CASES[case]
    w = nn.Parameter(torch.tensor([2.0, 1e-3]))
    optimizer = tl.proximal(base)([w], penalty=tl.L1(), lam=0.05, averaging=True, **options)
    seen = []

    def closure():
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = (w[0] - 2.0).square() + 1e-3 * w.sum()
        loss.backward()
        seen.append((w.tolist(), loss))
        return loss

    w.grad = torch.tensor([1.0, 1e-3])
    assert optimizer.step() is None
    for _ in range(4):
        before, count = w.tolist(), len(seen)
        with torch.no_grad():
            returned = optimizer.step(closure)
        assert len(seen) == count + 1
        assert seen[-1][0] == before
        assert returned is seen[-1][1]
    assert seen[-1][0][1] == 0.0
    assert w[0] > 0


@EVERY
def test_a_tensor_rate_is_a_rate(case):
    ours, theirs = network(), network()
    rate = 2.0**-6  # exact in float32
    for model, lr in ((ours, torch.tensor(rate)), (theirs, rate)):
        optimizer = build(case, model, lr=lr, foreach=False)
        train(model, optimizer, scheduler=schedulers.ExponentialLR(optimizer, 0.95))
        assert isinstance(optimizer.param_groups[0]["lr"], type(lr))
    assert torch.equal(flat(ours) == 0, flat(theirs) == 0)
    torch.testing.assert_close(flat(ours), flat(theirs), rtol=1e-4, atol=1e-5)
    assert (flat(ours) == 0).any()


@EVERY
def test_zeros_are_exact_and_only_where_the_penalty_is(case):
    penalised, alone = network(), network()
    optimizers = build(case, penalised, lam=100.0), build(case, alone, lam=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        for p, q in zip(penalised.parameters(), alone.parameters(), strict=True):
            p.grad = q.grad = torch.randn(p.shape, generator=generator)
        for optimizer in optimizers:
            optimizer.step()
    for layer, free in ((penalised[0], alone[0]), (penalised[2], alone[2])):
        assert not layer.weight.any()
        assert not torch.signbit(layer.weight).any(), "no −0.0"
        assert free.weight.all()
        assert torch.equal(layer.bias, free.bias)
        assert layer.bias.all()


@EVERY
def test_maximizing_the_negative_is_minimizing(case):
    ours, theirs = network(), network()
    train(ours, build(case, ours, maximize=True), sign=-1.0)
    train(theirs, build(case, theirs))
    assert identical(ours, theirs)
    assert (flat(ours) == 0).any()


@pytest.mark.parametrize("case", FUSED)
def test_fused_is_the_same_update(case):
    ours, theirs = network(), network()
    train(ours, build(case, ours, fused=True))
    train(theirs, build(case, theirs))
    torch.testing.assert_close(flat(ours), flat(theirs), rtol=1e-3, atol=1e-4)
    assert torch.equal(flat(ours) == 0, flat(theirs) == 0)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("case", FUSED)
def test_a_step_that_the_gradient_scaler_skips_changes_nothing(case, fused):
    base, options = CASES[case]
    w = nn.Parameter(torch.full((3,), 0.5))
    optimizer = tl.proximal(base)([w], penalty=tl.L1(), lam=0.1, **options, **({"fused": True} if fused else {}))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale((w * float("inf")).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert (w == 0.5).all()


@pytest.mark.parametrize("case", FUSED)
def test_a_fused_step_with_scaled_gradients_is_the_step_without(case):
    base, options = CASES[case]
    results = []
    for scale in (None, 1024.0):
        w = nn.Parameter(torch.tensor([0.5, -0.25, 1e-3]))
        optimizer = tl.proximal(base)([w], penalty=tl.L1(), lam=0.1, fused=True, **options)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        for _ in range(5):
            optimizer.zero_grad()
            scaler.scale((w - 0.2).square().sum()).backward()
            scaler.step(optimizer)
            scaler.update()
        results.append(w.detach())
    torch.testing.assert_close(*results)
