"""Training on tensors in memory, one epoch at a time, with the same result to the last bit after a resume.

If several processes train together (:mod:`torchlasso.distributed.processes`), each process has all rows and computes
its share of every batch. All end with the same weights and figures. They equal those of a single process up to
rounding, unless the model has batch norms, which see only the rows of their process, or draws random numbers, which
differ by process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from torchlasso._core.running import seed_torch
from torchlasso.compaction import Shrinker
from torchlasso.control import LambdaController
from torchlasso.distributed import processes
from torchlasso.selection import Group
from torchlasso.training.plan import BF16, Plan
from torchlasso.training.regularisation import Regularisation
from torchlasso.training.rows import InputRows, input_batch
from torchlasso.training.schedules import rate
from torchlasso.training.survival import cox

Loss = Callable[[Tensor, Tensor], Tensor]
Term = Callable[[Tensor, Tensor], Tensor]  # (outputs for some training rows, indices of these rows) ↦ a number
EVALUATION_BATCH = 1024

LOSSES: Mapping[str, Loss] = {
    "cross-entropy": nn.functional.cross_entropy,
    "mse": nn.functional.mse_loss,
    "cox": cox,
}


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
        self.epoch, self.seconds = 0, 0.0
        full, rest = divmod(len(self.x), plan.batch_size)
        # a last batch of a single row would have no variance for a batch norm
        self.batches = full + (rest > 1 or not full)
        shape = {"warmup": plan.warmup, "decay": plan.decay}
        self.scheduler = LambdaLR(optimizer, lambda step: rate(plan.schedule, step, self.steps, **shape))

    @property
    def steps(self) -> int:
        """The number of steps of the whole training."""
        return self.batches * self.plan.epochs

    def run_epoch(self, watch: Callable[[Step], None] | None = None) -> float:
        """Train for one epoch and return the mean of ``loss`` over its steps, whatever else was added or minimised.

        Raises:
            FloatingPointError: the loss became infinite or NaN; the message says at which step.
        """
        start = time.perf_counter()
        self.model.train()
        seed_torch(_mix(self.plan.seed, self.epoch))
        order = torch.randperm(len(self.x)).to(self.x.device)
        processes.own_randomness()
        total = 0.0
        for batch in range(self.batches):
            rows = order[batch * self.plan.batch_size : (batch + 1) * self.plan.batch_size]
            value = self._update(rows)
            self.scheduler.step()
            for control in self.controls:
                control.step()
            if not math.isfinite(value):
                step = self.epoch * self.batches + batch + 1
                raise FloatingPointError(f"the loss became {value} at step {step}, in epoch {self.epoch + 1}")
            total += value
            if watch is not None:
                watch(Step(self.epoch + 1, self.epoch * self.batches + batch + 1, self.steps, total / (batch + 1)))
        processes.take_from_first_(self.model.buffers())
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            step = (self.epoch + 1) * self.batches
            raise FloatingPointError(f"weights became infinite or NaN at step {step}, and so does the loss")
        self.epoch += 1
        self.seconds += time.perf_counter() - start
        return total / self.batches

    def shrink(self) -> float | None:
        """Remove dead units from the model if this saves time by the end.

        Returns:
            The share of its multiplications left; None if the model stays unchanged.
        """
        togo = self.plan.epochs - self.epoch
        if self.shrinker is None or not togo:
            return None
        start = time.perf_counter()
        left = self.shrinker.consider(self.model, self.optimizer, self.controls, togo * len(self.x))
        self.seconds += time.perf_counter() - start
        return left

    def rehearse(self) -> None:
        """Make one update, so that an impossible training fails at once. Do not use the model afterwards."""
        self.model.train()
        self._update(torch.arange(min(len(self.x), self.plan.batch_size), device=self.x.device))

    def _update(self, rows: Tensor) -> float:
        own, share = processes.own_rows(rows)
        self.optimizer.zero_grad()
        total = 0.0
        for part in own.tensor_split(min(self.plan.parts, len(own))):
            weight = share * (len(part) / len(own))
            loss, minimised = self._losses(part)
            (minimised * weight).backward()  # type: ignore[no-untyped-call]
            total += loss.item() * weight
        processes.add_up_gradients_(self.model.parameters())
        if self.plan.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip)
        self.optimizer.step()
        return processes.total(total)

    def _losses(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of some rows, and what is minimised for them."""
        x, y = self.regularisation.inputs(input_batch(self.x, rows)), self.y[rows]
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.plan.precision == BF16):
            outputs = self.model(x)
        outputs = outputs.float() if self.plan.precision == BF16 else outputs
        loss = self.loss(outputs, y)
        minimised = loss if self.regularisation.loss is None else self.regularisation.loss(outputs, y)
        return loss, minimised if self.extra is None else minimised + self.extra(outputs, rows)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that :meth:`load_state_dict` needs for an exact resume."""
        scheduler = {k: v for k, v in self.scheduler.state_dict().items() if k != "lr_lambdas"}
        return {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": scheduler,
            "controls": [control.state_dict() for control in self.controls],
            "shrinks": [] if self.shrinker is None else self.shrinker.records,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state. The order of rows and all random numbers follow from the plan's seed and the epoch."""
        if self.shrinker is not None:
            self.shrinker.replay(state["shrinks"], self.model, self.optimizer, self.controls)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict({**state["scheduler"], "lr_lambdas": [None] * len(self.optimizer.param_groups)})
        for control, kept in zip(self.controls, state["controls"], strict=True):
            control.load_state_dict(kept)
        self.epoch, self.seconds = int(state["epoch"]), float(state["seconds"])


