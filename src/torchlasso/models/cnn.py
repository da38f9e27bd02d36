"""A small convolutional network."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from torchlasso.models.parts import image_sizes
from torchlasso.models.registry import register


@register("cnn")
def cnn(input_shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Build two 3x3 convolutions of 32 and 64 channels, each with ReLU and 2x2 pooling, and 128 dense units.

    The inputs are images (channels, height, width) of at least 4x4 pixels. Source: the textbooks' first
    convolutional network; the size of its dense layer comes from the data.

    >>> cnn((1, 28, 28), 10).fc1
    Linear(in_features=3136, out_features=128, bias=True)
    """
    channels, height, width = image_sizes("cnn", input_shape, at_least=4)
    pixels = (height // 4) * (width // 4)  # each of two poolings halves both sides, rounding down
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 32, kernel_size=3, padding=1),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(32, 64, kernel_size=3, padding=1),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(64 * pixels, 128),
            relu3=nn.ReLU(),
            head=nn.Linear(128, outputs),
        )
    )
