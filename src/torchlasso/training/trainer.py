"""Training on rows in memory or on a disk, with the same result to the last bit after a resume.

If several processes train together (:mod:`torchlasso.distributed.processes`), each process has all rows and computes
its share of every batch. All end with the same weights and figures. They equal those of a single process up to
rounding, unless the model has batch norms, which see only the rows of their process, or draws random numbers, which
differ by process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from torchlasso._core.running import seed_torch
from torchlasso.compaction import Shrinker
from torchlasso.distributed import processes
from torchlasso.optim.controller import LambdaController
from torchlasso.selection import Group
from torchlasso.training.losses import Loss
from torchlasso.training.plan import BF16, Plan
from torchlasso.training.regularisation import Regularisation
from torchlasso.training.rows import InputRows, input_batches
from torchlasso.training.schedules import rate

Term = Callable[[Tensor, Tensor], Tensor]  # (outputs for some training rows, indices of these rows) ↦ a number


@dataclass(frozen=True)
class Step:
    """The state of training at a step, for an observer."""

    epoch: int
    step: int
    steps: int
    loss: float


class Trainer:
    """A model, its optimizer and the training rows.

    Args:
        model: the model, trained in place.
        optimizer: its optimizer, with the initial learning rates.
        loss: (outputs, targets) ↦ mean loss.
        rows: the training inputs and targets, on the model's device.
        plan: the length and the order of training.
        extra: a term added to the loss of every step, such as the plain penalty or a distillation.

    Attributes:
        controls: controllers of λ, called after every step; add your own.
        regularisation: changes to the inputs of each batch, and another loss to minimise; none unless you set them.
        shrinker: removes dead units from the model; None unless you set it.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        rows: tuple[InputRows, Tensor],
        plan: Plan,
        extra: Term | None = None,
    ) -> None:
        self.model, self.optimizer, self.loss, self.plan, self.extra = model, optimizer, loss, plan, extra
        self.x, self.y = rows
        self.controls: list[LambdaController] = []
        self.regularisation = Regularisation()
        self.shrinker: Shrinker | None = None
        self.epoch, self.batch, self.seconds = 0, 0, 0.0  # self.batch: those of the epoch that are done
        self.total = 0.0  # of the losses of these batches
        full, rest = divmod(len(self.x), plan.batch_size)
        # a last batch of a single row would have no variance for a batch norm
        self.batches = full + (rest > 1 or not full)
        shape = {"warmup": plan.warmup, "decay": plan.decay}
        self.scheduler = LambdaLR(optimizer, lambda step: rate(plan.schedule, step, self.steps, **shape))

    @property
    def steps(self) -> int:
        """The number of steps of the whole training."""
        return self.batches * self.plan.epochs

    def run_epoch(self, watch: Callable[[Step], None] | None = None, save: Callable[[], None] | None = None) -> float:
        """Train for one epoch, or to its end, and return the mean of ``loss`` over its steps.

        It is the mean of ``loss``, whatever else was added or minimised.

        Args:
            watch: called after each step.
            save: called after every ``plan.save_every`` steps within the epoch; it may keep :meth:`state_dict`.

        Raises:
            FloatingPointError: the loss became infinite or NaN; the message says at which step.
        """
        seed_torch(_mix(self.plan.seed, self.epoch))
        order = torch.randperm(len(self.x)).to(self.x.device)
        every = self.plan.save_every or self.batches
        while self.batch < self.batches:
            end = min(self.batch - self.batch % every + every, self.batches)
            self._run_steps(order, end, watch)
            if end < self.batches and save is not None:
                save()
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            step = (self.epoch + 1) * self.batches
            raise FloatingPointError(f"weights became infinite or NaN at step {step}, and so does the loss")
        mean = self.total / self.batches
        self.epoch, self.batch, self.total = self.epoch + 1, 0, 0.0
        return mean

    def _run_steps(self, order: Tensor, end: int, watch: Callable[[Step], None] | None) -> None:
        """Train from the next batch of the epoch to before the batch ``end``; random numbers follow from the first."""
        start = time.perf_counter()
        self.model.train()
        if self.batch:  # as after a resume here; the beginning of an epoch is seeded before the order of its rows
            seed_torch(_mix(self.plan.seed, self.epoch, self.batch))
        processes.own_randomness()
        size = self.plan.batch_size
        dealt = [processes.own_rows(order[i * size : (i + 1) * size]) for i in range(self.batch, end)]
        parts = [own.tensor_split(min(self.plan.parts, len(own))) for own, _ in dealt]
        inputs = input_batches(self.x, (part for each in parts for part in each))
        for each, (_, share) in zip(parts, dealt, strict=True):
            value = self._update(each, share, inputs)
            self.scheduler.step()
            for control in self.controls:
                control.step()
            self.batch += 1
            step = self.epoch * self.batches + self.batch
            if not math.isfinite(value):
                raise FloatingPointError(f"the loss became {value} at step {step}, in epoch {self.epoch + 1}")
            self.total += value
            if watch is not None:
                watch(Step(self.epoch + 1, step, self.steps, self.total / self.batch))
        processes.take_from_first_(self.model.buffers())
        self.seconds += time.perf_counter() - start

    def shrink(self) -> float | None:
        """Remove dead units from the model if this saves time by the end.

        Returns:
            The share of its multiplications left; None if the model stays unchanged.
        """
        togo = self.plan.epochs - self.epoch
        if self.shrinker is None or not togo:
            return None
        start = time.perf_counter()
        left = self.shrinker.consider(self.model, [self.optimizer], self.controls, togo * len(self.x))
        self.seconds += time.perf_counter() - start
        return left

    def rehearse(self) -> None:
        """Make one update, so that an impossible training fails at once. Do not use the model afterwards."""
        self.model.train()
        rows = torch.arange(min(len(self.x), self.plan.batch_size), device=self.x.device)
        own, share = processes.own_rows(rows)
        parts = own.tensor_split(min(self.plan.parts, len(own)))
        self._update(parts, share, input_batches(self.x, parts))

    def _update(self, parts: Sequence[Tensor], share: float, inputs: Iterator[Tensor]) -> float:
        """Make a step on the rows of ``parts``, whose inputs are the next ones of ``inputs``."""
        self.optimizer.zero_grad()
        total, count = 0.0, sum(map(len, parts))
        for rows in parts:
            weight = share * (len(rows) / count)
            loss, minimised = self._losses(next(inputs), rows)
            (minimised * weight).backward()  # type: ignore[no-untyped-call]
            total += loss.item() * weight
        processes.add_up_gradients_(self.model.parameters())
        if self.plan.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip)
        self.optimizer.step()
        return processes.total(total)

    def _losses(self, inputs: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of some rows, and what is minimised for them."""
        x, y = self.regularisation.inputs(inputs), self.y[rows]
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.plan.precision == BF16):
            outputs = self.model(x)
        outputs = outputs.float() if self.plan.precision == BF16 else outputs
        loss = self.loss(outputs, y)
        minimised = loss if self.regularisation.is_plain else self.regularisation.minimised(self.loss, outputs, y, rows)
        return loss, minimised if self.extra is None else minimised + self.extra(outputs, rows)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that :meth:`load_state_dict` needs for an exact resume."""
        scheduler = {k: v for k, v in self.scheduler.state_dict().items() if k != "lr_lambdas"}
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "total": self.total,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": scheduler,
            "controls": [control.state_dict() for control in self.controls],
            "shrinks": [] if self.shrinker is None else self.shrinker.records,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state.

        The order of rows and all random numbers follow from the plan's seed, the epoch and the batch. The state may be
        that of a shorter plan: the learning rate is what this plan has at the step.
        """
        if self.shrinker is not None:
            self.shrinker.replay(state["shrinks"], self.model, [self.optimizer], self.controls)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict({**state["scheduler"], "lr_lambdas": [None] * len(self.optimizer.param_groups)})
        rates = zip(self.scheduler.base_lrs, self.scheduler.lr_lambdas, strict=True)
        for group, (base, factor) in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = base * factor(self.scheduler.last_epoch)
        for control, kept in zip(self.controls, state["controls"], strict=True):
            control.load_state_dict(kept)
        self.epoch, self.seconds = int(state["epoch"]), float(state["seconds"])
        self.batch, self.total = int(state.get("batch", 0)), float(state.get("total", 0.0))


def _mix(seed: int, epoch: int, batch: int = 0) -> int:
    """Make a seed for an epoch, or for its steps from a batch on, different for every pair."""
    return (seed * 1_000_003 + epoch + batch * 1_000_000_007) % 2**63


def support(groups: Iterable[Group]) -> Tensor:
    """Return a mask of the penalised weights that are not zero, in the order of the groups."""
    params = (p for group in groups if group["penalty"] is not None for p in group["params"])
    return torch.cat([p.detach().flatten() != 0 for p in params])


def sparsity(groups: Iterable[Group], of: int | None = None) -> float:
    """Return the share of zeros among the penalised weights.

    ``of``: the number of weights before some were removed; removed weights count as zeros.
    """
    alive = support(groups)
    total = len(alive) if of is None else of
    return (total - int(alive.sum())) / total
