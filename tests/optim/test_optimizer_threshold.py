"""The unit-gradient rule as a law: the threshold is λ times the step under a unit gradient."""

import copy

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.optimizers import (
    CASES,
    EVERY,
    optim,
)
from tests.support.pairwise import pairwise

RATES = {
    "constant": lambda t: 1.0,
    "decaying": lambda t: 0.8**t,
    "rising": lambda t: (t + 1) / 10,
    "up and down": lambda t: 1.0 - abs(t - 4) / 10,
}
GRADIENT = torch.tensor([1.0, 0.25, 3.0, 1e-3], dtype=torch.float64)


class Walk:
    """An optimizer under a constant gradient, far from zero: the prox of L1 subtracts τλ exactly."""

    def __init__(self, case: str, averaging: bool, gradient: torch.Tensor, **options):
        base, defaults = CASES[case]
        self.w = nn.Parameter(torch.full_like(gradient, 1e3))
        self.gradient, self.options = gradient, {**defaults, **options}
        self.optimizer = tl.proximal(base)([self.w], penalty=tl.L1(), lam=0.0, averaging=averaging, **self.options)

    def step(self, factor: float, lam: float = 0.0) -> torch.Tensor:
        """One step, with the displacement that it made."""
        group, before = self.optimizer.param_groups[0], self.w.detach().clone()
        group.update(lam=lam, lr=self.options["lr"] * factor)
        self.w.grad = self.gradient.clone()
        self.optimizer.step()
        return before - self.w.detach()

    def threshold(self, factor: float, lam: float) -> torch.Tensor:
        """Measure how much further one step goes with λ than without, on copies."""
        with_lam, without = copy.deepcopy((self.w, self.optimizer)), copy.deepcopy((self.w, self.optimizer))
        moved = []
        for (w, optimizer), strength in ((with_lam, lam), (without, 0.0)):
            optimizer.param_groups[0].update(lam=strength, lr=self.options["lr"] * factor)
            w.grad = self.gradient.clone()
            optimizer.step()
            moved.append(w.detach())
        return moved[1] - moved[0]


def has_history_in_its_denominator(case: str) -> bool:
    # RMSprop's buffer adds up gradients, each divided by the denominator of its step
    return CASES[case][0] is optim.RMSprop and CASES[case][1].get("momentum", 0) > 0


@pairwise(
    case=[case for case in CASES if not has_history_in_its_denominator(case)], rates=RATES, averaging=[True, False]
)
def test_the_threshold_is_lam_times_the_step_under_a_unit_gradient(case, rates, averaging):
    # the update is linear in the averaged gradient, so a constant gradient c moves a coordinate by c·τ
    decay = {"weight_decay": 0.0} if CASES[case][1].get("weight_decay") else {}
    penalised, undecayed = Walk(case, averaging, GRADIENT), Walk(case, averaging, GRADIENT, **decay)
    lam = 1e-5 if case == "Adafactor" else 0.5  # whose steps are in proportion to the weights
    for t in range(10):
        factor = RATES[rates](t)
        threshold = penalised.threshold(factor, lam)
        penalised.step(factor)
        displacement = undecayed.step(factor)  # decoupled decay is not part of τ
        torch.testing.assert_close(threshold, lam * displacement / GRADIENT, rtol=1e-7, atol=1e-12)
        assert (threshold > 0).all()


@pytest.mark.parametrize("case", ["SGD", "Adagrad", "RMSprop", "Adam", "Adam amsgrad", "AdamW", "RAdam", "Adamax"])
def test_the_threshold_takes_the_metric_of_the_step_for_any_gradients(case):
    # gradients that fall: amsgrad's and Adamax's maxima are of the past
    walk = Walk(case, False, GRADIENT, **({"weight_decay": 0.0} if "weight_decay" in CASES[case][1] else {}))
    generator, lam = torch.Generator().manual_seed(0), 0.5
    for t in range(1, 16):
        walk.gradient = torch.randn(4, generator=generator, dtype=torch.float64) * 0.6**t
        threshold, displacement = walk.threshold(1.0, lam), walk.step(1.0)
        state = walk.optimizer.state[walk.w]
        first = walk.optimizer.param_groups[0].get("betas", (0.0,))[0]
        average = state["exp_avg"] / (1 - first**t) if first else walk.gradient
        torch.testing.assert_close(threshold, lam * displacement / average, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("centered", [True, False], ids=["centred", "plain"])
@pytest.mark.parametrize("averaging", [True, False], ids=["averaging", "plain"])
def test_the_threshold_of_rmsprop_with_momentum_takes_the_denominator_of_the_step(centered, averaging):
    walk = Walk("RMSprop centred momentum", averaging, GRADIENT, centered=centered)
    lr, momentum, alpha, lam = 0.01, 0.8, 0.99, 0.5
    for t in range(1, 11):
        share = 1 - alpha**t  # of the constant gradient in both averages
        variance = GRADIENT**2 * (share - share**2 * centered)
        gain = (1 - momentum**t) / (1 - momentum)
        expected = lam * lr * gain / (variance.sqrt() + 1e-8)
        torch.testing.assert_close(walk.threshold(1.0, lam), expected, rtol=1e-7, atol=1e-12)
        walk.step(1.0)


@EVERY
def test_the_threshold_is_right_after_loading_the_file_of_the_plain_optimizer(case):
    # SGD's file does not say how old its buffer is; after 200 steps its gain is at the limit that is assumed
    base, options = CASES[case]
    if options.get("weight_decay"):
        options = {**options, "weight_decay": 0.0}
    if case == "Adafactor":
        options = {**options, "lr": 0.01}  # in proportion to the weights, which are to stay above zero
    w = nn.Parameter(torch.full((2,), 1e3, dtype=torch.float64))
    plain = base([w], **options)
    for _ in range(200):
        w.grad = torch.ones_like(w)
        plain.step()
    moved = []
    for lam in (0.0, 0.5):
        twin = nn.Parameter(w.detach().clone())
        optimizer = tl.proximal(base)([twin], penalty=tl.L1(), lam=lam, **options)
        optimizer.load_state_dict(copy.deepcopy(plain.state_dict()))
        twin.grad = torch.ones_like(twin)
        optimizer.step()
        moved.append(w.detach() - twin.detach())
    tolerance = 0.05 if has_history_in_its_denominator(case) else 1e-7
    torch.testing.assert_close(moved[1], 1.5 * moved[0], rtol=tolerance, atol=0.0)


@pytest.mark.parametrize("momenta", [(0.0, 0.9), (0.9, 0.0, 0.9), (0.9, 0.5)], ids=str)
def test_the_threshold_of_sgd_follows_a_momentum_that_is_changed(momenta):
    walk = Walk("SGD momentum", False, GRADIENT)
    for momentum in momenta:
        walk.optimizer.param_groups[0]["momentum"] = momentum
        for _ in range(5):
            threshold = walk.threshold(1.0, 0.5)
            torch.testing.assert_close(threshold, 0.5 * walk.step(1.0) / GRADIENT, rtol=1e-7, atol=1e-12)
