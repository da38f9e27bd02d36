"""Small convolutional architectures, in one dimension, two and three."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.architecture_parts import (
    Branches,
    Example,
    Residual,
    SqueezeExcite,
    architecture,
    classify,
    conv_norm,
    images,
    norm_conv,
)


@architecture("vgg")
def vgg() -> Example:
    features = [conv_norm(3, 6), nn.MaxPool2d(2), conv_norm(6, 8), conv_norm(8, 8), nn.MaxPool2d(2)]
    head = [nn.Linear(8 * 16, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 5)]
    return nn.Sequential(*features, nn.Flatten(), *head), images(16)


def basic(inputs: int, outputs: int, stride: int) -> Residual:
    inside = nn.Sequential(conv_norm(inputs, outputs, 3, stride), conv_norm(outputs, outputs, act=None))
    return Residual(inside, downsample(inputs, outputs, stride), nn.ReLU())


def bottleneck(inputs: int, outputs: int, stride: int, groups: int = 1) -> Residual:
    middle = outputs // 2
    inside = [
        conv_norm(inputs, middle, 1),
        conv_norm(middle, middle, 3, stride, groups),
        conv_norm(middle, outputs, 1, act=None),
    ]
    return Residual(nn.Sequential(*inside), downsample(inputs, outputs, stride), nn.ReLU())


def downsample(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    return conv_norm(inputs, outputs, 1, stride, act=None) if stride > 1 or inputs != outputs else None


def resnet(block: Callable[[int, int, int], nn.Module]) -> Example:
    stem = [nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    blocks = [block(8, 8, 1), block(8, 8, 1), block(8, 12, 2), block(12, 12, 1)]
    return nn.Sequential(*stem, *blocks, classify(12)), images(32)


architecture("resnet-basic")(partial(resnet, basic))
architecture("resnet-bottleneck")(partial(resnet, bottleneck))
architecture("resnext")(partial(resnet, partial(bottleneck, groups=2)))


class PreActivation(nn.Module):
    """The block of a pre-activation ResNet: where the shape changes the shortcut starts after the first norm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm, self.first = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = norm_conv(outputs, outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(x))
        return (x if self.shortcut is None else self.shortcut(y)) + self.second(self.first(y))


@architecture("resnet-preactivation")
def preactivation() -> Example:
    blocks = [PreActivation(8, 8, 1), PreActivation(8, 12, 2), PreActivation(12, 12, 1)]
    last = [nn.BatchNorm2d(12), nn.ReLU(), classify(12)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), *blocks, *last), images(16)


