"""The latent form: dual averaging in an optimizer's steps, and the hold after it."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl
from tests.support.implementations import IMPLEMENTATIONS, assert_alike, same
from tests.support.pairwise import pairwise
from torchlasso.optim.fused import updates

STEPS = 30
# name -> class, its options and a λ for which some weights are zero and some are not
OPTIMIZERS = {
    "SGD momentum": (tl.ProxSGD, {"lr": 0.05, "momentum": 0.8}, 0.2),
    "AdamW": (tl.ProxAdamW, {"lr": 0.02, "weight_decay": 0.1}, 0.3),
    "Adam amsgrad": (tl.ProxAdam, {"lr": 0.02, "amsgrad": True}, 0.3),
    "NAdam": (tl.proximal(torch.optim.NAdam), {"lr": 0.02}, 0.3),
    "RMSprop": (tl.proximal(torch.optim.RMSprop), {"lr": 0.01}, 0.3),
}
# name -> the penalty, and what λ is multiplied by
PENALTIES = {
    "L1": (tl.L1(), 1.0),
    "elastic net": (tl.ElasticNet(l1_ratio=0.7), 1.2),
    "rows": (tl.L1(over=tl.Rows()), 0.9),
    "columns": (tl.L1(over=tl.Columns()), 0.9),
}


def weights(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 5), (4, 3, 2), (8, 3)]
    return [nn.Parameter((torch.randn(s, generator=generator, dtype=torch.float64) / 5).to(dtype)) for s in shapes]


def build(name: str, ws: list[nn.Parameter], penalty: str = "L1", way: str = "one by one", **options) -> tl.Proximal:
    """An optimizer in the latent form, with one parameter of another strength and one that is not penalised."""
    cls, defaults, lam = OPTIMIZERS[name]
    kind, factor = PENALTIES[penalty]
    free = nn.Parameter(ws[0].detach().clone())
    groups = [{"params": ws, "penalty": kind, "lam": lam * factor}, {"params": [free], "penalty": None}]
    known = cls.base in updates.fused_updates()
    ways = {key: value for key, value in IMPLEMENTATIONS[way].items() if known or key == "foreach"}
    optimizer = cls(groups, form="latent", **{**defaults, **ways, **options})
    optimizer.param_groups[0]["lam_scales"] = [1.0, 0.5, 1.0]
    return optimizer


def train(optimizer, ws, steps=range(STEPS), step=None, control=None, hold: int | None = None) -> list[int]:
    """Train on noisy gradients; a parameter joins late. Return the number of zeros after each step."""
    zeros = []
    for t in steps:
        generator = torch.Generator().manual_seed(t)
        if t == hold:
            optimizer.hold()
        for group in optimizer.param_groups:
            for i, p in enumerate(group["params"]):
                noise = 0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
                p.grad = None if i == 2 and t < 3 else p.detach() + noise - 0.1 * i
        (step or optimizer.step)()
        if control is not None:
            control.step()
        zeros.append(sum(int((p == 0).sum()) for p in ws))
    return zeros


# --- every way computes the same ---


def exists(name: str, way: str, penalty: str) -> bool:
    known = OPTIMIZERS[name][0].base in updates.fused_updates()
    # each kernel takes seconds to compile: the elastic net's are those of the update with the fewest terms
    return way != "fused" or (known and (penalty != "elastic net" or name == "SGD momentum"))


@pairwise(where=exists, name=OPTIMIZERS, way=IMPLEMENTATIONS, penalty=PENALTIES)
def test_every_way_is_the_reference(name, way, penalty):
    for theta in (None, 0.1):
        results = []
        for reference in (True, False):
            ws = weights()
            optimizer = build(name, ws, penalty, "one by one" if reference else way)
            control = None if theta is None else tl.Reweighted(optimizer, theta=theta)
            step = optimizer._reference_step if reference else None
            zeros = train(optimizer, ws, step=step, control=control, hold=STEPS - 6)
            results.append((ws, zeros))
        (theirs, expected), (ours, found) = results
        assert expected == found
        for w, u in zip(ours, theirs, strict=True):
            assert_alike(w.detach(), u.detach())
        if theta is None and penalty in ("L1", "rows") and "SGD" in name:
            assert 0 < found[-1] < sum(w.numel() for w in ours)


# --- the formulas ---


def by_the_formulas(ws: list[Tensor], lam: float, theta: float | None, scales: list[float], lr: float) -> list[Tensor]:
    """Adam's dual averaging as plain arithmetic: z, h, and w the soft threshold of one under the other."""
    ws = [w.detach().clone() for w in ws]
    latent, threshold = [w.clone() for w in ws], [torch.zeros_like(w) for w in ws]
    mean, square, ages = [torch.zeros_like(w) for w in ws], [torch.zeros_like(w) for w in ws], [0] * len(ws)
    for t in range(STEPS):
        generator = torch.Generator().manual_seed(t)
        for i, w in enumerate(ws):
            noise = 0.3 * torch.randn(w.shape, generator=generator, dtype=torch.float64)
            if i == 2 and t < 3:
                continue
            grad = w + noise - 0.1 * i
            ages[i] += 1
            mean[i].lerp_(grad, 0.1)
            square[i].lerp_(grad.square(), 0.001)
            root = (square[i] / (1 - 0.999 ** ages[i])).sqrt() + 1e-8
            latent[i] -= lr * mean[i] / (1 - 0.9 ** ages[i]) / root
            threshold[i] += lr * lam * scales[i] * (1.0 if theta is None else theta / (w.abs() + theta))
            ws[i] = latent[i].sign() * (latent[i].abs() - threshold[i]).clamp_min(0)
    return ws


