"""TargetSparsity at its limits: invalid arguments, layers that are kept, and missed targets."""

import itertools
import math
import warnings

import pytest
import torch
from torch import nn

import torchlasso as tl

STARTS = {"small": 1e-2, "large": 1.0}


def optimizer_of(lam: float = 1e-3, **options) -> tl.Proximal:
    ws = [nn.Parameter(torch.linspace(-1, 1, n).reshape(10, -1)) for n in (50, 150)]
    return tl.ProxSGD([{"params": [w], "penalty": tl.L1()} for w in ws], **{"lr": 0.1, "lam": lam, **options})


# --- invalid arguments ---

REFUSED = {
    "target 0": (lambda o: tl.TargetSparsity(o, 0, steps=9), "a share of zeros, above 0 and below 1; got 0$"),
    "target 1": (lambda o: tl.TargetSparsity(o, 1.0, steps=9), r"a share of zeros, above 0 and below 1; got 1\.0$"),
    "target nan": (lambda o: tl.TargetSparsity(o, math.nan, steps=9), "above 0 and below 1; got nan$"),
    "per cent": (lambda o: tl.TargetSparsity(o, 90, steps=9), r"above 0 and below 1; got 90; 90 per cent is 0\.9$"),
    "negative": (lambda o: tl.TargetSparsity(o, -0.5, steps=9), r"above 0 and below 1; got -0\.5$"),
    "one of them": (lambda o: tl.TargetSparsity(o, [0.5, 1.5], steps=9, scope="group"), r"got 1\.5$"),
    "too many": (lambda o: tl.TargetSparsity(o, [0.5] * 3, steps=9, scope="group"), "3 targets for 2 groups"),
    "too few": (lambda o: tl.TargetSparsity(o, [0.5], steps=9, scope="group"), "1 targets for 2 groups"),
    "many for a model": (
        lambda o: tl.TargetSparsity(o, [0.5, 0.5], steps=9),
        "2 targets for 1 groups in the scope 'model'",
    ),
    "scope": (lambda o: tl.TargetSparsity(o, 0.5, steps=9, scope="layer"), "unknown scope 'layer'.*group, model"),
    "no steps": (lambda o: tl.TargetSparsity(o, 0.5, steps=0), "whole number of at least 1; got 0$"),
    "negative steps": (
        lambda o: tl.TargetSparsity(o, 0.5, steps=-5),
        "whole number of at least 1; got -5$",
    ),
    "warmup above 1": (lambda o: tl.TargetSparsity(o, 0.5, steps=9, warmup=1.5), r"from 0 to 1; got 1\.5$"),
    "warmup below 0": (lambda o: tl.TargetSparsity(o, 0.5, steps=9, warmup=-0.1), r"from 0 to 1; got -0\.1$"),
    "warmup nan": (lambda o: tl.TargetSparsity(o, 0.5, steps=9, warmup=math.nan), "from 0 to 1; got nan$"),
    "out of reach": (
        lambda o: tl.TargetSparsity(o, 0.995, steps=9),
        r"0\.995 of 200 weights would leave 1\.0 of them for 2 layers; at most 0\.99 can be reached, or any target "
        "with allow_empty=True$",
    ),
    "a count below the layers": (
        lambda o: tl.TargetCount(o, 1, steps=9),
        r"^TargetCount: blocks=1 would leave nothing for some of the 2 layers; give at least 2, or any number with "
        "allow_empty=True$",
    ),
    "out of reach of a group": (
        lambda o: tl.TargetSparsity(o, [0.9, 0.999], steps=9, scope="group"),
        r"0\.999 of 150 weights would leave 0\.[12] of them for 1 layers; at most 0\.99333\d* can be reached",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_meaningless_arguments_are_refused_in_one_line(name):
    make, message = REFUSED[name]
    optimizer = optimizer_of()
    with pytest.raises(ValueError, match=message) as error:
        make(optimizer)
    assert "\n" not in str(error.value)
    for group in optimizer.param_groups:
        assert group["lam"] == 1e-3
        assert "lam_factors" not in group


def sparing_optimizer(over: tl.Blocks) -> tl.Proximal:
    ws = [nn.Parameter(torch.linspace(-1, 1, n).reshape(10, -1)) for n in (50, 150)]
    return tl.ProxSGD(ws, lr=0.1, lam=1e-3, penalty=tl.L1(over=over))


@pytest.mark.parametrize(
    ("over", "spared", "most"), [(tl.FanIn(0.2), 40, 0.8), (tl.NM(2, 4), 110, 0.45)], ids=["FanIn", "NM"]
)
def test_blocks_that_spare_weights_are_told_the_share_that_they_reach(over, spared, most):
    reached = 1 - count_kept_at_infinity(over) / 200
    assert reached == pytest.approx(most)
    for make, message in (
        (
            lambda o: tl.TargetSparsity(o, 0.9, steps=9),
            rf"leave 20\.0 of them, and .* always leaves {spared}; at most ",
        ),
        (lambda o: tl.TargetSparsity(o, 0.9, steps=9, count="blocks"), rf"always leaves {spared}; at most {most} can"),
        (lambda o: tl.TargetSparsity(o, 0.9, steps=9, allow_empty=True), rf"at most {most} can be reached$"),
        (
            lambda o: tl.TargetCount(o, spared - 1, steps=9),
            rf"^TargetCount: blocks={spared - 1} cannot be reached: .* always leaves {spared} of 200$",
        ),
    ):
        with pytest.raises(ValueError, match=message) as error:
            make(sparing_optimizer(over))
        assert "\n" not in str(error.value)
    tl.TargetSparsity(sparing_optimizer(over), most, steps=9)
    tl.TargetCount(sparing_optimizer(over), spared, steps=9)


def count_kept_at_infinity(over: tl.Blocks) -> int:
    return sum(int(tl.L1(over=over).prox(p, lam=1e6, step=1.0).count_nonzero()) for p in params_without_zeros())


def params_without_zeros() -> list[torch.Tensor]:
    return [torch.linspace(1, 2, n).reshape(10, -1) for n in (50, 150)]


@pytest.mark.parametrize("lams", [(0.0, 0.0), (1e-3, 0.0)])
def test_a_lam_of_zero_is_refused_as_a_start(lams):
    optimizer = optimizer_of()
    for group, lam in zip(optimizer.param_groups, lams, strict=True):
        group["lam"] = lam
    with pytest.raises(
        ValueError, match=r"^TargetSparsity: λ of a group is 0; it is a start that is multiplied, such as"
    ):
        tl.TargetSparsity(optimizer, 0.5, steps=9)


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.SGD])
def test_only_a_proximal_optimizer_has_a_lam(make):
    with pytest.raises(
        TypeError, match=r"^TargetSparsity controls the λ of a proximal optimizer such as .*; got (Adam|SGD)$"
    ):
        tl.TargetSparsity(make([nn.Parameter(torch.ones(2))], lr=0.1), 0.5, steps=9)


