"""The default network of the estimators: a linear model plus a multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class SkipNetwork(nn.Module):
    """A multilayer perceptron with a linear skip: V·x + W_k·relu(… relu(W₁·x + b₁) …) + b_k.

    The linear part finds what a linear model can say, so that the hidden layers learn only the rest, as in LassoNet
    (Lemhadri et al. 2021).

    Args:
        inputs: the number of features.
        hidden: the widths of the hidden layers; at least one.
        outputs: the number of outputs.

    Examples:
        >>> import torch
        >>> SkipNetwork(5, (8,), 2)(torch.randn(3, 5)).shape
        torch.Size([3, 2])
    """

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((inputs, *hidden[:-1]), hidden, strict=True):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.skip = nn.Linear(inputs, outputs, bias=False)
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], outputs))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.skip(x) + self.layers(x)
        return found