def _mix(seed: int, epoch: int) -> int:
    """Make a seed for an epoch, different for every pair."""
    return (seed * 1_000_003 + epoch) % 2**63


@dataclass(frozen=True)
class Evaluation:
    """The mean loss on some rows, and for classes the accuracy and the error as fractions.

    ``balanced_error`` is the mean error of the classes: 1 minus the balanced accuracy. It is None for regression.
    """

    loss: float
    accuracy: float | None
    error: float | None
    balanced_error: float | None = None


@torch.no_grad()
def evaluate(model: nn.Module, loss: Loss, x: InputRows, y: Tensor) -> Evaluation:
    """Evaluate ``model`` on rows."""
    return evaluate_outputs(outputs_of(model, x), loss, y)


def evaluate_outputs(outputs: Tensor, loss: Loss, y: Tensor) -> Evaluation:
    """Compare outputs with their targets; integer targets are classes."""
    value = loss(outputs, y).item()
    if y.is_floating_point():
        return Evaluation(value, None, None)
    wrong = outputs.argmax(dim=1) != y
    error, rows = int(wrong.sum()) / len(y), torch.bincount(y)
    missed = torch.bincount(y[wrong], minlength=len(rows))[rows > 0]
    return Evaluation(value, 1 - error, error, float((missed / rows[rows > 0]).mean()))


def balanced_error_of_one_answer(y: Tensor) -> float:
    """Return the balanced error of the same answer for all rows: that of guessing.

    >>> balanced_error_of_one_answer(torch.tensor([0, 0, 0, 2]))
    0.5
    """
    return 1 - 1 / max(1, int(torch.bincount(y).count_nonzero()))


@torch.no_grad()
def outputs_of(model: nn.Module, x: InputRows) -> Tensor:
    """Compute the outputs of ``model`` for all rows, in batches and in evaluation mode."""
    model.eval()
    outputs = [model(x[rows]) for rows in processes.dealt(_batches(len(x)))]
    return torch.cat(processes.collected(outputs, x.device))


def full_gradient(model: nn.Module, loss: Loss, x: InputRows, y: Tensor) -> None:
    """Set every parameter's ``grad`` to the gradient of the mean loss over all rows, in evaluation mode."""
    model.eval()
    model.zero_grad()
    slope = _slope(model, loss, x, y) if loss is cox else None  # of rows that are at risk together
    for rows in processes.dealt(_batches(len(x))):
        if slope is None:
            part = loss(model(x[rows]), y[rows]) * (len(y[rows]) / len(x))
        else:
            part = (model(x[rows]) * slope[rows]).sum()
        part.backward()  # type: ignore[no-untyped-call]
    for p in model.parameters():
        if p.grad is None:  # the loss does not depend on it
            p.grad = torch.zeros_like(p)
    processes.add_up_gradients_(model.parameters())


def _slope(model: nn.Module, loss: Loss, x: InputRows, y: Tensor) -> Tensor:
    """Return the gradient of the loss by the outputs of all rows."""
    outputs = outputs_of(model, x).requires_grad_()
    [slope] = torch.autograd.grad(loss(outputs, y), [outputs])
    return slope


def _batches(n: int) -> Iterator[slice]:
    return (slice(i, i + EVALUATION_BATCH) for i in range(0, n, EVALUATION_BATCH))


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
