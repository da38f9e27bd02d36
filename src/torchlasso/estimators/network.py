"""The default network of the estimators, a linear model plus a multilayer perceptron; and the features of networks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from torchlasso.graph import Inputs


class SkipNetwork(nn.Module):
    """A multilayer perceptron with a linear skip: V·x + W_k·relu(… relu(W₁·x + b₁) …) + b_k.

    The linear part finds what a linear model can say, so that the hidden layers learn only the rest, as in LassoNet
    (Lemhadri et al. 2021).

    Args:
        inputs: the number of features.
        hidden: the widths of the hidden layers; at least one.
        outputs: the number of outputs.
        has_constant: whether there is b_k. A loss that ignores it would leave it to Adam, whose steps turn the rounding
            of its gradient, which is 0, into a number.

    Examples:
        >>> import torch
        >>> SkipNetwork(5, (8,), 2)(torch.randn(3, 5)).shape
        torch.Size([3, 2])
    """

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, has_constant: bool = True) -> None:
        super().__init__()
        self.sizes = (inputs, tuple(hidden), outputs, has_constant)
        layers: list[nn.Module] = []
        for before, after in zip((inputs, *hidden[:-1]), hidden, strict=True):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.skip = nn.Linear(inputs, outputs, bias=False)
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], outputs, has_constant))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.skip(x) + self.layers(x)
        return found


def feature_blocks(
    network: nn.Module, x: Tensor, groups: Sequence[Sequence[int]], weights: Sequence[float], keep: Sequence[int]
) -> Inputs:
    """Return the features of a network as blocks, see :class:`~torchlasso.graph.Inputs`.

    Those of the default network depend on its sizes only. They are found once for all folds, halves and λ, since the
    export of a small network takes as long as many steps of its training.

    Args:
        network: the network.
        x: two rows.
        groups, weights, keep: see :class:`~torchlasso.graph.Inputs`.
    """
    if type(network) is not SkipNetwork or not all(p.requires_grad for p in network.parameters()):
        return Inputs(network, x, groups=groups, weights=weights, keep=keep)
    return _blocks_of_sizes(network.sizes, tuple(map(tuple, groups)), tuple(weights), tuple(keep))


@lru_cache(maxsize=8)
def _blocks_of_sizes(
    sizes: tuple[int, tuple[int, ...], int, bool],
    groups: tuple[tuple[int, ...], ...],
    weights: tuple[float, ...],
    keep: tuple[int, ...],
) -> Inputs:
    with torch.random.fork_rng():
        network = SkipNetwork(*sizes)
    return Inputs(network, torch.zeros(2, sizes[0]), groups=groups, weights=weights, keep=keep)
