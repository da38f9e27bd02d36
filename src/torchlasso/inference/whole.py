"""Check and time a whole model whose layers run in the chosen ways."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from torchlasso._core.running import ExampleInputs, as_arguments
from torchlasso._core.text import first_line
from torchlasso._core.timing import clock, interleaved
from torchlasso.compaction.verify import disagreement
from torchlasso.inference.choosing import ChosenExecution

# The shares of the layers, by decreasing gain, with which the whole model is tried.
SHARES = (1.0, 0.5, 0.25, 0.0)

GAIN = 0.97  # the model takes at most this share of the original's time, or its layers stay

SLOWER = "the whole model is not faster with it"


@dataclass(frozen=True)
class TimedModel:
    """A model, the choices for its layers, and milliseconds of a run of the original and of this model."""

    model: nn.Module
    choices: list[ChosenExecution]
    before: float
    after: float


def installed(model: nn.Module, choices: Iterable[ChosenExecution]) -> nn.Module:
    """Replace the layers of a model by the chosen modules, in place; return the model or the replaced layer itself."""
    for choice in choices:
        for name in choice.layer.names:
            if not name:
                return choice.module
            model.set_submodule(name, choice.module)
    return model


def working(
    original: nn.Module, model: nn.Module, choices: list[ChosenExecution], inputs: ExampleInputs
) -> list[ChosenExecution]:
    """Return the choices with which the model has the original's outputs; other layers stay dense."""

    def failure(tried: list[ChosenExecution]) -> str:
        args, kwargs = as_arguments(inputs)
        try:
            with torch.no_grad():
                installed(model, tried)(*args, **kwargs)
        except Exception as error:  # any exception: this is the model's own code, which may need a layer's weight
            return f"the model needs it unchanged: {first_line(error, 80)}"
        return ""

    def difference(tried: list[ChosenExecution]) -> str:
        exact = [choice if choice.any_precision else choice.undone("") for choice in tried]
        if not any(choice.replaces for choice in exact):
            return ""
        return disagreement(original, installed(model, exact), inputs)

    return _without(difference, _without(failure, choices))


def _without(trouble: Callable[[list[ChosenExecution]], str], choices: list[ChosenExecution]) -> list[ChosenExecution]:
    """Drop the choices that fail alone, and all choices if the rest still fails together."""
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
    original: nn.Module,
    model: nn.Module,
    choices: list[ChosenExecution],
    inputs: ExampleInputs,
    seconds: float,
    smaller: bool,
) -> TimedModel:
    """Return the first faster model: with all choices, with the choices of most gain, or the original.

    Args:
        original: the original model.
        model: a copy that contains the layers of the choices; it is changed.
        choices: the choices for its layers.
        inputs: inputs of the model.
        seconds: the approximate time for timing.
        smaller: whether the model is smaller than the original, so that it may be faster without any choice.
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
        pairs = zip(times["after"], times["before"], strict=False)  # until one drops out
        if statistics.median(after / before for after, before in pairs) <= GAIN:
            before, after = (1000 * statistics.median(times[name]) for name in ("before", "after"))
            return TimedModel(found, tried, before, after)
    times = interleaved({"before": partial(original, *args, **kwargs)}, seconds / len(SHARES), now)
    before = 1000 * statistics.median(times["before"])
    return TimedModel(original, [choice.undone(choice.why or SLOWER) for choice in choices], before, before)
