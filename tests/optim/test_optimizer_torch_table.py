"""Every configuration in the table that torch tests its own optimizers with: OptimizerInfo."""

import copy
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing._internal.opinfo.core import DecorateInfo

import torchlasso as tl
from tests.support.implementations import assert_alike, random_gradients, same

pytest.importorskip("expecttest", reason="torch's own tests need it")
_allowed = torch.backends.__allow_nonbracketed_mutation_flag
# The table of optimizers takes one name from torch's table of operators, whose import takes seconds.
sys.modules.setdefault("torch.testing._internal.common_methods_invocations", SimpleNamespace(DecorateInfo=DecorateInfo))
from torch.testing._internal.common_optimizers import (  # noqa: E402
    OptimizerErrorEnum,
    TensorTracker,
    _get_optim_inputs_including_global_cliquey_kwargs,
    optim_db,
)
from torch.testing._internal.common_utils import TestCase  # noqa: E402

pytestmark = pytest.mark.slow

# to import torch's tests is to forbid all others in this process to set flags of torch.backends
torch.backends.__allow_nonbracketed_mutation_flag = _allowed

INFOS = {info.optim_cls: info for info in optim_db}
CLASSES = {cls.base: cls for cls in (tl.ProxSGD, tl.ProxAdam, tl.ProxAdamW)}
STEPS, LAM = 5, 0.5


def configurations(*, skip: tuple[str, ...] = ("differentiable",)) -> list:
    """(torch optimizer, options) of every entry, once for each implementation that is not skipped."""
    return [
        pytest.param(base, entry.kwargs, id=f"{base.__name__} {entry.desc}")
        for base in CLASSES
        for entry in _get_optim_inputs_including_global_cliquey_kwargs("cpu", torch.float32, INFOS[base], skip=skip)
    ]


EVERY = pytest.mark.parametrize(("base", "options"), configurations())
EACH_ONCE = pytest.mark.parametrize(("base", "options"), configurations(skip=("differentiable", "foreach", "fused")))
ALONE = {"foreach": False, "fused": False}


def parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 5), (7,), (), (2, 1, 3)]
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype)) for s in shapes]


def build(base, params, options, **more):
    return CLASSES[base](params, penalty=tl.L1(), **{"lam": LAM, **copy.deepcopy(options), **more})


def train(optimizer, params, steps=range(STEPS)) -> torch.Tensor:
    for seed in steps:
        random_gradients(params, seed)
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in params])


# --- the trajectory ---


@EVERY
def test_without_strength_it_is_the_plain_optimizer(base, options):
    ours, theirs = parameters(), parameters()
    optimizer = build(base, ours, options, lam=0.0, averaging=False)
    plain = base(theirs, **{**copy.deepcopy(options), **ALONE})
    assert_alike(train(optimizer, ours), train(plain, theirs))


class SoftThresholding:
    """The plain optimizer, then w ← sign(w)·max(|w| − τλ, 0), written down for a constant rate and no averaging."""

    def __init__(self, base, params, options):
        self.options = {**base([nn.Parameter(torch.ones(1))]).defaults, **copy.deepcopy(options), **ALONE}
        given = {**copy.deepcopy(options), **ALONE}
        self.params, self.plain = params, base(params, **given)
        # what SGD does to a coordinate whose gradient is always one
        self.unit = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.walk = base([self.unit], **{**given, "weight_decay": 0.0, "maximize": False})

    @torch.no_grad()
    def step(self) -> None:
        before = self.unit.item()
        self.unit.grad = torch.ones_like(self.unit)
        self.plain.step()
        self.walk.step()
        for p in self.params:
            threshold = LAM * self._length(p, before - self.unit.item())
            p.copy_(p.sign() * (p.abs() - threshold).clamp_min(0))

    def _length(self, p, length_of_sgd: float):
        if "betas" not in self.options:
            return length_of_sgd
        state = self.plain.state[p]
        square = state["max_exp_avg_sq"] if self.options["amsgrad"] else state["exp_avg_sq"]
        corrected = square / (1 - self.options["betas"][1] ** state["step"].item())
        return float(self.options["lr"]) / (corrected.sqrt() + self.options["eps"])


@pytest.mark.parametrize("averaging", [True, False])
@EVERY
def test_it_is_the_plain_optimizer_and_soft_thresholding(base, options, averaging):
    # averaging does nothing while the rate is constant; a larger rate, so that weights become zero; no usual ε or β
    options = {**options, "lr": options.get("lr", 0.001) * 0 + 0.1}
    if base is not torch.optim.SGD:
        options = {**options, "eps": 0.5, "betas": (0.8, 0.95)}
    ours, theirs = parameters(), parameters()
    weights = train(build(base, ours, options, averaging=averaging), ours, range(15))
    assert_alike(weights, train(SoftThresholding(base, theirs, options), theirs, range(15)))
    assert 0 < (weights == 0).sum() < len(weights)


# Each entry in both implementations. The fused one is in float64, for which other tests have its kernels compiled.
BOTH = [
    pytest.param(*entry.values, implementation, dtype, id=f"{entry.id} {implementation}")
    for entry in configurations(skip=("differentiable", "foreach", "fused"))
    for implementation, dtype in (("foreach", torch.float32), ("fused", torch.float64))
]


