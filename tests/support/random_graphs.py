"""A writer of random networks of all known operators."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 4  # of the images
LARGEST = 12  # channels of a value

ACTIVATIONS = (nn.ReLU, nn.GELU, nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Softplus, nn.ELU)


class Apply(nn.Module):
    """A function of values, of layers and of numbers, which are attributes."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module, **numbers: Any) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)
        for name, number in numbers.items():
            setattr(self, name, number)

    def forward(self, *values: Tensor) -> Any:
        return self.function(self, *values)


@functools.cache
def class_of(function: Callable[..., Any]) -> type[Apply]:
    """Make a separate class for each function, as modules that do different things have."""
    return type(function.__name__.title(), (Apply,), {})


def apply(function: Callable[..., Any], *layers: nn.Module, **numbers: Any) -> Apply:
    return class_of(function)(function, *layers, **numbers)


def add(self: Apply, x: Tensor, y: Tensor) -> Tensor:
    return x + y


def subtract(self: Apply, x: Tensor, y: Tensor) -> Tensor:
    return x - 2 * y


def multiply(self: Apply, x: Tensor, y: Tensor) -> Tensor:
    return x * y


def concatenate(self: Apply, *several: Tensor) -> Tensor:
    return torch.cat(several, dim=1)


def chunk(self: Apply, x: Tensor) -> tuple[Tensor, ...]:
    return x.chunk(2, dim=1)


def split(self: Apply, x: Tensor) -> tuple[Tensor, ...]:
    return x.split([self.first, self.second], dim=1)


def halves(self: Apply, x: Tensor) -> tuple[Tensor, ...]:
    half = x.shape[1] // 2
    return x[:, :half], x[:, half:]


def gate(self: Apply, x: Tensor) -> Tensor:
    """Channels times what becomes of their means."""
    down, up = self.layers
    return x * torch.sigmoid(up(F.relu(down(x.mean((2, 3))))))[..., None, None]


def scale(self: Apply, x: Tensor) -> Tensor:
    factor, shift = self.layers[0]
    return factor * x + shift


def channels_last(self: Apply, x: Tensor) -> Tensor:
    """A layer over channels, which are put last for it."""
    return self.layers[0](x.movedim(1, -1)).movedim(-1, 1)


