"""The work of a compaction grows in proportion to the number of layers: operations are counted, not timed."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import torchlasso as tl


class Counted(TorchDispatchMode):
    """Count the operators of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def calls_of(layers: int) -> Counter[str]:
    model = nn.Sequential(*(module for _ in range(layers) for module in (nn.Linear(4, 4), nn.ReLU())))
    with torch.no_grad():
        for layer in list(model)[:-2:2]:
            layer.weight[:2] = 0
            layer.bias[:2] = 0
    with Counted() as counted:
        small = tl.compact(model, torch.ones(2, 4))
    assert small[0].out_features == 2
    return counted.calls


def test_compaction_of_more_layers_takes_as_many_operators_for_each() -> None:
    small, large = calls_of(8), calls_of(32)
    assert small["zeros"] > 8
    for name, count in large.items():
        assert count <= 4.4 * small[name] + 16, name
