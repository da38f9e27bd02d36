"""Metrics of optimizers by their names: those of other packages, none of which is imported here, and steps by signs."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from torchlasso.optim.metric import METRICS, OF_PACKAGES, DiagonalMetric, Metric, NoMetric, metric_of
from torchlasso.optim.unseen import Number, State, age_of, floored_unless_seen
from torchlasso.selection import Group


def metric_for(optimizer: type[Optimizer]) -> Metric | None:
    """Return the metric of an optimizer class, of torch or of another package; None if none is known."""
    return METRICS.get(optimizer) or OF_PACKAGES.get(f"{optimizer.__module__}.{optimizer.__qualname__}")


def names_of_metrics() -> list[str]:
    """Return the names of the optimizers that have a metric, or none by their nature."""
    return sorted({*(cls.__name__ for cls in METRICS), *(name.rpartition(".")[2] for name in OF_PACKAGES)})


@metric_of("torch.optim.rprop.Rprop", "lion_pytorch.lion_pytorch.Lion")
class SignMetric(NoMetric):
    """None: a step is as long for a small gradient as for a large one, in each coordinate or in each singular value."""


@metric_of("torch.optim.Muon", "lion_pytorch.foreach.Lion")
class RealSignMetric(SignMetric):
    """None: see :class:`SignMetric`. These optimizers have no complex sign."""

    takes_complex: ClassVar[bool] = False


@metric_of("schedulefree.sgd_schedulefree.SGDScheduleFree")
class ScheduleFreeMetric(NoMetric):
    """None: the prox of one iterate leaves no zeros in the average of them.

    In the normal-map form all three sequences are of latent weights, and the model has the prox of the one that its
    mode asks for: of y, at which gradients are taken, after ``optimizer.train()``, and of the average x after
    ``optimizer.eval()``.
    """

    reach_steps: ClassVar[float] = 1.0  # averages move less than the sequence that they are of, at a higher rate
    averages_weights: ClassVar[bool] = True

    def rate(self, group: Group) -> float:
        return float(group["scheduled_lr"])  # with the warm-up, which is a part of the optimizer


@metric_of("schedulefree.adamw_schedulefree.AdamWScheduleFree", "schedulefree.radam_schedulefree.RAdamScheduleFree")
class AdamScheduleFreeMetric(ScheduleFreeMetric):
    """None: see :class:`ScheduleFreeMetric`. These optimizers square a complex gradient as a complex number."""

    takes_complex: ClassVar[bool] = False


@metric_of(*(f"torchao.optim.adam.{name}{bits}" for name in ("Adam", "AdamW") for bits in ("8bit", "4bit", "Fp8")))
class QuantizedAdamMetric(NoMetric):
    """None: v and m are known to a few percent only, and a threshold with such a v would be as wrong.

    In the normal-map form gradients come to rest at zero, where the rounding of a relative error vanishes.
    """

    takes_complex: ClassVar[bool] = False

    def options(self, group: Group) -> Group:
        return {**group, "lr": torch.as_tensor(group["lr"], dtype=torch.float32)}  # their step takes no other


@metric_of("transformers.optimization.Adafactor")
class TransformersAdafactorMetric(DiagonalMetric):
    """lr·G·max(ε₂, RMS(w))/max(1, RMS(g/√v)/clip) over √v, the rate being a part of what its momentum averages."""

    sees: ClassVar[bool] = True
    takes_complex: ClassVar[bool] = False

    def check_options(self, group: Group) -> None:
        if group["relative_step"] or group["lr"] is None:
            raise ValueError(
                "transformers.Adafactor with relative_step=True has no rate that a penalty could follow: give lr=..., "
                "relative_step=False (and scale_parameter=False, as transformers.Trainer does)"
            )

    def seen(self, p: Tensor, group: Group) -> State:
        return {"grad": p.grad}

    def gain(self, group: Group, before: Number) -> Number:
        if group["beta1"] is None:
            return group["lr"]
        return group["beta1"] * before + (1 - group["beta1"]) * group["lr"]

    def first_gain(self, group: Group, state: State) -> float:
        left = 0.0 if group["beta1"] is None else group["beta1"] ** age_of(state)
        return float(group["lr"] * (1 - left))

    def reach(self, group: Group, state: State, gain: float) -> float:
        sizes = state["grad"].float().square() / self._square(state)
        clip = max(1.0, sizes.mean().sqrt().item() / group["clip_threshold"])
        length = max(group["eps"][1], float(state["RMS"])) if group["scale_parameter"] else 1.0
        return float(gain * length / clip)

    def scale(self, group: Group, state: State) -> Tensor:
        root = self._square(state).sqrt()
        # ε is the square of a gradient here, and a part of the average
        return floored_unless_seen(root, root, {**group, "eps": max(group["eps"][0] ** 0.5, 1e-8)}, state)

    def _square(self, state: State) -> Tensor:
        if "exp_avg_sq" in state:
            return state["exp_avg_sq"]  # type: ignore[no-any-return]
        row, column = state["exp_avg_sq_row"], state["exp_avg_sq_col"]
        square: Tensor = (row / row.mean(dim=-1, keepdim=True)).unsqueeze(-1) * column.unsqueeze(-2)
        return square
