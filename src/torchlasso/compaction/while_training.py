"""Compact a model while it trains, in place: at once, or as soon as enough units are idle for it to pay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from torchlasso._core.arguments import check_kind, check_model, check_sequence
from torchlasso._core.running import Inputs, as_arguments
from torchlasso.compaction.api import report_of
from torchlasso.compaction.apply import Compaction
from torchlasso.compaction.config import update_config_
from torchlasso.compaction.operations import multiplications
from torchlasso.compaction.optimizer_state import apply_with_optimizer_, check_blocks
from torchlasso.compaction.pipeline import find_compaction
from torchlasso.compaction.plan import plan_removal
from torchlasso.compaction.removal import Removal
from torchlasso.compaction.report import CompactionReport, Totals
from torchlasso.control import LambdaController
from torchlasso.distributed import processes
from torchlasso.graph import find_units

# What making a model smaller takes, in multiplications: some seconds. Counted and not timed, so that a run does the
# same each time, and goes on after an interruption as if there had been none.
PRICE = 5e10
PASSES = 3  # multiplications of a training step, to those of a forward pass: the gradients take twice as many


def shrink_(
    model: nn.Module,
    optimizer: Optimizer,
    example_inputs: Inputs,
    *,
    controllers: Iterable[LambdaController] = (),
    multiple_of: int = 1,
) -> CompactionReport:
    """Take out of a model in training what makes no difference to its outputs, in place, between two steps.

    As :func:`torchlasso.compact` does it. The parameters stay the objects that they are, with less in them; what the
    optimizer keeps for each weight (momentum, second moments), blocks of penalties over several parameters and what
    controllers keep go along. The outputs are the same at once, and so is every later step where what goes has no part
    in it: it has none if the weights that make a unit and those that read it are zero, and under a penalty on single
    weights also if the unit is zero and has no gradient, as behind a ReLU. Otherwise the steps differ: a row, filter or
    unit that reads what goes has a smaller norm afterwards and is shrunk faster, a constant that was added to a bias is
    learnt by the bias alone, and a unit that could have woken, as behind a tanh, cannot. What is gone does not come
    back. For :class:`~torchlasso.TargetSparsity` it counts as zeros, for :class:`~torchlasso.TargetBudget` as saved.

    Where processes train together all of them have to make the call, with the same example inputs. A wrapper such as
    ``DistributedDataParallel`` holds on to the parameters: take its ``module``, delete the wrapper, shrink, and wrap
    the model again.

    Args:
        model: in training.
        optimizer: of the model: any of torch's, proximal or not.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments. A small batch is enough.
        controllers: those of the optimizer's λ.
        multiple_of: see :func:`torchlasso.compact`.

    Returns:
        What went, and what stayed and why.

    Raises:
        ValueError: see :func:`torchlasso.compact`; or the blocks of a penalty, such as chunks, would be others in a
            smaller model.
        RuntimeError: something holds on to the parameters; or the processes do not agree on what can go.

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
    check_kind("shrink_: optimizer", optimizer, Optimizer, "the optimizer of the model")
    check_sequence("shrink_: controllers", controllers, LambdaController, "controllers of λ, such as torchlasso.Warmup")
    check_blocks(optimizer)
    compaction = find_compaction(model, example_inputs, multiple_of)
    check_agreement(compaction)
    before = Totals.of(model, example_inputs)
    apply_with_optimizer_(compaction, model, optimizer, controllers)
    config = update_config_(model, example_inputs)
    return report_of(compaction, before, Totals.of(model, example_inputs), config)


def check_agreement(compaction: Compaction) -> None:
    """Raise on all processes unless they found the same."""
    masks = [mask.clone() for mask in compaction.removal.gone.values()]
    first = [mask.clone() for mask in masks]
    processes.take_from_first_(first)
    different = sum(not torch.equal(a, b) for a, b in zip(masks, first, strict=True))
    if processes.total(float(different)) > 0:
        raise RuntimeError(
            "shrink_: the processes do not agree on what can go; give all of them the same example inputs"
        )


class Shrinker:
    """Makes a model in training smaller whenever that saves more time than it takes.

    Nothing goes while less is left than a target asks for, since then some of it has to come back.
    What is saved is reckoned from the multiplications that go and how many rows are still to be trained on.

    Args:
        model: to be trained.
        example_inputs: see :func:`torchlasso.shrink_`.
        multiple_of: likewise.

    Attributes:
        records: what went, each time, such as a checkpoint can hold it.

    Raises:
        ValueError: the model cannot be exported.
    """

    def __init__(self, model: nn.Module, example_inputs: Inputs, *, multiple_of: int = 1) -> None:
        self.example_inputs, self.multiple_of = example_inputs, multiple_of
        self.records: list[dict[str, Any]] = []
        self._units = find_units(model, example_inputs)
        first = next(leaf for leaf in tree_leaves(as_arguments(example_inputs)) if isinstance(leaf, Tensor))
        self._rows = len(first)

    def consider(
        self, model: nn.Module, optimizer: Optimizer, controllers: Iterable[LambdaController], rows_left: int
    ) -> float | None:
        """Make the model smaller, if it pays.

        Args:
            model, optimizer, controllers: see :func:`torchlasso.shrink_`.
            rows_left: how many rows the model is still to be trained on, each as often as it is.

        Returns:
            The share of the multiplications that is left; None if it does not pay.
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
        apply_with_optimizer_(compaction, model, optimizer, controllers)
        self.records.append(compaction.to_dict())
        self._units = find_units(model, self.example_inputs)
        return after / before

    def replay(
        self,
        records: Iterable[Mapping[str, Any]],
        model: nn.Module,
        optimizer: Optimizer,
        controllers: Iterable[LambdaController],
    ) -> None:
        """Make a model as small as one was when this was recorded; its weights are to be loaded afterwards."""
        for record in records:
            units = find_units(model, self.example_inputs)
            apply_with_optimizer_(Compaction.from_dict(record, units), model, optimizer, controllers)
            self.records.append(dict(record))
        self._units = find_units(model, self.example_inputs)


def restore_(model: nn.Module, example_inputs: Inputs, records: Iterable[Mapping[str, Any]]) -> None:
    """Make a model as small as one was when this was recorded; its weights are to be loaded afterwards."""
    for record in records:
        Compaction.from_dict(record, find_units(model, example_inputs)).apply_(model)
