"""The factors on the λ of a group: ``lam_scales``, one for each parameter, and ``weights``, one for each block.

Every way of computing a step has to do what the reference does with λ multiplied by hand, in groups of their own.
"""

import copy

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.implementations import (
    EACH,
    FEW,
    FEW_NAMES,
    IMPLEMENTATIONS,
    assert_alike,
)
from tests.support.pairwise import pairwise
from tests.support.weighted_steps import (
    PENALTIES,
    SHAPES,
    STEPS,
    factors,
    flat,
    make,
    parameters,
    run,
    scaled,
    scaled_by_hand,
    weighted,
    weighted_by_hand,
)
from torchlasso.optim.fused import device

# --- steps ---


@pairwise(case=FEW_NAMES, implementation=IMPLEMENTATIONS, kind=PENALTIES)
def test_scales_are_as_lam_of_groups_of_their_own(case, implementation, kind):
    expected = scaled_by_hand(case, kind)
    assert_alike(scaled(case, kind, implementation), expected)
    assert 0 < (expected == 0).sum() < len(expected)


@EACH
@FEW
def test_scales_stay_with_their_parameters_where_some_have_no_gradient(case, implementation):
    assert_alike(scaled(case, "rows", implementation, silent=True), scaled_by_hand(case, "rows", silent=True))


@pairwise(
    case=FEW_NAMES,
    implementation=IMPLEMENTATIONS,
    weighed=[("elements", (0, 2)), ("elements", (0, 1, 2)), ("MCP", (0, 1, 2)), ("rows", (0, 2))],
)
def test_weights_are_as_lam_of_blocks_of_their_own(case, implementation, weighed):
    kind, weigh = weighed
    expected = weighted_by_hand(case, kind, weigh)
    assert_alike(weighted(case, kind, implementation, weigh), expected)
    assert 0 < (expected == 0).sum() < len(expected)


@pairwise(case=FEW_NAMES, implementation=IMPLEMENTATIONS, kind=["elements", "rows"])
def test_scales_and_weights_multiply(case, implementation, kind):
    expected = weighted_by_hand(case, kind, scaling=True)
    assert_alike(weighted(case, kind, implementation, scaling=True), expected)
    assert (expected == 0).any()


