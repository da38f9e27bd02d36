"""Networks that benchmarks need and the library's zoo does not have, in their published shapes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    """A bottleneck: 1×1, 3×3 and 1×1 convolutions with a shortcut (He, Zhang, Ren and Sun 2016)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.reduce, self.conv = conv_norm(inputs, width, 1), conv_norm(width, width, 3, stride)
        self.expand = conv_norm(width, 4 * width, 1)
        around = stride > 1 or inputs != 4 * width
        self.around = conv_norm(inputs, 4 * width, 1, stride) if around else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inside = self.expand(F.relu(self.conv(F.relu(self.reduce(x)))))
        return F.relu(inside + self.around(x))


def resnet_50(classes: int = 1000) -> nn.Sequential:
    """ResNet-50 for images of 224 × 224: 25.6 million parameters."""
    layers: list[nn.Module] = [conv_norm(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            width = 64 * 2**stage
            layers.append(Bottleneck(inputs, width, 2 if stage and not block else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def vgg_mnist() -> nn.Sequential:
    """Build a VGG with batch norm for images of 28 × 28."""
    return vgg_of(32)


def vgg_of(width: int, inputs: int = 1) -> nn.Sequential:
    """Build a VGG with batch norm for images: width, 2·width and 4·width channels, two convolutions each."""
    layers: list[nn.Module] = []
    for channels in (width, 2 * width, 4 * width):
        for _ in range(2):
            layers += [conv_norm(inputs, channels, 3), nn.ReLU()]
            inputs = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


def vgg(input_shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Build the same model for the command line, which passes the shape of the data."""
    if (*input_shape, outputs) != (1, 28, 28, 10):
        raise ValueError(f"this VGG is for images of 1×28×28 in 10 classes; got {input_shape} and {outputs}")
    return vgg_mnist()


def wide_cnn(factor: int = 4) -> nn.Sequential:
    """Build the zoo's ``cnn`` with each layer except the last several times as wide."""
    one, two, three = 32 * factor, 64 * factor, 128 * factor
    return nn.Sequential(
        nn.Conv2d(1, one, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(one, two, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(two * 49, three), nn.ReLU(), nn.Linear(three, 10),
    )  # fmt: skip