@pytest.mark.parametrize(("base", "options", "implementation", "dtype"), BOTH)
def test_after_every_step_weights_and_state_agree_with_a_single_tensor_step(base, options, implementation, dtype):
    if isinstance(options.get("lr"), torch.Tensor) and implementation == "foreach":
        options = {**options, "lr": options["lr"].item()}  # torch has no foreach step with a tensor rate for all
    tracker, checks = TensorTracker(), TestCase()
    for flags in (ALONE, {implementation: True}):
        params = parameters(dtype)
        optimizer = build(base, params, {**options, **flags})
        for seed in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] *= 0.9  # so that the averaging window grows
            train(optimizer, params, [seed])
            kept = list(params)
            for p in params:
                kept += [s for s in optimizer.state[p].values() if isinstance(s, torch.Tensor)]
            for tensor in kept:
                if flags is ALONE:
                    tracker.add(tensor)
                else:
                    tracker.pop_check_set(tensor, checks)
    assert tracker.all_popped()


# --- copies and state dicts ---


@EVERY
def test_a_deep_copy_has_all_public_attributes_and_continues_alike(base, options):
    params = parameters()
    optimizer = build(base, params, options)
    train(optimizer, params)
    twins, twin = copy.deepcopy((params, optimizer))
    public = [{name for name in vars(o) if not name.startswith("_")} for o in (optimizer, twin)]
    assert public[0] == public[1]
    assert repr(twin) == repr(optimizer)
    steps = range(STEPS, 2 * STEPS)
    assert torch.equal(train(twin, twins, steps), train(optimizer, params, steps))


@EVERY
def test_loading_a_state_dict_does_not_change_it_and_training_continues_alike(base, options):
    params = parameters()
    optimizer = build(base, params, options)
    train(optimizer, params)
    saved = copy.deepcopy(optimizer.state_dict())
    kept = copy.deepcopy(saved)
    twins = copy.deepcopy(params)
    twin = build(base, twins, {**options, "lr": 0.5}, lam=0.5)
    twin.load_state_dict(saved)
    steps = range(STEPS, 2 * STEPS)
    assert torch.equal(train(twin, twins, steps), train(optimizer, params, steps))
    assert same(saved["param_groups"], kept["param_groups"])  # the tensors are shared, as in torch
    assert same(twin.state_dict(), optimizer.state_dict())


@EVERY
def test_the_file_of_an_older_version_is_read(base, options):
    # one that did not know the flags which torch added later, and that counted steps in numbers
    params = parameters()
    optimizer = build(base, params, options)
    train(optimizer, params)
    old = copy.deepcopy(optimizer.state_dict())
    for group in old["param_groups"]:
        for flag in (*INFOS[base].not_og_supported_flags, "decoupled_weight_decay"):
            if flag != "maximize":  # another trajectory
                group.pop(flag, None)
    for state in old["state"].values():
        if "step" in state:
            state["step"] = state["step"].item()
    twins = copy.deepcopy(params)
    twin = build(base, twins, options)
    twin.load_state_dict(old)
    steps = range(STEPS, 2 * STEPS)
    assert_alike(train(twin, twins, steps), train(optimizer, params, steps))


# --- schedulers and mistakes ---


@EACH_ONCE
def test_the_objective_falls_or_rises_with_every_scheduler_of_the_table(base, options):
    for make in [lambda optimizer: [], *INFOS[base].scheduler_inputs]:
        torch.manual_seed(0)
        weight, bias = (nn.Parameter(torch.randn(s, dtype=torch.float64)) for s in ((6, 5), (6,)))
        x = torch.randn(5, dtype=torch.float64)
        optimizer = build(base, [weight, bias], options, lam=1e-3)
        schedulers = [make_one(optimizer) for make_one in make] if isinstance(make, (list, tuple)) else []

        def closure(optimizer=optimizer, weight=weight, bias=bias, x=x):
            optimizer.zero_grad()
            loss = (weight @ x + bias).square().sum()
            loss.backward()
            return loss

        first = closure().item()
        for _ in range(20):
            loss = optimizer.step(closure)
            for scheduler in schedulers:
                takes_loss = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
                scheduler.step(*([loss.item()] if takes_loss else []))
        last = closure().item()
        assert last > first if options.get("maximize") else last < first


MISTAKES = [
    pytest.param(base, mistake, id=f"{base.__name__} {mistake.optimizer_error_input.desc}")
    for base in CLASSES
    for mistake in INFOS[base].optim_error_inputs_func("cpu", torch.float32)
]


@pytest.mark.parametrize(("base", "mistake"), MISTAKES)
def test_a_mistake_is_answered_as_by_torch(base, mistake):
    assert mistake.error_on is OptimizerErrorEnum.CONSTRUCTION_ERROR
    given = mistake.optimizer_error_input
    params = [nn.Parameter(torch.zeros(1))] if given.params is None else given.params
    with pytest.raises(mistake.error_type, match=mistake.error_regex):
        build(base, params, given.kwargs)


@pytest.mark.parametrize("base", CLASSES)
@pytest.mark.parametrize("empty", [[], [{"params": []}], {}], ids=str)
def test_an_optimizer_of_nothing_is_answered_as_by_torch(base, empty):
    messages = []
    for make in (base, lambda params: build(base, params, {})):
        try:
            make(empty)
            messages.append("made")
        except ValueError as error:
            messages.append(str(error))
    assert messages[0] == messages[1]