def test_the_last_target_that_can_be_reached_is_accepted():
    tl.TargetSparsity(optimizer_of(), 0.99, steps=9)
    tl.TargetSparsity(optimizer_of(), 0.9999, steps=9, allow_empty=True)


# --- empty layers ---


@pytest.mark.filterwarnings("ignore::torchlasso.TargetMissed")  # more weights may have to stay than the target asks for
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", ["ProxAdam", "ProxSGD"])
def test_no_layer_becomes_empty_under_an_extreme_target(digits, name, start):
    trained = digits.train(
        lambda optimizer: tl.TargetSparsity(optimizer, 0.999, steps=200), name=name, lam=STARTS[start], steps=200
    )
    assert min(trained.kept) > 0
    assert max(trained.kept) < 60


@pytest.mark.parametrize("name", ["ProxAdam", "ProxSGD"])
def test_with_allow_empty_a_layer_may_lose_all_its_weights(digits, name):
    def make(optimizer):
        return tl.TargetSparsity(optimizer, 0.9999, steps=200, allow_empty=True, tolerance=0.01)

    trained = digits.train(make, name=name, lam=0.2, steps=200)
    assert 0 in trained.kept
    assert trained.sparsity > 0.99


def test_a_layer_without_a_gradient_keeps_a_weight():
    # its weights are the first to go, and none comes back
    idle = nn.Parameter(torch.linspace(0.1, 0.5, 40).reshape(8, 5))
    busy = nn.Parameter(torch.linspace(-1, 1, 200).reshape(8, 25))
    optimizer = tl.ProxSGD([idle, busy], lr=0.1, penalty=tl.L1(), lam=0.05)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    control = tl.TargetSparsity(optimizer, 0.5, steps=400, tolerance=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        ((busy - torch.linspace(-1, 1, 200).reshape(8, 25)).square().sum() / 2 + 0.0 * idle.sum()).backward()
        optimizer.step()
        scheduler.step()
        control.step()
    assert 0 < (idle != 0).sum() < 40
    assert 0.4 < (busy != 0).float().mean() < 0.7


# --- targets that are missed ---


def drive(control: tl.TargetSparsity, steps: int, grad: float = 1e-3) -> None:
    for _ in range(steps):
        for group in control.optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.full_like(p, grad)
        control.optimizer.step()
        control.step()


def test_a_start_that_is_far_too_small_is_reported():
    control = tl.TargetSparsity(optimizer_of(lam=1e-12), 0.9, steps=50)
    reason = r"(λ was still changing: use more steps, or start nearer to its last value|λ reached .* its limit)"
    message = rf"^TargetSparsity: training ended with 100\.00 % of the weights left instead of 10\.00 %; {reason}"
    with pytest.warns(tl.TargetMissed, match=message):
        drive(control, 50)


def test_too_few_steps_are_reported():
    control = tl.TargetSparsity(optimizer_of(), 0.9, steps=3)
    with pytest.warns(tl.TargetMissed, match="λ was still changing: use more steps"):
        drive(control, 3)


@pytest.mark.parametrize("form", ["proximal", "latent"])
def test_a_training_that_ends_early_or_goes_on_is_told_apart_from_a_bad_start(form):
    control = tl.TargetSparsity(optimizer_of(form=form), 0.9, steps=1000)
    drive(control, 5)
    assert control.missed.endswith("; there were only 5 of its 1,000 steps")
    control = tl.TargetSparsity(optimizer_of(form=form, lr=1e-9), 0.5, steps=4, tolerance=0.51)
    drive(control, 6)
    control.tolerance = 0.01
    with pytest.warns(tl.TargetMissed, match="training went on after its 4 steps") as told:
        drive(control, 5)
    assert len(told) == 1


@pytest.mark.parametrize("form", ["proximal", "latent"])
def test_a_hold_before_the_end_of_a_target_is_the_reason_of_its_miss(form):
    optimizer = optimizer_of(form=form)
    hold, control = tl.Hold(optimizer, 4), tl.TargetSparsity(optimizer, 0.9, steps=4)
    for _ in range(3):
        drive(control, 1)
        hold.step()
    with pytest.warns(tl.TargetMissed, match=r"the zeros were held before its last step: give it .* Hold\.start$"):
        drive(control, 1)


@pytest.mark.parametrize("form", ["proximal", "latent"])
def test_a_hold_after_the_end_of_a_target_is_no_reason_of_its_miss(form):
    optimizer = optimizer_of(form=form)
    hold, control = tl.Hold(optimizer, 8), tl.TargetSparsity(optimizer, 0.5, steps=6, tolerance=0.49)
    for _ in range(8):
        drive(control, 1)
        hold.step()
    assert control.missed is None
    with torch.no_grad():
        for group in optimizer.param_groups:
            group["params"][0].fill_(1.0)
    assert "100.00 % of the weights left instead of 50.00 %" in control.missed
    assert not any(words in control.missed for words in ("went on", "held before"))


def test_nothing_is_told_after_the_end_while_zeros_are_held():
    optimizer = optimizer_of()
    hold, control = tl.Hold(optimizer, 8), tl.TargetSparsity(optimizer, 0.5, steps=6, tolerance=0.49)
    for _ in range(6):
        drive(control, 1)
        hold.step()
    with torch.no_grad():
        for group in optimizer.param_groups:
            group["params"][0].zero_()
    drive(control, 2)


@pytest.mark.parametrize("form", ["proximal", "latent"])
def test_a_training_that_diverged_is_reported_as_that(form):
    control = tl.TargetSparsity(optimizer_of(form=form), 0.9, steps=3)
    with pytest.warns(
        tl.TargetMissed, match=r"10\.00 %; training diverged: there are weights that are NaN or infinite$"
    ):
        drive(control, 3, grad=math.nan)


def test_a_layer_that_was_kept_is_reported():
    optimizer = optimizer_of(lr=1e-9)
    with torch.no_grad():
        optimizer.param_groups[0]["params"][0].view(-1)[2:] = 0.0
    control = tl.TargetSparsity(optimizer, 0.9, steps=3)
    with pytest.warns(
        tl.TargetMissed, match=r"76\.00 % .* a layer that would have become empty was kept \(allow_empty=Fal"
    ):
        drive(control, 3, grad=0.0)


def test_each_missed_group_is_reported():
    control = tl.TargetSparsity(optimizer_of(), [0.9, 0.75], steps=3, scope="group")
    with pytest.warns(tl.TargetMissed) as told:
        drive(control, 3)
    assert len(told) == 2
    assert [f"instead of {share} %" in str(one.message) for share, one in zip(("10.00", "25.00"), told, strict=True)]


def test_a_miss_is_reported_once_at_the_end_and_lam_stays_from_then_on():
    control = tl.TargetSparsity(optimizer_of(), 0.9, steps=5, warmup=0.0)
    drive(control, 4)
    with pytest.warns(tl.TargetMissed):
        drive(control, 1)
    lams = control.lam
    drive(control, 5)
    assert control.lam == lams


@pytest.mark.parametrize(("tolerance", "missed"), [(0.05, True), (0.15, False)])
def test_the_tolerance_is_in_shares_of_the_weights(tolerance, missed):
    w = nn.Parameter(torch.ones(100))
    with torch.no_grad():
        w[:40] = 0.0
    optimizer = tl.ProxSGD([w], lr=1e-9, penalty=tl.L1(), lam=1e-3)
    control = tl.TargetSparsity(optimizer, 0.5, steps=4, tolerance=tolerance)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        drive(control, 4, grad=0.0)
    assert control.left == [0.6]
    assert [one.category for one in told] == [tl.TargetMissed] * missed


def test_remaining_shares_of_each_unit():
    optimizer = optimizer_of()
    with torch.no_grad():
        for group, zeros in zip(optimizer.param_groups, (10, 60), strict=True):
            group["params"][0].view(-1)[:zeros] = 0.0
    assert tl.TargetSparsity(optimizer, 0.5, steps=9, warmup=0.0).left == [130 / 200]
    assert tl.TargetSparsity(optimizer, 0.5, steps=9, scope="group").left == [40 / 50, 90 / 150]


def test_strengths_stay_finite_where_nothing_can_be_done(digits):
    # weights that no λ makes zero, and others that nothing revives
    for factor, target in itertools.product((1e-30, 1e30), (0.01, 0.98)):
        control = tl.TargetSparsity(optimizer_of(lam=1e-3 * factor), target, steps=60, tolerance=1.0)
        drive(control, 60)
        assert all(0 < lam < math.inf for lam in control.lam)
        assert all(math.isfinite(p.detach().sum()) for group in control.optimizer.param_groups for p in group["params"])
