"""When to make a model smaller while it trains: as soon as enough has died for it to pay."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from torchlasso import distributed
from torchlasso.compact.compacting import Cut, find_cut
from torchlasso.compact.folding import find_removal
from torchlasso.compact.operations import multiplications
from torchlasso.compact.removal import Removal
from torchlasso.compact.shrinking import carry_, check_agreement
from torchlasso.control import LambdaController
from torchlasso.graph import find_units
from torchlasso.graph.tracing import Inputs

WORTH = 1.5  # how many times what it costs is to be saved
GUESS = 4.0  # what it costs at first, to the time in which units are found


class Shrinker:
    """Makes a model in training smaller whenever that saves more time than it takes.

    Nothing goes while less is left than a target asks for, since then some of it has to come back.
    What is saved is reckoned from the multiplications that go, the time that is left, and how long it took last time.

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
        start = time.perf_counter()
        self._units = find_units(model, example_inputs)
        self._cost = GUESS * (time.perf_counter() - start)

    def consider(
        self, model: nn.Module, optimizer: Optimizer, controllers: Iterable[LambdaController], seconds_left: float
    ) -> float | None:
        """Make the model smaller, if it pays.

        Args:
            model, optimizer, controllers: see :func:`torchlasso.shrink_`.
            seconds_left: how long training would still take with the model as it is.

        Returns:
            The share of the multiplications that is left; None if it does not pay.
        """
        controllers = list(controllers)
        if not all(control.can_lose for control in controllers):
            return None
        units = self._units.now(model)
        before = multiplications(units.structure, Removal({}))
        after = multiplications(units.structure, find_removal(units, self.multiple_of))
        saved = (1 - after / before) * seconds_left if before else 0.0
        pays = torch.tensor([saved > WORTH * self._cost])
        distributed.take_from_first_([pays])  # no two processes measure the same
        if not pays.item():
            return None
        start = time.perf_counter()
        cut = find_cut(model, self.example_inputs, self.multiple_of, units)
        check_agreement(cut)
        carry_(cut, model, optimizer, controllers)
        self.records.append(cut.to_dict())
        self._units = find_units(model, self.example_inputs)
        self._cost = time.perf_counter() - start
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
