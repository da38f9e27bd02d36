"""Models with dead units, their compacted forms, and comparisons with other models."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchlasso as tl

Zeros = dict[
    str, int
]  # by parameter, the number of its first rows to zero, with their biases; for NAME:1, of its first columns


def filled(model: nn.Module, zeros: Zeros, seed: int = 0) -> nn.Module:
    """Fill a model with random values, except dead rows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for w in [*model.parameters(), *model.buffers()]:
            if w.is_floating_point():
                w.copy_(torch.rand(w.shape, generator=generator, dtype=torch.float64) + 0.1)
        for name, count in zeros.items():
            name, _, columns = name.partition(":")
            if columns:
                model.get_parameter(name)[:, :count] = 0
                continue
            for w in (model.get_parameter(name), dict(model.named_parameters()).get(name.replace("weight", "bias"))):
                if w is not None:
                    w[:count] = 0
    return model.eval()


class Heads(nn.Module):
    """Attention that keeps its sizes in integers, a tuple, a list, a dictionary and a plain object."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(6, 12) for _ in range(3))
        self.out = nn.Linear(12, 6)
        self.where = where
        self.number = 4
        self.several: Any = {
            "number": None,
            "tuple": (4, 3),
            "list": [4, 3],
            "dict": {"heads": 4, "width": 3},
            "object": SimpleNamespace(heads=4, width=3),
        }[where]

    def heads(self) -> int:
        if self.where == "number":
            return self.number
        if self.where in ("tuple", "list"):
            return self.several[0]
        return self.several["heads"] if self.where == "dict" else self.several.heads

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads(), -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def heads(where: str) -> nn.Module:
    return nn.Sequential(Heads(where), nn.Flatten(), nn.Linear(30, 2))


class Tied(nn.Module):
    """A table that is also the last layer, seen through a narrow one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.mix(self.embed(x))))


class Scaled(nn.Module):
    """A layer, and a buffer for each of its units that is not in the state."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 8)
        self.out = nn.Linear(8, 2)
        self.register_buffer("scale", torch.arange(1.0, 9.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.fc(x)) * self.scale)


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8), nn.GroupNorm(4, 8), nn.PReLU(8),
        nn.ConvTranspose2d(8, 4, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A model of the full size, its dead units, and its inputs."""

    build: Callable[[], nn.Module]
    zeros: Zeros
    inputs: Any


ROWS = torch.rand(3, 6, generator=torch.Generator().manual_seed(1))
IMAGES = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))
WORDS = torch.arange(15).reshape(3, 5)
SEQUENCES = torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(1))


def layers() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def encoder() -> nn.Module:
    return nn.Sequential(nn.TransformerEncoderLayer(6, 2, 10, batch_first=True), nn.Linear(6, 2))


def recurrent() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6), Last(), nn.Linear(5, 2))


class Last(nn.Module):
    """The last state of a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0][:, -1]


MODELS = {
    "linear": Model(layers, {"0.weight": 4}, ROWS),
    "batch norm": Model(normed, {"0.weight": 3, "1.weight": 3}, ROWS),
    "convolutions": Model(convolutions, {"0.weight": 2, "1.weight": 2, "3.weight": 2, "4.weight": 2}, IMAGES),
    "tied": Model(Tied, {"mix.weight": 3, "embed.weight:1": 3}, WORDS),
    "buffer": Model(Scaled, {"fc.weight": 3}, ROWS),
    "encoder": Model(encoder, {"0.linear1.weight": 4}, SEQUENCES),
    "recurrent": Model(recurrent, {"0.weight": 3}, SEQUENCES),
    "nothing": Model(layers, {}, ROWS),
}
for where in ("number", "tuple", "list", "dict", "object"):
    MODELS[f"heads in a {where}"] = Model(lambda where=where: heads(where), {}, SEQUENCES)


def kill_heads(model: nn.Module) -> nn.Module:
    for attention in (module for module in model.modules() if isinstance(module, Heads)):
        with torch.no_grad():
            for layer in (attention.query, attention.key, attention.value):
                layer.weight[3:9] = layer.bias[3:9] = 0
            attention.out.weight[:, 3:9] = 0
    return model


@functools.cache
def compacted(name: str) -> tuple[nn.Module, nn.Module]:
    """Return a model of the full size and the compacted one; not to be changed, since tests share them."""
    model = MODELS[name]
    full = kill_heads(filled(model.build(), model.zeros))
    return full, tl.compact(full, model.inputs)


def numbers(model: nn.Module) -> dict[str, str]:
    kept = [
        (f"{path}.{name}", value)
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if not name.startswith("_")
    ]
    return {
        name: str(value)
        for name, value in kept
        if isinstance(value, int | tuple | SimpleNamespace) or "several" in name
    }


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: w.shape for name, w in [*model.named_parameters(), *model.named_buffers()]}


def check_same(other: nn.Module, small: nn.Module, inputs: Any) -> None:
    """The complete state of a compacted model: values, sizes, integers and outputs."""
    other.eval()
    assert shapes(other) == shapes(small)
    assert numbers(other) == numbers(small)
    assert torch.equal(other(inputs), small(inputs))
    for (name, ours), (_, theirs) in zip(other.state_dict().items(), small.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def trained(model: nn.Module) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(ROWS).sum().backward()
    optimizer.step()
    return model
