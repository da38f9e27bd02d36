"""Blocks that depend on a model and its inputs, by the names that the command line has for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from torchlasso.graph import Inputs, Units
from torchlasso.penalties.blocks import Blocks

UNITS, INPUTS = "units", "inputs"
OF_MODELS: Mapping[str, tuple[str, ...]] = {UNITS: ("by", "only", "weighted"), INPUTS: ()}  # with their options


def blocks_in(name: str, model: nn.Module, example: Tensor, **options: Any) -> Blocks:
    """Make the blocks of this name for a model.

    Args:
        name: one of ``OF_MODELS``.
        model: the model.
        example: rows of its inputs.
        options: of the blocks; for inputs, the groups of features that are one column of a table.

    Raises:
        ValueError: the model cannot be exported, or does not have such blocks.
    """
    makers: Mapping[str, Callable[..., Blocks]] = {UNITS: Units, INPUTS: _inputs}
    return makers[name](model, example, **options)


def _inputs(model: nn.Module, example: Tensor, groups: Mapping[str, list[int]] | None = None) -> Inputs:
    found = Inputs(model, example, groups=groups)
    if len(found.blocks) < 2:
        raise ValueError(
            f"--over inputs has nothing to choose: the model reads its inputs of shape {tuple(example.shape[1:])} as "
            "one feature, such as the channel of a convolution; take a model that reads them one by one, such as mlp"
        )
    return found
