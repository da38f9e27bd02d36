"""Run a user's model without side effects on the model or on random number generators."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import random
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from torchlasso._core.copying import copied
from torchlasso._core.kept import children

ExampleInputs = Tensor | tuple[Any, ...] | dict[str, Any]


def as_arguments(example_inputs: ExampleInputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments of a model: a tensor is a single argument, a dict has keywords."""
    if isinstance(example_inputs, dict):
        return (), example_inputs
    return (tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,)), {}


def throwaway(model: nn.Module) -> nn.Module:
    """Copy a model with everything that its forward pass may write, such as buffers and lists, but share parameters."""
    return copied(model, {id(p): p for p in model.parameters()})


def run_once(
    model: nn.Module,
    inputs: ExampleInputs,
    *,
    training: bool = False,
    seed: int = 0,
    within: Iterable[AbstractContextManager[Any]] = (),
) -> Any:
    """Run a copy of a model on examples, without gradients and without side effects.

    Args:
        model: the model; it is not changed, even if it keeps state between calls.
        inputs: a tensor, a tuple of arguments or a dict of keyword arguments.
        training: whether to run in training or in evaluation mode.
        seed: the seed of all random numbers.
        within: a context to run in, such as a mode of torch's functions.
    """
    args, kwargs = as_arguments(inputs)
    model = throwaway(model).train(training)
    with torch.no_grad(), repeatable(seed), ExitStack() as stack:
        for context in within:
            stack.enter_context(context)
        return model(*args, **kwargs)


def as_tree(outputs: Any) -> Any:
    """Convert output objects whose parts torch does not know, such as dataclasses, to dictionaries."""

    def opened(leaf: Any) -> Any:
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            return as_tree({part.name: getattr(leaf, part.name) for part in dataclasses.fields(leaf)})
        return leaf if isinstance(leaf, Tensor) or not children(leaf) else as_tree(dict(children(leaf)))

    return tree_map(opened, outputs)


def tensors_in(outputs: Any) -> list[Tensor]:
    """Return the tensors among outputs, in order."""
    return [leaf for leaf in tree_leaves(as_tree(outputs)) if isinstance(leaf, Tensor)]


def seed_torch(seed: int) -> None:
    """Seed torch's generators, as ``torch.manual_seed`` does.

    Without a GPU this takes microseconds instead of a millisecond: ``torch.manual_seed`` records a stack trace for each
    kind of device, to seed it when it is first used.

    Args:
        seed: of all generators, from 0 on.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@contextlib.contextmanager
def repeatable(seed: int = 0) -> Iterator[None]:
    """Seed torch, numpy and Python so that random numbers repeat, and compile nothing.

    Afterwards all generators have their previous states.
    """
    numpy = sys.modules.get("numpy")  # a model that draws from it has loaded it
    python, drawn = random.getstate(), numpy and numpy.random.get_state()
    with torch.random.fork_rng(), ExitStack() as stack:
        if "torch._dynamo" in sys.modules:  # else nothing is compiled
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        seed_torch(seed)
        random.seed(seed)
        try:
            if numpy:
                numpy.random.seed(seed)
            yield
        finally:
            random.setstate(python)
            if numpy:
                numpy.random.set_state(drawn)


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode; afterwards restore it and the random number generators."""
    modes = [(module, module.training) for module in model.modules()]
    devices = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
    kind = {"device_type": next(iter(devices)).type} if devices else {}
    with torch.random.fork_rng(devices, **kind):
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, mode in modes:
                module.training = mode


class Running:
    """The currently running modules of a model, by path.

    Attributes:
        paths: the innermost last. After an error, the last is the module in which it was raised.
        entered: the number of modules that have started to run.
    """

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.entered = 0

    @property
    def path(self) -> str:
        """The module whose forward pass is running."""
        return self.paths[-1] if self.paths else ""

    @contextlib.contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Follow a model, and the copies of it that are made in this context."""

        def enter(path: str) -> None:
            self.paths.append(path)
            self.entered += 1

        with ExitStack() as stack:  # functions and no methods: a copy of the model shares them
            for path, module in model.named_modules():
                before = module.register_forward_pre_hook(lambda *_, path=path: enter(path))
                stack.callback(before.remove)
                stack.callback(module.register_forward_hook(lambda *_: self.leave()).remove)
            yield

    def leave(self) -> None:
        """Record that the innermost module has ended."""
        self.paths.pop()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Suppress torch's output during an export: it writes whole graphs, and raises everything that matters."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
