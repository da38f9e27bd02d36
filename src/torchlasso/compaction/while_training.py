"""Compact a model while it trains, in place: at once, or as soon as enough units are idle for it to pay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from torchlasso._core.arguments import check_model, check_sequence
from torchlasso._core.running import ExampleInputs, as_arguments
from torchlasso._core.wrappers import unwrapped_optimizer
from torchlasso.compaction.api import report_of
from torchlasso.compaction.apply import Compaction
from torchlasso.compaction.config import update_config_
from torchlasso.compaction.operations import multiplications
from torchlasso.compaction.optimizer_state import apply_with_optimizers_, check_optimizer
from torchlasso.compaction.pipeline import find_compaction
from torchlasso.compaction.plan import plan_removal
from torchlasso.compaction.removal import Removal
from torchlasso.compaction.report import CompactionReport, Totals
from torchlasso.distributed import processes
from torchlasso.graph import find_units
from torchlasso.optim.controller import LambdaController

# The cost of a compaction, a few seconds, in multiplications. It is counted and not timed, so that a repeated or
# resumed run does the same.
PRICE = 5e10
PASSES = 3  # a training step takes three times the multiplications of a forward pass: the gradients take two


@torch.inference_mode(mode=False)
def shrink_(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    example_inputs: ExampleInputs,
    *,
    controllers: Iterable[LambdaController] = (),
    multiple_of: int | Literal["auto"] = 1,
) -> CompactionReport:
    """Remove the units that have no effect from a model in training, in place, between two steps.

    The same units are removed as by :func:`torchlasso.compact`. The parameters stay the same objects, with fewer
    elements. The optimizer's state (momentum, second moments), penalties on blocks over several parameters and the
    state of controllers become smaller together with them.

    The outputs stay the same. Later steps stay the same for units that take no part in them: units whose incoming and
    outgoing weights are all zero, and under a penalty on single weights also units that are zero without a gradient, as
    behind a ReLU. Otherwise later steps differ: a row, filter or unit that reads a removed unit has a smaller norm and
    shrinks faster, a constant that was added to a bias is now learnt by the bias alone, and a removed unit that could
    have become active again, as behind a tanh, cannot. :class:`~torchlasso.TargetSparsity` counts removed weights as
    zeros, :class:`~torchlasso.TargetBudget` counts them as saved.

    If several processes train together, all of them have to call this function, with the same example inputs. A wrapper
    such as ``DistributedDataParallel`` holds the parameters: take its ``module``, delete the wrapper, shrink, and wrap
    the model again.

    Args:
        model: a model in training.
        optimizer: the optimizer of the model: any of torch's, proximal or not. Give all of them if several train it.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments. A small batch is enough.
        controllers: the controllers of the optimizer's λ.
        multiple_of: see :func:`torchlasso.compact`.

    Returns:
        The report of the removed units, and of the reasons why others stay.

    Raises:
        ValueError: see :func:`torchlasso.compact`; or the blocks of a penalty, such as chunks, would change in a
            smaller model; or a schedule-free optimizer is not in the mode of ``optimizer.eval()``.
        RuntimeError: another object holds the parameters; or the processes do not agree on the units to remove.

    Examples:
        >>> import torchlasso as tl
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))
        >>> x = torch.randn(200, 4)
        >>> optimizer = tl.ProxAdam(tl.param_groups(net, tl.L1(over=tl.Units(net, x[:2])), lam=1e-2), lr=0.01)
        >>> for step in range(400):
        ...     optimizer.zero_grad()
        ...     (net(x)[:, 0] - x[:, 0].abs()).square().mean().backward()
        ...     optimizer.step()
        ...     if step % 100 == 99:
        ...         report = shrink_(net, optimizer, x[:2])
        >>> net[0].out_features < 10  # of 64: two units make |x₀|
        True
    """
    controllers = [controllers] if isinstance(controllers, LambdaController) else list(controllers)
    check_model("shrink_: model", model)
    optimizers = [optimizer] if isinstance(optimizer, Optimizer) else optimizer
    check_sequence("shrink_: optimizer", optimizers, Optimizer, "the optimizer of the model, or a list of several")
    optimizers = [unwrapped_optimizer(each) for each in optimizers]
    check_sequence("shrink_: controllers", controllers, LambdaController, "controllers of λ, such as torchlasso.Warmup")
    own = set(model.parameters())
    for each in optimizers:
        check_optimizer(each)
        if own.isdisjoint(p for group in each.param_groups for p in group["params"]):
            raise ValueError(
                f"shrink_: {type(each).__name__} has no parameter of the model; make it from the same model, "
                "not from one of which the model is a copy"
            )
    compaction = find_compaction(model, example_inputs, multiple_of)
    check_agreement(compaction)
    before = Totals.of(model, example_inputs)
    apply_with_optimizers_(compaction, model, optimizers, controllers)
    config = update_config_(model, example_inputs)
    return report_of(compaction, before, Totals.of(model, example_inputs), config)


def check_agreement(compaction: Compaction) -> None:
    """Raise on all processes unless all of them found the same units to remove."""
    masks = [mask.clone() for mask in compaction.removal.gone.values()]
    first = [mask.clone() for mask in masks]
    processes.take_from_first_(first)
    different = sum(not torch.equal(a, b) for a, b in zip(masks, first, strict=True))
    if processes.total(float(different)) > 0:
        raise RuntimeError(
            "shrink_: the processes do not agree on the units to remove; give all of them the same example inputs"
        )


class Shrinker:
    """A schedule of compactions: makes a model in training smaller whenever that saves more time than it takes.

    The time that a compaction saves is estimated from the multiplications that it removes and the number of rows that
    are still to be trained on. Nothing is removed while a controller has fewer live weights than its target, since some
    of them have to come back.

    Args:
        model: the model to train.
        example_inputs: see :func:`torchlasso.shrink_`.
        multiple_of: see :func:`torchlasso.shrink_`.

    Attributes:
        records: a record of each compaction, for a checkpoint.

    Raises:
        ValueError: the model cannot be exported.
    """

    def __init__(self, model: nn.Module, example_inputs: ExampleInputs, *, multiple_of: int = 1) -> None:
        self.example_inputs, self.multiple_of = example_inputs, multiple_of
        self.records: list[dict[str, Any]] = []
        self._units = find_units(model, example_inputs)
        first = next(leaf for leaf in tree_leaves(as_arguments(example_inputs)) if isinstance(leaf, Tensor))
        self._rows = len(first)

    def consider(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        controllers: Iterable[LambdaController],
        rows_left: int,
    ) -> float | None:
        """Make the model smaller, if that saves time.

        Args:
            model, optimizers, controllers: see :func:`torchlasso.shrink_`.
            rows_left: the number of rows that the model is still to be trained on, counted in every epoch.

        Returns:
            The remaining share of the multiplications; None if nothing was removed.
        """
        controllers = list(controllers)
        if not all(control.can_lose for control in controllers):
            return None
        units = self._units.now(model)
        before = multiplications(units.structure, Removal({}))
        after = multiplications(units.structure, plan_removal(units, self.multiple_of))
        if PASSES * (before - after) / self._rows * rows_left < PRICE:
            return None
        compaction = find_compaction(model, self.example_inputs, self.multiple_of, units)
        check_agreement(compaction)
        apply_with_optimizers_(compaction, model, optimizers, controllers)
        self.records.append(compaction.to_dict())
        self._units = find_units(model, self.example_inputs)
        return after / before

    def replay(
        self,
        records: Iterable[Mapping[str, Any]],
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        controllers: Iterable[LambdaController],
    ) -> None:
        """Repeat recorded compactions on a model, its optimizers and controllers; load the weights afterwards."""
        for record in records:
            units = find_units(model, self.example_inputs)
            apply_with_optimizers_(Compaction.from_dict(record, units), model, optimizers, controllers)
            self.records.append(dict(record))
        self._units = find_units(model, self.example_inputs)


def restore_(model: nn.Module, example_inputs: ExampleInputs, records: Iterable[Mapping[str, Any]]) -> None:
    """Repeat recorded compactions on a model; load the weights afterwards."""
    for record in records:
        Compaction.from_dict(record, find_units(model, example_inputs)).apply_(model)
