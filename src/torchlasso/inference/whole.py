"""A whole model whose layers are run in chosen ways: whether it works, and how long it takes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from torchlasso._core.running import Inputs, as_arguments
from torchlasso._core.text import first_line
from torchlasso._core.timing import clock, interleaved
from torchlasso.compaction.verify import disagreement
from torchlasso.inference.choosing import ChosenExecution

# The shares of the layers, those first that win most, with which the whole model is tried.
SHARES = (1.0, 0.5, 0.25, 0.0)

GAIN = 0.97  # of the original's time is what the model takes at most, or its layers stay

SLOWER = "the whole model is not quicker with it"


@dataclass(frozen=True)
class TimedModel:
    """A model, how its layers are run, and milliseconds of a run: of the model as it was, and of this one."""

    model: nn.Module
    choices: list[ChosenExecution]
    before: float
    after: float


def installed(model: nn.Module, choices: Iterable[ChosenExecution]) -> nn.Module:
    """The model with its layers run in these ways; it is changed, unless it is such a layer itself."""
    for choice in choices:
        for name in choice.layer.names:
            if not name:
                return choice.module
            model.set_submodule(name, choice.module)
    return model


def working(
    original: nn.Module, model: nn.Module, choices: list[ChosenExecution], inputs: Inputs
) -> list[ChosenExecution]:
    """The choices with which the model gives what the original gives; a layer with which it does not stays as it is."""

    def failure(tried: list[ChosenExecution]) -> str:
        args, kwargs = as_arguments(inputs)
        try:
            with torch.no_grad():
                installed(model, tried)(*args, **kwargs)
        except Exception as error:  # of any kind: it is the model's own code, which may want a layer's weight
            return f"the model needs it as it is: {first_line(error, 80)}"
        return ""

    def difference(tried: list[ChosenExecution]) -> str:
        exact = [choice if choice.any_precision else choice.undone("") for choice in tried]
        if not any(choice.replaces for choice in exact):
            return ""
        return disagreement(original, installed(model, exact), inputs)

    return _without(difference, _without(failure, choices))


def _without(trouble: Callable[[list[ChosenExecution]], str], choices: list[ChosenExecution]) -> list[ChosenExecution]:
    """The choices without those that give trouble alone, and without any if there is trouble still."""
    if not trouble(choices):
        return choices
    dense, kept = [choice.undone("") for choice in choices], list[ChosenExecution]()
    for i, choice in enumerate(choices):
        why = trouble([*dense[:i], choice, *dense[i + 1 :]]) if choice.replaces else ""
        kept.append(choice.undone(why) if why else choice)
    why = trouble(kept)
    return [choice.undone(why) if choice.replaces else choice for choice in kept] if why else kept


@torch.no_grad()
def quickest(
    original: nn.Module, model: nn.Module, choices: list[ChosenExecution], inputs: Inputs, seconds: float, smaller: bool
) -> TimedModel:
    """The model with all choices, or with those that win most, or the original: the first that is quicker.

    Args:
        original: the model as it was.
        model: the same, whose layers the choices are of; it is changed.
        choices: the ways to run them.
        inputs: of the model.
        seconds: about how long timing may take.
        smaller: whether the model is smaller than the original, so that it may be quicker without any choice.
    """
    args, kwargs = as_arguments(inputs)
    now = clock(next((p.device for p in original.parameters()), torch.device("cpu")))
    ranked = sorted((choice for choice in choices if choice.replaces), key=lambda choice: choice.won, reverse=True)
    for count in dict.fromkeys(math.ceil(share * len(ranked)) for share in SHARES):
        kept = ranked[:count]
        if not (kept or smaller):
            break
        tried = [choice if choice in kept else choice.undone(choice.why or SLOWER) for choice in choices]
        found = installed(model, tried)
        runs = {"before": partial(original, *args, **kwargs), "after": partial(found, *args, **kwargs)}
        times = interleaved(runs, seconds / len(SHARES), now)
        pairs = zip(times["after"], times["before"], strict=False)  # until one of them drops out
        if statistics.median(after / before for after, before in pairs) <= GAIN:
            before, after = (1000 * statistics.median(times[name]) for name in ("before", "after"))
            return TimedModel(found, tried, before, after)
    times = interleaved({"before": partial(original, *args, **kwargs)}, seconds / len(SHARES), now)
    before = 1000 * statistics.median(times["before"])
    return TimedModel(original, [choice.undone(choice.why or SLOWER) for choice in choices], before, before)
