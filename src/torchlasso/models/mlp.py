"""The multilayer perceptron."""

from __future__ import annotations

from torch import nn

from torchlasso._core.arguments import check_whole
from torchlasso.models.parts import LARGEST, count_features, dense
from torchlasso.models.registry import register

DEEPEST = 1000  # the most hidden layers


@register("mlp")
def mlp(input_shape: tuple[int, ...], outputs: int, *, depth: int = 2, width: int = 256) -> nn.Sequential:
    """Build a multilayer perceptron: ``depth`` hidden layers of ``width`` units with ReLU.

    The inputs are tables (features,) or images (channels, height, width), which are flattened. With ``depth=0`` it
    is a linear model. Source: Rumelhart, Hinton and Williams, Learning representations by
    back-propagating errors, 1986.

    >>> [tuple(w.shape) for w in mlp((13,), 3, depth=1, width=32).parameters()]
    [(32, 13), (32,), (3, 32), (3,)]
    """
    check_whole("model 'mlp': depth", depth, least=0, most=DEEPEST)
    check_whole("model 'mlp': width", width, most=LARGEST)
    return dense(count_features("mlp", input_shape), [width] * depth, outputs)
