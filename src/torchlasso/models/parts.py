"""Parts shared by models: the sizes of an input, dense layers, LeCun's initialisation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

from torch import nn

from torchlasso._core.arguments import is_number

LARGEST = 2**31 - 1  # of a size: what torch counts with in many of its kernels

M = TypeVar("M", bound=nn.Module)


def image_sizes(model: str, input_shape: tuple[int, ...], at_least: int) -> tuple[int, int, int]:
    """Return (channels, height, width); raise ``ValueError`` for a table and for sides below ``at_least``.

    >>> image_sizes("cnn", (1, 28, 28), at_least=4)
    (1, 28, 28)
    """
    if len(input_shape) != 3:
        other = "for texts, use 'text-cnn'" if len(input_shape) == 2 else "for a table, use 'mlp'"
        raise ValueError(
            f"model {model!r} needs images, (channels, height, width), but the input has the shape "
            f"{input_shape}; {other}"
        )
    channels, height, width = input_shape
    if min(height, width) < at_least:
        raise ValueError(
            f"model {model!r} needs images of at least {at_least}x{at_least} pixels, but these have "
            f"{height}x{width}; for smaller images, use 'mlp'"
        )
    return channels, height, width


def text_sizes(model: str, input_shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (length, words) of texts: the most words of a text, and the words of the vocabulary.

    Raises:
        ValueError: the inputs are not texts.

    >>> text_sizes("text-cnn", (50, 1000))
    (50, 1000)
    """
    if len(input_shape) != 2:
        raise ValueError(
            f"model {model!r} needs texts, (length, words), but the input has the shape {input_shape}; "
            "for a table, use 'mlp', or name its column of texts with text="
        )
    return input_shape[0], input_shape[1]


def check_dropout(model: str, p: float) -> None:
    """Raise ``ValueError`` unless a probability of dropout is at least 0 and below 1."""
    if not is_number(p) or not 0 <= p < 1:
        raise ValueError(f"model {model!r}: dropout must be at least 0 and below 1; got {p!r}")


def count_features(model: str, input_shape: tuple[int, ...]) -> int:
    """Count the numbers in an image or a row of a table.

    >>> count_features("mlp", (1, 28, 28)), count_features("mlp", (13,))
    (784, 13)
    """
    if len(input_shape) not in (1, 3):
        raise ValueError(
            f"model {model!r} needs tables, (features,), or images, (channels, height, width), "
            f"but the input has the shape {input_shape}" + "; for texts, use 'text-cnn'" * (len(input_shape) == 2)
        )
    return math.prod(input_shape)


def dense(inputs: int, hidden: Iterable[int], outputs: int) -> nn.Sequential:
    """Build hidden layers ``fc1``, ``fc2``, ..., each with a ReLU, and a last layer ``head``, on flattened inputs.

    >>> [name for name, _ in dense(64, [32], 10).named_children()]
    ['flatten', 'fc1', 'relu1', 'head']
    """
    layers = nn.Sequential()
    layers.add_module("flatten", nn.Flatten())
    for number, width in enumerate(hidden, start=1):
        layers.add_module(f"fc{number}", nn.Linear(inputs, width))
        layers.add_module(f"relu{number}", nn.ReLU())
        inputs = width
    layers.add_module("head", nn.Linear(inputs, outputs))
    return layers


def start_as_lecun(model: M) -> M:
    """Draw weights uniformly with variance 1/fan-in, biases zero, in place (LeCun et al., Efficient BackProp, 1998).

    >>> start_as_lecun(nn.Linear(400, 100)).weight.std().item() * 20 - 1 < 0.02
    True
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model