@architecture("densenet")
def densenet() -> Example:
    def dense(inputs: int, growth: int = 4) -> Branches:
        return Branches(nn.Identity(), nn.Sequential(norm_conv(inputs, 2 * growth, 1), norm_conv(2 * growth, growth)))

    def transition(inputs: int) -> nn.Sequential:
        return nn.Sequential(norm_conv(inputs, inputs // 2, 1), nn.AvgPool2d(2))

    stem = [nn.Conv2d(3, 8, 3, padding=1, bias=False)]
    blocks = [dense(8), dense(12), transition(16), dense(8), dense(12)]
    return nn.Sequential(*stem, *blocks, nn.BatchNorm2d(16), nn.ReLU(), classify(16)), images(16)


def inverted(
    inputs: int, outputs: int, stride: int, expand: int, act: type[nn.Module], kernel: int = 3, excite: bool = False
) -> nn.Module:
    """The inverted residual of MobileNets: wide and depthwise in the middle, narrow at both ends."""
    wide = inputs * expand
    inside = [
        conv_norm(inputs, wide, 1, act=act) if expand > 1 else nn.Identity(),
        conv_norm(wide, wide, kernel, stride, wide, act),
        SqueezeExcite(wide, 4) if excite else nn.Identity(),
        conv_norm(wide, outputs, 1, act=None),
    ]
    body = nn.Sequential(*inside)
    return Residual(body) if stride == 1 and inputs == outputs else body


@architecture("mobilenet-v2")
def mobilenet_v2() -> Example:
    block = partial(inverted, act=nn.ReLU6)
    blocks = [block(8, 6, 1, 1), block(6, 8, 2, 3), block(8, 8, 1, 3), block(8, 10, 2, 3)]
    last = conv_norm(10, 16, 1, act=nn.ReLU6)
    return nn.Sequential(conv_norm(3, 8, 3, 2, act=nn.ReLU6), *blocks, last, classify(16)), images(32)


@architecture("mobilenet-v3")
def mobilenet_v3() -> Example:
    block = partial(inverted, act=nn.Hardswish, excite=True)
    blocks = [
        inverted(8, 8, 2, 1, nn.ReLU, excite=True),
        block(8, 10, 2, 3, kernel=5),
        block(10, 10, 1, 3, kernel=5),
        conv_norm(10, 16, 1, act=nn.Hardswish),
    ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 12), nn.Hardswish(), nn.Linear(12, 5)]
    return nn.Sequential(conv_norm(3, 8, 3, 2, act=nn.Hardswish), *blocks, *head), images(32)


class ChannelNorm(nn.Module):
    """Layer normalization over channels, which are put last for it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(channels, channels, 7, padding=3, groups=channels), nn.LayerNorm(channels)
        self.up, self.down = nn.Linear(channels, 3 * channels), nn.Linear(3 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


@architecture("convnext")
def convnext() -> Example:
    stem = [nn.Conv2d(3, 6, 4, 4), ChannelNorm(6)]
    halve = [ChannelNorm(6), nn.Conv2d(6, 8, 2, 2)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, 5)]
    return nn.Sequential(*stem, ConvNeXtBlock(6), *halve, ConvNeXtBlock(8), ConvNeXtBlock(8), *head), images(32)


class UNet(nn.Module):
    """A U-net: down, and up again with the values from the way down concatenated."""

    def __init__(self, widths: tuple[int, ...] = (6, 8, 10)) -> None:
        super().__init__()
        pairs = list(zip(widths[1:], widths[:-1], strict=True))
        self.first = self._double(3, widths[0])
        self.down = nn.ModuleList(nn.Sequential(nn.MaxPool2d(2), self._double(b, a)) for a, b in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in reversed(pairs))
        self.merge = nn.ModuleList(self._double(2 * b, b) for _, b in reversed(pairs))
        self.last = nn.Conv2d(widths[0], 2, 1)

    def _double(self, inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(conv_norm(inputs, outputs), conv_norm(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.first(x)]
        for down in self.down:
            skips.append(down(skips[-1]))
        y = skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            y = merge(torch.cat([skips.pop(), up(y)], dim=1))
        return self.last(y)


@architecture("unet")
def unet() -> Example:
    return UNet(), images(16)


@architecture("inception")
def inception() -> Example:
    def block(inputs: int) -> Branches:
        return Branches(
            conv_norm(inputs, 4, 1),
            nn.Sequential(conv_norm(inputs, 3, 1), conv_norm(3, 5)),
            nn.Sequential(conv_norm(inputs, 3, 1), conv_norm(3, 4, 5)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_norm(inputs, 3, 1)),
        )

    return nn.Sequential(conv_norm(3, 6), block(6), nn.MaxPool2d(2), block(16), classify(16)), images(16)


class ShuffleUnit(nn.Module):
    """Half of the channels, or a second branch, beside what becomes of the other half, shuffled."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        before = inputs if stride > 1 else inputs // 2
        self.main = nn.Sequential(
            conv_norm(before, half, 1), conv_norm(half, half, 3, stride, half, act=None), conv_norm(half, half, 1)
        )
        self.side = None
        if stride > 1:
            self.side = nn.Sequential(
                conv_norm(inputs, inputs, 3, stride, inputs, act=None), conv_norm(inputs, half, 1)
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.side is None:
            kept, changed = x.chunk(2, dim=1)
        else:
            kept, changed = self.side(x), x
        y = torch.cat([kept, self.main(changed)], dim=1)
        batch, channels, height, width = y.shape
        return y.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


@architecture("shufflenet-v2")
def shufflenet_v2() -> Example:
    units = [ShuffleUnit(6, 24, 2), ShuffleUnit(24, 24, 1), ShuffleUnit(24, 32, 2), ShuffleUnit(32, 32, 1)]
    return nn.Sequential(conv_norm(3, 6), *units, conv_norm(32, 12, 1), classify(12)), images(16)


@architecture("groupnorm")
def groupnorm() -> Example:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(outputs // 2, outputs), nn.SiLU()]

    return nn.Sequential(*block(3, 8), Residual(nn.Sequential(*block(8, 8))), *block(8, 12), classify(12)), images(16)


@architecture("instancenorm")
def instancenorm() -> Example:
    """A network that gives an image for an image: down, residual blocks and up."""

    def block(layer: nn.Module, channels: int) -> nn.Sequential:
        return nn.Sequential(layer, nn.InstanceNorm2d(channels, affine=True), nn.ReLU())

    body = [
        block(nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"), 6),
        block(nn.Conv2d(6, 8, 4, 2, 1), 8),
        Residual(nn.Sequential(nn.ReflectionPad2d(1), block(nn.Conv2d(8, 8, 3), 8))),
        block(nn.ConvTranspose2d(8, 6, 4, 2, 1), 6),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(6, 3, 3, padding=1),
    ]
    return nn.Sequential(*body), images(16)


@architecture("grouped")
def grouped() -> Example:
    """Convolutions in groups, transposed too, behind one another with other numbers of groups."""
    layers = [
        nn.Conv2d(3, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1, groups=3),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, padding=1, groups=6),
        nn.ReLU(),
        nn.ConvTranspose2d(24, 12, 2, 2, groups=3),
        nn.BatchNorm2d(12),
        nn.ReLU(),
    ]
    return nn.Sequential(*layers, classify(12)), images(8)


# In one dimension, and in three


@architecture("conv1d")
def conv1d() -> Example:
    """Dilated causal convolutions with gates, as for sound."""

    class Gated(nn.Module):
        def __init__(self, dilation: int) -> None:
            super().__init__()
            self.pad = nn.ConstantPad1d((dilation, 0), 0.0)
            self.both, self.out = nn.Conv1d(8, 12, 2, dilation=dilation), nn.Conv1d(6, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.glu(self.both(self.pad(x)), dim=1))

    blocks = [Residual(Gated(1)), Residual(Gated(2)), nn.BatchNorm1d(8), nn.ReLU()]
    return nn.Sequential(nn.Conv1d(2, 8, 3), *blocks, nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(8, 3)), (
        torch.randn(2, 2, 20)
    )


@architecture("conv3d")
def conv3d() -> Example:
    layers = [nn.Conv3d(2, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(6, 8, 3)]
    up = [nn.PReLU(8), nn.ConvTranspose3d(8, 6, 2), nn.InstanceNorm3d(6), nn.LeakyReLU(), nn.AvgPool3d(3)]
    return nn.Sequential(*layers, *up, nn.Flatten(), nn.Linear(6, 3)), torch.randn(2, 2, 8, 8, 8)
