"""Making a model smaller while it trains, as soon as enough has died for it to pay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from torchlasso._core.running import Inputs, as_arguments
from torchlasso.compaction.cutting import Cut
from torchlasso.compaction.folding import find_removal
from torchlasso.compaction.operations import multiplications
from torchlasso.compaction.optimizer_state import carry_
from torchlasso.compaction.pipeline import find_cut
from torchlasso.compaction.removal import Removal
from torchlasso.compaction.shrinking import check_agreement
from torchlasso.control import LambdaController
from torchlasso.graph import find_units

# What making a model smaller takes, in multiplications: some seconds. Counted and not timed, so that a run does the
# same each time, and goes on after an interruption as if there had been none.
PRICE = 5e10
PASSES = 3  # multiplications of a training step, to those of a forward pass: the gradients take twice as many


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
        after = multiplications(units.structure, find_removal(units, self.multiple_of))
        if PASSES * (before - after) / self._rows * rows_left < PRICE:
            return None
        cut = find_cut(model, self.example_inputs, self.multiple_of, units)
        check_agreement(cut)
        carry_(cut, model, optimizer, controllers)
        self.records.append(cut.to_dict())
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
            carry_(Cut.from_dict(record, units), model, optimizer, controllers)
            self.records.append(dict(record))
        self._units = find_units(model, self.example_inputs)


def restore_(model: nn.Module, example_inputs: Inputs, records: Iterable[Mapping[str, Any]]) -> None:
    """Make a model as small as one was when this was recorded; its weights are to be loaded afterwards."""
    for record in records:
        Cut.from_dict(record, find_units(model, example_inputs)).apply_(model)