@pytest.mark.parametrize("theta", [None, 0.1])
def test_adam_averages_dually(theta):
    ws = weights()
    expected = by_the_formulas(ws, 0.3, theta, [1.0, 0.5, 1.0], 0.02)
    groups = [{"params": ws, "penalty": tl.L1(), "lam": 0.3}]
    optimizer = tl.ProxAdam(groups, lr=0.02, form="latent")
    optimizer.param_groups[0]["lam_scales"] = [1.0, 0.5, 1.0]
    control = None if theta is None else tl.Reweighted(optimizer, theta=theta)
    zeros = train(optimizer, ws, control=control)
    assert zeros[-1] > 0
    for w, other in zip(ws, expected, strict=True):
        torch.testing.assert_close(w.detach(), other, rtol=1e-9, atol=1e-12)
    buffers = {key for p in ws for key in optimizer.state[p]}
    assert buffers == {"step", "exp_avg", "exp_avg_sq", "latent"} | ({"threshold"} if theta else set())


# --- the hold ---


@pytest.mark.parametrize("form", ["proximal", "latent"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_hold_keeps_zeros_and_frees_the_rest(form, penalty):
    ws = weights()
    optimizer = build("AdamW", ws, penalty)
    for group in optimizer.param_groups:
        group["form"] = form
        group["lam"] *= 1.5
    train(optimizer, ws, range(40))
    over, before = PENALTIES[penalty][0].over, [w.detach().clone() for w in ws]
    optimizer.hold()
    train(optimizer, ws, range(40, 60))
    for w, old in zip(ws, before, strict=True):
        dead = ~over.of_any(old != 0)
        assert torch.equal(w[dead], old[dead])
        assert not torch.isclose(w[~dead], old[~dead]).any()
    assert any((~over.of_any(old != 0)).any() for old in before) or penalty == "columns"
    assert not any("latent" in optimizer.state[p] for p in ws)
    assert optimizer.param_groups[0]["thresholds"] == [0.0, 0.0, 0.0]
    optimizer.hold(held=False)
    train(optimizer, ws, range(60, 61))
    if form == "latent":
        assert all(optimizer.state[p]["latent"].shape == p.shape for p in ws)


@pytest.mark.parametrize("way", IMPLEMENTATIONS)
def test_a_hold_holds_in_every_layout(way):
    """A parameter that no kernel can step falls back, and its zeros stay nevertheless."""
    whole = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    ws = [nn.Parameter(whole.t().clone().t()), nn.Parameter(whole[:, ::2].clone())]
    ws.append(nn.Parameter(whole.clone()))
    ws[2].data = torch.randn(16, 6)[::2]  # rows with gaps between them
    optimizer = tl.ProxAdam(
        [{"params": ws, "penalty": tl.L1(), "lam": 0.1}], lr=0.05, form="latent", **IMPLEMENTATIONS[way]
    )
    with torch.no_grad():
        for w in ws:
            w[::2] = 0.0
    optimizer.hold()
    for t in range(3):
        for w in ws:
            w.grad = torch.randn(w.shape, generator=torch.Generator().manual_seed(t))
        optimizer.step()
    for w in ws:
        assert not w[::2].any()
        assert w[1::2].all()


# --- states ---


@pairwise(way=IMPLEMENTATIONS, theta=[None, 0.1], dtype=[torch.float32, torch.bfloat16])
def test_a_resume_is_exact(way, theta, dtype):
    def start():
        ws = weights(dtype)
        optimizer = build("AdamW", ws, way=way)
        return ws, optimizer, None if theta is None else tl.Reweighted(optimizer, theta=theta)

    ws, optimizer, control = start()
    train(optimizer, ws, range(10), control=control)
    kept = copy.deepcopy((optimizer.state_dict(), None if control is None else control.state_dict(), ws))
    train(optimizer, ws, range(10, 20), control=control)
    others, resumed, again = start()
    with torch.no_grad():
        for p, old in zip(others, kept[2], strict=True):
            p.copy_(old)
    resumed.load_state_dict(kept[0])
    if again is not None:
        again.load_state_dict(kept[1])
    train(resumed, others, range(10, 20), control=again)
    assert all(map(torch.equal, ws, others))
    ours, theirs = optimizer.state_dict(), resumed.state_dict()
    assert same([ours["state"][i] for i in range(3)], [theirs["state"][i] for i in range(3)])
    assert ours["param_groups"][0] == theirs["param_groups"][0]


def test_the_state_of_a_plain_optimizer_starts_latent_weights_at_the_weights():
    ws = weights()
    plain = torch.optim.AdamW([{"params": ws}], lr=0.02)
    train(plain, ws, range(5))
    optimizer = tl.ProxAdamW([{"params": ws, "penalty": tl.L1(), "lam": 0.1}], lr=0.02, form="latent")
    optimizer.load_state_dict(plain.state_dict())
    assert optimizer.param_groups[0]["form"] == "latent"
    before = [w.detach().clone() for w in ws]
    train(optimizer, ws, range(5, 6))
    for w, old in zip(ws, before, strict=True):
        assert (w - old).abs().max() < 0.03


# --- refusals ---


def test_refusals_name_what_would_be_right():
    w = nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match="unknown form 'latents'; did you mean 'latent'"):
        tl.ProxAdam([w], penalty=tl.L1(), lam=0.1, form="latents")
    with pytest.raises(ValueError, match=r"not convex: use L1 with torchlasso\.Reweighted"):
        tl.ProxAdam([w], penalty=tl.MCP(), lam=0.1, form="latent")

    class Own(tl.optim.Metric):
        def step_size(self, group, state, gain):
            return torch.ones(3)

    with pytest.raises(ValueError, match="methods reach and scale of Own"):
        tl.proximal(torch.optim.Adam, metric=Own())([w], penalty=tl.L1(), lam=0.1, form="latent")


def test_an_overflow_of_scaled_gradients_changes_nothing():
    w = nn.Parameter(torch.ones(3))
    optimizer = tl.ProxAdam([w], lr=0.1, penalty=tl.L1(), lam=0.1, form="latent")
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    w.grad = torch.tensor([1.0, torch.inf, 1.0])
    scaler.scale(torch.ones(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scaler.step(optimizer)
        scaler.update()
    assert torch.equal(w, torch.ones(3))
    assert optimizer.param_groups[0]["thresholds"] == [0.0]


def steps_of(optimizer: tl.Proximal, ws: list[nn.Parameter], steps: range) -> None:
    for t in steps:
        generator = torch.Generator().manual_seed(t)
        for w in ws:
            w.grad = torch.randn(w.shape, generator=generator, dtype=w.dtype)
        optimizer.step()


@pytest.mark.parametrize("way", ["one by one", "fused"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_weights_that_are_loaded_are_those_of_the_next_step(way, penalty):
    ws = weights()
    optimizer = build("SGD momentum", ws, penalty, way, momentum=0.0)
    optimizer.param_groups[0]["lam"] *= 3
    steps_of(optimizer, ws, range(20))
    assert any((w == 0).any() for w in ws)
    loaded = [torch.linspace(-2, 3, w.numel(), dtype=w.dtype).reshape(w.shape) for w in ws]
    for w, new in zip(ws, loaded, strict=True):
        new.view(-1)[::3] = 0.0
        with torch.no_grad():
            w.copy_(new)
        w.grad = torch.zeros_like(w)
    optimizer.step()
    growth = 2 * optimizer.param_groups[0]["lr"] * optimizer.param_groups[0]["lam"] * 8**0.5
    for w, new in zip(ws, loaded, strict=True):
        torch.testing.assert_close(w.detach(), new, rtol=0.05, atol=growth)
        assert (w - new).abs().max() > 0  # the threshold grows on


@pytest.mark.parametrize("penalty", PENALTIES)
def test_weights_that_come_back_change_no_step(penalty):
    kept, swapped = weights(), weights()
    first, second = build("SGD momentum", kept, penalty), build("SGD momentum", swapped, penalty)
    steps_of(first, kept, range(20))
    steps_of(second, swapped, range(10))
    before = [w.detach().clone() for w in swapped]
    with torch.no_grad():  # such as averages, to evaluate them
        for w, old in zip(swapped, before, strict=True):
            w.mul_(0.5)
            w.copy_(old)
    steps_of(second, swapped, range(10, 20))
    assert all(torch.equal(a, b) for a, b in zip(kept, swapped, strict=True))


def test_a_state_that_is_loaded_with_its_weights_is_gone_on_from_exactly():
    ws = weights()
    optimizer = build("AdamW", ws)
    steps_of(optimizer, ws, range(10))
    best = [w.detach().clone() for w in ws], copy.deepcopy(optimizer.state_dict())
    steps_of(optimizer, ws, range(10, 20))
    wanted = [w.detach().clone() for w in ws]
    for order in (0, 1):
        if order:
            optimizer.load_state_dict(copy.deepcopy(best[1]))
        with torch.no_grad():
            for w, old in zip(ws, best[0], strict=True):
                w.copy_(old)
        if not order:
            optimizer.load_state_dict(copy.deepcopy(best[1]))
        steps_of(optimizer, ws, range(10, 20))
        assert all(torch.equal(w, a) for w, a in zip(ws, wanted, strict=True))
