"""LeNet-5, the convolutional network of the pruning literature."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from torchlasso.models.parts import image_sizes, start_as_lecun
from torchlasso.models.registry import register


@register("lenet-5")
def lenet_5(input_shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Build LeNet-5 as in Caffe: 20 and 50 filters of 5x5, 2x2 pooling after each, and 500 dense units.

    The inputs are images (channels, height, width) of at least 4x4 pixels. Below 16 pixels, where the
    convolutions would leave no pixels, they are padded by 2. Source: LeCun, Bottou, Bengio and Haffner,
    Gradient-based learning applied to document recognition, 1998, in the version of Caffe's MNIST example
    (Jia et al., 2014), whose only ReLU follows the 500 units.

    >>> sum(w.numel() for w in lenet_5((1, 28, 28), 10).parameters())
    431080
    """
    channels, height, width = image_sizes("lenet-5", input_shape, at_least=4)
    padding = 2 if min(height, width) < 16 else 0

    def shrink(side: int) -> int:
        return (side + 2 * padding - 4) // 2  # one convolution, one pooling

    pixels = shrink(shrink(height)) * shrink(shrink(width))
    layers = OrderedDict[str, nn.Module](
        conv1=nn.Conv2d(channels, 20, kernel_size=5, padding=padding),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(20, 50, kernel_size=5, padding=padding),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(50 * pixels, 500),
        relu=nn.ReLU(),
        head=nn.Linear(500, outputs),
    )
    return start_as_lecun(nn.Sequential(layers))
