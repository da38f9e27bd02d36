"""Every scheduler class of torch drives the optimizers as it drives torch's own, cycled momenta included."""

import inspect

import torch
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import SWALR, AveragedModel

from tests.support.implementations import (
    ALL,
    EACH,
    FEW_NAMES,
    IMPLEMENTATIONS,
    OTHER_IMPLEMENTATIONS,
    assert_alike,
    build_as,
    run,
    wide,
)
from tests.support.optimizers import CASES, build_plain, flat
from tests.support.pairwise import pairwise

STEPS = 12


def one_cycle(optimizer, lr: float):
    return schedulers.OneCycleLR(optimizer, 2 * lr, total_steps=STEPS + 1, cycle_momentum=cycles(optimizer))


def cyclic(optimizer, lr: float):
    return schedulers.CyclicLR(optimizer, lr / 10, lr, step_size_up=4, cycle_momentum=cycles(optimizer))


def cycles(optimizer) -> bool:
    return "betas" in optimizer.defaults or optimizer.defaults["momentum"] > 0


def sequential(optimizer, lr: float):
    parts = [schedulers.LinearLR(optimizer, 0.1, total_iters=4), schedulers.CosineAnnealingLR(optimizer, 8)]
    return schedulers.SequentialLR(optimizer, parts, [4])


def chained(optimizer, lr: float):
    return schedulers.ChainedScheduler(
        [schedulers.ConstantLR(optimizer, 0.1, 4), schedulers.ExponentialLR(optimizer, 0.8)], optimizer
    )


SCHEDULERS = {
    schedulers.LambdaLR: lambda o, lr: schedulers.LambdaLR(o, lambda t: 1 / (1 + t)),
    schedulers.MultiplicativeLR: lambda o, lr: schedulers.MultiplicativeLR(o, lambda t: 0.9),
    schedulers.StepLR: lambda o, lr: schedulers.StepLR(o, 4, 0.1),
    schedulers.MultiStepLR: lambda o, lr: schedulers.MultiStepLR(o, [3, 6], 0.1),
    schedulers.ConstantLR: lambda o, lr: schedulers.ConstantLR(o, 0.1, 5),
    schedulers.LinearLR: lambda o, lr: schedulers.LinearLR(o, 0.1, 1.0, 5),
    schedulers.ExponentialLR: lambda o, lr: schedulers.ExponentialLR(o, 0.8),
    schedulers.PolynomialLR: lambda o, lr: schedulers.PolynomialLR(o, STEPS),
    schedulers.CosineAnnealingLR: lambda o, lr: schedulers.CosineAnnealingLR(o, STEPS),
    schedulers.CosineAnnealingWarmRestarts: lambda o, lr: schedulers.CosineAnnealingWarmRestarts(o, 5),
    schedulers.ReduceLROnPlateau: lambda o, lr: schedulers.ReduceLROnPlateau(o, patience=1, threshold=1e9),
    schedulers.OneCycleLR: one_cycle,
    schedulers.CyclicLR: cyclic,
    schedulers.SequentialLR: sequential,
    schedulers.ChainedScheduler: chained,
    SWALR: lambda o, lr: SWALR(o, swa_lr=lr / 10, anneal_epochs=4),
}


class Recorded:
    """A scheduler that records the options of the groups at every step."""

    def __init__(self, kind, optimizer, lr: float):
        self.optimizer, self.scheduler = optimizer, SCHEDULERS[kind](optimizer, lr)
        self.loss = [1.0] if kind is schedulers.ReduceLROnPlateau else []
        self.seen: list[tuple] = []

    def step(self) -> None:
        for group in self.optimizer.param_groups:
            self.seen.append((group["lr"], group.get("momentum"), group.get("betas")))
        self.scheduler.step(*self.loss)


def test_every_scheduler_of_torch_is_tested():
    known = {
        cls
        for name, cls in inspect.getmembers(schedulers, inspect.isclass)
        if cls.__module__ == schedulers.__name__ and name.endswith(("LR", "Scheduler", "Plateau", "Restarts"))
    }
    assert known - {schedulers.LRScheduler, schedulers._LRScheduler} == set(SCHEDULERS) - {SWALR}


@pairwise(case=FEW_NAMES, implementation=IMPLEMENTATIONS, kind=SCHEDULERS)
def test_without_strength_a_scheduler_leads_where_it_leads_the_plain_optimizer(case, implementation, kind):
    ours, theirs = wide(), wide()
    lr = CASES[case][1]["lr"]
    optimizer = build_as(implementation, case, ours, lam=0.0, averaging=False)
    plain = build_plain(case, theirs, foreach=False)
    recorded = Recorded(kind, optimizer, lr), Recorded(kind, plain, lr)
    run(ours, optimizer, range(STEPS), recorded[0])
    run(theirs, plain, range(STEPS), recorded[1])
    assert recorded[0].seen == recorded[1].seen
    assert len({rate for rate, *_ in recorded[0].seen}) > 1
    torch.testing.assert_close(flat(ours), flat(theirs), rtol=1e-10, atol=1e-13)


@pairwise(case=FEW_NAMES, implementation=OTHER_IMPLEMENTATIONS, kind=SCHEDULERS)
def test_with_averaging_and_penalty_all_implementations_agree(case, implementation, kind):
    results = []
    for name in ("one by one", implementation):
        model = wide()
        optimizer = build_as(name, case, model)
        run(model, optimizer, range(STEPS), Recorded(kind, optimizer, CASES[case][1]["lr"]))
        results.append(flat(model))
    assert_alike(*results)


@pairwise(
    case=["SGD momentum", "SGD Nesterov", "Adam", "AdamW"],
    implementation=IMPLEMENTATIONS,
    kind=[schedulers.OneCycleLR, schedulers.CyclicLR],
)
def test_cycled_momenta_reach_the_step(case, implementation, kind):
    results = []
    for cycled in (True, False):
        model = wide()
        optimizer = build_as(implementation, case, model, averaging=False)
        recorded = Recorded(kind, optimizer, CASES[case][1]["lr"])
        kept = [{key: group.get(key) for key in ("momentum", "betas")} for group in optimizer.param_groups]
        for step in range(STEPS):
            run(model, optimizer, [step], recorded)
            if not cycled:
                for group, options in zip(optimizer.param_groups, kept, strict=True):
                    group.update({key: value for key, value in options.items() if value is not None})
        assert (len({seen[1:] for seen in recorded.seen}) > 1) is cycled
        results.append(flat(model))
    assert not torch.allclose(*results)


@EACH
@ALL
def test_the_average_of_weights_is_taken_of_sparse_ones(case, implementation):
    model = wide()
    optimizer = build_as(implementation, case, model, lam=100.0)
    averaged = AveragedModel(model)
    for step in range(5):
        run(model, optimizer, [step])
        averaged.update_parameters(model)
    assert not averaged.module[0].weight.any()
    assert averaged.module[2].bias.all()
