"""Run a user's model without a trace: neither in the model nor in any source of random numbers."""

from __future__ import annotations

import contextlib
import copy
import random
import sys
from collections.abc import Iterator

import torch
from torch import nn


def throwaway(model: nn.Module) -> nn.Module:
    """Copy a model with all that its forward pass may write, such as buffers, counters and lists, but no parameters."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


@contextlib.contextmanager
def repeatable(seed: int = 0) -> Iterator[None]:
    """Draw the same random numbers each time, from torch, numpy and Python, and compile nothing.

    Afterwards all generators are as they were.
    """
    numpy = sys.modules.get("numpy")  # a model that draws from it has loaded it
    python, drawn = random.getstate(), numpy and numpy.random.get_state()
    with torch.random.fork_rng(), contextlib.ExitStack() as stack:
        if "torch._dynamo" in sys.modules:  # else nothing is compiled
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        torch.manual_seed(seed)
        random.seed(seed)
        try:
            if numpy:
                numpy.random.seed(seed)
            yield
        finally:
            random.setstate(python)
            if numpy:
                numpy.random.set_state(drawn)