@pytest.mark.parametrize("layout", ["alike", "contiguous", "expanded"])
@FEW
def test_weights_lie_in_memory_as_they_like(case, layout):
    def change(step):
        for i, w in enumerate(ws):
            weights = factors("elements", w, i, step)
            if layout == "alike":
                weights = torch.empty_like(w).copy_(weights)
            optimizer.weights[w] = weights[:1].expand_as(weights) if layout == "expanded" else weights

    results = []
    for implementation in ("fused", "one by one"):
        generator = torch.Generator().manual_seed(0)
        several = [torch.randn(shape, generator=generator, dtype=torch.float64) / 8 for shape in [(6, 5), (4, 3, 2, 2)]]
        ws = [nn.Parameter(several[0].t()), nn.Parameter(several[1].to(memory_format=torch.channels_last))]
        optimizer = make(case, ws, "elements", implementation)
        results.append(run(optimizer, ws, change))
    assert_alike(*results)
    assert (results[0] == 0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@FEW
def test_weights_in_other_precisions(case, dtype):
    def change(step):
        for i, w in enumerate(ws):
            optimizer.weights[w] = factors("elements", w, i, step).to(torch.float32)

    results = []
    for implementation in ("fused", "one by one"):
        ws = [nn.Parameter(w.detach().to(dtype)) for w in parameters()]
        optimizer = make(case, ws, "elements", implementation)
        results.append(run(optimizer, ws, change))
    close = {"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.01}
    torch.testing.assert_close(*results, **close)
    assert (results[0] == 0).any()
    assert ((results[0] == 0) != (results[1] == 0)).sum() <= 1


@EACH
@FEW
def test_a_scale_of_zero_means_no_penalty(case, implementation):
    results = []
    for by_hand in (False, True):
        ws = parameters()
        groups = [{"params": ws[:1]}, {"params": ws[1:], "penalty": None}] if by_hand else ws
        optimizer = make(case, groups, "elements", implementation)
        if not by_hand:
            optimizer.param_groups[0]["lam_scales"] = [1.0, 0.0, 0.0]
        run(optimizer, ws, lambda step: None)
        results.append(flat(ws))
        assert (ws[0] == 0).any()
        assert ws[1].all()
        assert ws[2].all()
    assert_alike(*results)


@EACH
@FEW
def test_scales_of_one_and_weights_of_one_change_nothing(case, implementation):
    ws, twins = parameters(), parameters()
    optimizer, plain = (make(case, some, "rows", implementation) for some in (ws, twins))
    optimizer.weights.update({w: torch.ones(len(w), dtype=w.dtype) for w in ws})
    assert plain.param_groups[0]["lam_scales"] == [1.0, 1.0, 1.0]
    assert_alike(run(optimizer, ws, lambda step: None), run(plain, twins, lambda step: None))


# --- reports on the problem ---


def test_penalised_groups_have_the_products():
    ws = parameters()
    optimizer = make("Adam", [{"params": ws[:2]}, {"params": ws[2:], "penalty": None}])
    optimizer.param_groups[0]["lam_scales"] = [0.5, 2.0]
    weights = optimizer.weights[ws[0]] = factors("elements", ws[0], 0, 0)
    (group,) = optimizer.penalised_groups()
    assert group["lam"] == 0.3
    assert group["params"] == ws[:2]
    assert torch.equal(group["weights"][0], 0.5 * weights)
    assert group["weights"][1] == 2.0
    expected = 0.3 * (0.5 * (weights * ws[0].detach().abs()).sum() + 2.0 * ws[1].detach().abs().sum())
    value = tl.penalty(optimizer.penalised_groups())
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    value.backward()
    torch.testing.assert_close(ws[0].grad, 0.15 * weights * ws[0].detach().sign())
    torch.testing.assert_close(ws[1].grad, 0.6 * ws[1].detach().sign())


def test_the_penalty_of_weighted_rows():
    ws = parameters()
    optimizer = make("SGD", ws, "rows")
    weights = optimizer.weights[ws[1]] = factors("rows", ws[1], 1, 0)
    norms = [w.detach().norm(dim=1) for w in ws]
    expected = 1.6 * 3**0.5 * (norms[0].sum() + (weights * norms[1]).sum() + norms[2].sum())
    assert tl.penalty(optimizer.penalised_groups()).item() == pytest.approx(expected.item(), rel=1e-12)


def test_stationarity_is_of_the_weighted_problem():
    ws = [nn.Parameter(torch.tensor(w)) for w in ([0.5, 0.0, 0.0], [2.0, 0.0], [1.0])]
    optimizer = tl.ProxSGD(ws, lr=0.1, penalty=tl.L1(), lam=0.5)
    optimizer.param_groups[0]["lam_scales"] = [1.0, 2.0, 0.0]
    optimizer.weights[ws[0]] = torch.tensor([0.25, 1.0, 0.5])
    ws[0].grad = torch.tensor([-0.125, 0.5, -0.25])  # λ of its blocks: 0.125, 0.5, 0.25
    ws[1].grad = torch.tensor([-1.0, 0.9])  # λ: 1
    ws[2].grad = torch.tensor([7.0])  # has no penalty
    assert tl.stationarity(optimizer.penalised_groups()) == tl.Stationarity(0.0, 0.0)
    ws[0].grad = torch.tensor([-0.125, 0.75, -0.35])
    ws[1].grad = torch.tensor([-1.0, 1.125])
    found = tl.stationarity(optimizer.penalised_groups())  # distances 0.25 and 0.1 in units of 0.5, and 0.125 in 1
    assert (found.max, found.mean) == pytest.approx((0.5, (0.5 + 0.2 + 0.125) / 5))
    with pytest.raises(ValueError, match="λ has a weight for each block: take lambda_max before"):
        tl.lambda_max(optimizer.penalised_groups())


# --- state ---


@FEW
def test_scales_are_part_of_the_state_dict_and_old_ones_without_them_load(case):
    ws = parameters()
    optimizer = make(case, ws)
    optimizer.param_groups[0]["lam_scales"] = [0.5, 0.0, 2.0]
    run(optimizer, ws, lambda step: None, steps=range(8))
    state = copy.deepcopy(optimizer.state_dict())
    assert state["param_groups"][0]["lam_scales"] == [0.5, 0.0, 2.0]
    other = make(case, parameters())
    other.load_state_dict(copy.deepcopy(state))
    assert other.param_groups[0]["lam_scales"] == [0.5, 0.0, 2.0]
    del state["param_groups"][0]["lam_scales"]
    twins = parameters()
    old = make(case, twins)
    old.load_state_dict(state)
    assert old.param_groups[0]["lam_scales"] == [1.0, 1.0, 1.0]
    run(old, twins, lambda step: None)
    assert (flat(twins) == 0).any()


def test_a_group_that_is_added_later_has_scales():
    optimizer = make("Adam", parameters())
    optimizer.add_param_group({"params": parameters()[:2]})
    assert [group["lam_scales"] for group in optimizer.param_groups] == [[1.0] * 3, [1.0] * 2]


def test_entries_per_parameter_are_not_shown():
    ws = parameters()
    optimizer = make("Adam", ws)
    optimizer.weights[ws[0]] = torch.ones_like(ws[0])
    shown = repr(optimizer)
    assert "lam: 0.3" in shown
    assert "penalty: L1(over=Elements())" in shown
    assert not any(name in shown for name in ("lam_scales", "weights", "gains", "tensor"))


# --- the step that is done on a device as a whole ---


@pytest.fixture
def here(monkeypatch):
    """Let the CPU count as such a device, and do without a compiler."""
    monkeypatch.setattr(device, "_are_on_device", lambda params: True)
    monkeypatch.setattr(device, "_compiled", lambda step, shapes: step)


@pairwise(case=FEW_NAMES, kind=PENALTIES, silent=[False, True])
def test_scales_on_a_device(here, monkeypatch, case, kind, silent):
    taken, advance = [], device.advance
    monkeypatch.setattr(device, "advance", lambda *args: taken.append(args) or advance(*args))
    result = scaled(case, kind, "fused", silent)
    assert len(taken) == STEPS
    monkeypatch.undo()
    assert_alike(result, scaled_by_hand(case, kind, silent))


@pytest.mark.parametrize("kind", ["elements", "rows"])
@FEW
def test_weights_on_a_device_can_be_set_and_removed(here, monkeypatch, case, kind):
    # with weights a step is not done there as a whole: gains and rates go back and forth
    results, taken, advance = [], [], device.advance
    monkeypatch.setattr(device, "advance", lambda *args: taken.append(args) or advance(*args))
    for implementation in ("fused", "one by one"):
        ws = parameters()
        optimizer = make(case, ws, kind, implementation)

        def change(step, ws=ws, optimizer=optimizer):
            optimizer.weights.clear()
            if STEPS // 3 <= step < 2 * STEPS // 3:
                optimizer.weights[ws[0]] = factors(kind, ws[0], 0, step)
                optimizer.param_groups[0]["lam_scales"] = [0.5, 1.0, 0.0]

        results.append(run(optimizer, ws, change))
        assert len(taken) == STEPS - STEPS // 3
        monkeypatch.undo()
    assert_alike(*results)
    assert (results[0] == 0).any()


def test_the_host_does_not_wait_for_the_device_because_of_scales(monkeypatch):
    # tensors on this device have no values: reading one raises
    monkeypatch.setattr(device, "_compiled", lambda step, shapes: step)
    ws = [nn.Parameter(torch.randn(shape, device="meta")) for shape in SHAPES]
    optimizer = tl.ProxAdam(ws, penalty=tl.L1(), lam=0.3, **IMPLEMENTATIONS["fused"])
    for step in range(3):
        optimizer.param_groups[0]["lam_scales"] = [0.5, 0.0, 1.0]
        for w in ws[step % 2 :]:
            w.grad = torch.randn(w.shape, device="meta")
        optimizer.step()
    assert optimizer.param_groups[0]["gains"].device.type == "meta"
