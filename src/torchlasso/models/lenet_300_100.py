"""LeNet-300-100, the dense network of the pruning literature."""

from __future__ import annotations

from torch import nn

from torchlasso.models.parts import count_features, dense, start_as_lecun
from torchlasso.models.registry import register


@register("lenet-300-100")
def lenet_300_100(input_shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Build LeNet-300-100: two hidden layers of 300 and 100 units with ReLU.

    The inputs are images (channels, height, width), which are flattened, or tables (features,). Source: LeCun,
    Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998, with the
    ReLU of today's pruning literature.

    >>> sum(w.numel() for w in lenet_300_100((1, 28, 28), 10).parameters())
    266610
    """
    return start_as_lecun(dense(count_features("lenet-300-100", input_shape), [300, 100], outputs))
