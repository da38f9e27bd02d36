"""ResNet-20, the residual network for small images."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from torchlasso._core.arguments import check_whole
from torchlasso.models.parts import LARGEST, image_sizes
from torchlasso.models.registry import register


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalization, added to the input: relu(f(x) + shortcut(x)).

    (batch, inputs, height, width) becomes (batch, outputs, height / stride, width / stride), rounded up.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                OrderedDict(
                    conv=nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False),
                    bn=nn.BatchNorm2d(outputs),
                )
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.relu2(y + self.shortcut(x))
        return out


@register("resnet-20")
def resnet_20(input_shape: tuple[int, ...], outputs: int, *, width: int = 16) -> nn.Sequential:
    """Build ResNet-20: 3 stages of 3 basic blocks with w, 2w and 4w channels, then global average pooling.

    The inputs are images (channels, height, width) of at least 4x4 pixels. Source: He, Zhang, Ren and Sun, Deep
    residual learning for image recognition, 2016, section 4.2, with 1x1 convolutions (option B) on the two
    shortcuts that change shape.

    Options:
        width: the channels of the first stage, w.

    >>> sum(w.numel() for w in resnet_20((3, 32, 32), 10).parameters())
    272474
    """
    check_whole("model 'resnet-20': width", width, most=LARGEST)
    channels, _, _ = image_sizes("resnet-20", input_shape, at_least=4)
    model = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(width),
            relu=nn.ReLU(),
            stage1=_stage(width, width, stride=1),
            stage2=_stage(width, 2 * width, stride=2),
            stage3=_stage(2 * width, 4 * width, stride=2),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            head=nn.Linear(4 * width, outputs),
        )
    )
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # the paper's
    return model


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(inputs, outputs, stride),
        BasicBlock(outputs, outputs, stride=1),
        BasicBlock(outputs, outputs, stride=1),
    )