def shuffle(self: Apply, x: Tensor) -> Tensor:
    batch, channels, *sides = x.shape
    x = x.reshape(batch, self.groups, channels // self.groups, *sides).transpose(1, 2)
    return x.reshape(batch, channels, *sides)


def over_groups(self: Apply, x: Tensor) -> Tensor:
    """The sum, mean or maximum over the first of two dimensions that make up the channels, or over the second."""
    return self.reduce(x.unflatten(1, (self.groups, -1)))


def attend(self: Apply, x: Tensor) -> Tensor:
    """Pixels attend to one another, with heads."""
    tokens = x.flatten(2).transpose(1, 2)
    q, k, v = (layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in self.layers[:3])
    found = F.scaled_dot_product_attention(q, k, v, scale=0.3)
    return self.layers[3](found.transpose(1, 2).flatten(2)).transpose(1, 2).unflatten(2, x.shape[2:])


def recur(self: Apply, x: Tensor) -> Tensor:
    """Pixels are the steps of a sequence; the last states of all layers are added to those of each step."""
    states, last = self.layers[0](x.flatten(2).transpose(1, 2))
    last = last[0] if isinstance(last, tuple) else last
    found = states + torch.cat([last[-1]] * self.directions, dim=-1)[:, None]
    return found.transpose(1, 2).unflatten(2, x.shape[2:])


class Network(nn.Module):
    """Modules that each read some of the values so far, and add one or more values."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList()
        self.reads: list[list[int]] = []
        self.ends = frozenset[int]()
        self.head: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for part, reads in zip(self.parts, self.reads, strict=True):
            found = part(*(values[place] for place in reads))
            values += found if isinstance(found, tuple) else (found,)
        return self.head(torch.cat([values[place] for place in sorted(self.ends)], dim=1))


@dataclass
class Writer:
    """Writes a network; all values are images of one size.

    Attributes:
        number: draws a number from a first to a last one.
        network: the network written so far.
        channels: of each of its values.
    """

    number: Callable[[int, int], int]
    network: Network = field(default_factory=Network)
    channels: list[int] = field(default_factory=lambda: [3])

    def pick(self, *options: Any) -> Any:
        return options[self.number(0, len(options) - 1)]

    def source(self, fits: Callable[[int], bool] = lambda channels: True) -> int | None:
        """One of the values whose number of channels is right; later ones are likelier."""
        places = [place for place, channels in enumerate(self.channels) if place and fits(channels)]
        return self.pick(*places, *places[-3:]) if places else None

    def divisor(self, *numbers: int) -> int:
        return self.pick(*(n for n in range(1, min(numbers) + 1) if all(number % n == 0 for number in numbers)))

    def append(self, part: nn.Module, reads: Sequence[int], *channels: int) -> None:
        self.network.parts.append(part)
        self.network.reads.append(list(reads))
        self.channels += channels

    def write(self, parts: int) -> Network:
        self.convolution(0)
        for _ in range(parts):
            self.pick(
                lambda: self.convolution(self.source()), lambda: self.convolution(self.source()), self.depthwise,
                self.norm, self.norm, self.activation, self.activation, self.pool, self.pair, self.pair,
                self.concatenation, self.pieces, self.gate, self.scale, self.linear, self.shuffle, self.groups,
                self.attention, self.recurrence,
            )()  # fmt: skip
        # all that is made is read, since an operator whose result is not is not seen
        read = {place for reads in self.network.reads for place in reads}
        self.network.ends = frozenset({*range(1, len(self.channels))} - read)
        channels = sum(self.channels[place] for place in self.network.ends)
        self.network.head = self.pick(
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)),
            nn.Sequential(nn.Flatten(), nn.Linear(channels * SIDE * SIDE, 3)),
            nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(channels, 2, 2)),
        )
        return self.network

    def convolution(self, place: int) -> None:
        inputs, outputs, bias = self.channels[place], self.number(2, 6), self.pick(True, False)
        groups, kernel = self.pick(1, self.divisor(inputs, outputs)), self.pick(1, 3)
        mode = self.pick("zeros", "zeros", "reflect", "circular", "transposed", "replicated before")
        if mode == "transposed":
            conv: nn.Module = nn.ConvTranspose2d(inputs, outputs, kernel, 1, kernel // 2, groups=groups, bias=bias)
        elif mode == "replicated before":
            around = nn.ReplicationPad2d(kernel // 2)
            conv = nn.Sequential(around, nn.Conv2d(inputs, outputs, kernel, groups=groups, bias=bias))
        else:
            conv = nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, 1, groups, bias, mode)
        self.append(conv, [place], outputs)

    def depthwise(self) -> None:
        place = self.source(lambda channels: channels <= LARGEST // 2)
        if place is not None:
            inputs = self.channels[place]
            outputs = inputs * self.number(1, 2)
            self.append(nn.Conv2d(inputs, outputs, 3, padding=1, groups=inputs), [place], outputs)

    def norm(self) -> None:
        place = self.source()
        channels = self.channels[place]
        norm = self.pick(
            nn.BatchNorm2d(channels),
            nn.BatchNorm2d(channels),
            nn.BatchNorm2d(channels, affine=False),
            nn.GroupNorm(self.divisor(channels), channels),
            nn.InstanceNorm2d(channels, affine=True),
            nn.InstanceNorm2d(channels),
            apply(channels_last, nn.LayerNorm(channels)),
        )
        self.append(norm, [place], channels)

    def activation(self) -> None:
        place = self.source()
        act = self.pick(*(cls() for cls in ACTIVATIONS), nn.PReLU(), nn.PReLU(self.channels[place]))
        self.append(act, [place], self.channels[place])

    def pool(self) -> None:
        place = self.source()
        pool = self.pick(nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1), nn.Upsample(size=SIDE), nn.Dropout2d(0.0))
        self.append(pool, [place], self.channels[place])

    def pair(self) -> None:
        first = self.source()
        second = self.source(lambda channels: channels == self.channels[first])
        self.append(apply(self.pick(add, subtract, multiply)), [first, second], self.channels[first])

    def concatenation(self) -> None:
        reads = [self.source() for _ in range(self.number(2, 3))]
        total = sum(self.channels[place] for place in reads)
        if total <= LARGEST:
            self.append(apply(concatenate), reads, total)

    def pieces(self) -> None:
        place = self.source(lambda channels: channels > 2 and channels % 2 == 0)
        if place is not None:
            half = self.channels[place] // 2
            first = self.number(1, 2 * half - 1)
            part, *channels = self.pick(
                (apply(chunk), half, half),
                (apply(halves), half, half),
                (apply(split, first=first, second=2 * half - first), first, 2 * half - first),
                (nn.GLU(dim=1), half),
            )
            self.append(part, [place], *channels)

    def gate(self) -> None:
        place, inside = self.source(), self.number(2, 4)
        channels = self.channels[place]
        self.append(apply(gate, nn.Linear(channels, inside), nn.Linear(inside, channels)), [place], channels)

    def scale(self) -> None:
        place = self.source()
        channels = self.channels[place]
        both = nn.ParameterList([torch.ones(channels, 1, 1), torch.ones(channels, 1, 1)])
        self.append(apply(scale, both), [place], channels)

    def linear(self) -> None:
        place, outputs = self.source(), self.number(2, 6)
        layer = nn.Linear(self.channels[place], outputs, bias=self.pick(True, False))
        self.append(apply(channels_last, layer), [place], outputs)

    def shuffle(self) -> None:
        place = self.source()
        channels = self.channels[place]
        self.append(apply(shuffle, groups=self.divisor(channels)), [place], channels)

    def groups(self) -> None:
        place = self.source(lambda channels: channels > 4 and channels % 2 == 0)
        if place is not None:
            over, reduce = self.pick(1, 2), self.pick(torch.sum, torch.mean, torch.amax)
            outputs = self.channels[place] // 2 if over == 1 else 2
            self.append(apply(over_groups, reduce=functools.partial(reduce, dim=over), groups=2), [place], outputs)

    def attention(self) -> None:
        place, heads, each = self.source(), self.number(1, 2), self.number(3, 4)
        layers = [nn.Linear(self.channels[place], heads * each) for _ in range(3)]
        self.append(apply(attend, *layers, nn.Linear(heads * each, 5), heads=heads), [place], 5)

    def recurrence(self) -> None:
        place, cells, directions, layers = self.source(), self.number(2, 4), self.number(1, 2), self.number(1, 2)
        options = {"bidirectional": directions == 2, "bias": self.pick(True, False), "batch_first": True}
        layer = self.pick(nn.LSTM, nn.GRU, nn.RNN)(self.channels[place], cells, layers, **options)
        self.append(apply(recur, layer, directions=directions), [place], directions * cells)
