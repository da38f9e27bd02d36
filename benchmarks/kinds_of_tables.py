"""Networks for tables in sizes that train in seconds: perceptrons, factorisations and bases."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import tasks
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def layers(*sizes: int, act: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Build linear layers with activations between them."""
    made: list[nn.Module] = [nn.Linear(sizes[0], sizes[1])]
    for inputs, outputs in pairwise(sizes[1:]):
        made += [act(), nn.Linear(inputs, outputs)]
    return nn.Sequential(*made)


def mlp() -> nn.Sequential:
    """Build a multilayer perceptron."""
    return layers(64, 128, 64, tasks.CLASSES)


def large_first() -> nn.Sequential:
    """Build a multilayer perceptron whose first layer starts with a standard deviation of 0.5."""
    model = mlp()
    nn.init.normal_(next(model.parameters()), std=0.5)
    return model


class Scaled(nn.Module):
    """A multilayer perceptron of weights from N(0, 1), divided by √fan-in in the forward pass (Jacot et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [64, 128, 64, tasks.CLASSES]
        self.weights = nn.ParameterList([torch.randn(i, o) for i, o in pairwise(sizes)])
        self.biases = nn.ParameterList([torch.zeros(o) for o in sizes[1:]])

    def forward(self, x: Tensor) -> Tensor:
        for layer, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = (F.relu(x) if layer else x) @ w / math.sqrt(len(w)) + b
        return x


class Experts(nn.Module):
    """A mixture of experts, whose weights are in one tensor for each layer."""

    def __init__(self, experts: int = 8, width: int = 24) -> None:
        super().__init__()
        self.gate = nn.Linear(64, experts)
        self.first = nn.Parameter(torch.randn(experts, 64, width) / 8)
        self.last = nn.Parameter(torch.randn(experts, width, tasks.CLASSES) / math.sqrt(width))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.einsum("ri,eih->reh", x, self.first).relu()
        return torch.einsum("reh,eho,re->ro", hidden, self.last, self.gate(x).softmax(1))


class LowRank(nn.Module):
    """A frozen linear layer plus a product of narrow matrices, one of them zero at the start (LoRA, Hu et al. 2022)."""

    def __init__(self, layer: nn.Linear, rank: int = 8) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, layer.in_features) / math.sqrt(layer.in_features))
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + x @ self.down.T @ self.up.T


def lora() -> nn.Sequential:
    """Train a perceptron on the digits 0 to 4, freeze it, and add matrices of low rank for all digits."""
    task, model = tasks.table(), mlp()
    x, y = (part[task.train[1] < 5] for part in task.train)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(200):
        batch = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        task.loss(model(x[batch]), y[batch]).backward()
        optimizer.step()
    return nn.Sequential(*(LowRank(layer) if isinstance(layer, nn.Linear) else layer for layer in model))


class RadialBasis(nn.Module):
    """Distances to centres, which start at rows of the data."""

    def __init__(self, count: int = 60) -> None:
        super().__init__()
        x = tasks.table().train[0]
        self.centres = nn.Parameter(x[torch.randperm(len(x))[:count]].clone())
        self.log_scales = nn.Parameter(torch.full((count,), -4.0))
        self.head = nn.Linear(count, tasks.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((-(torch.cdist(x, self.centres) ** 2) * self.log_scales.exp()).exp())


def autoencoder() -> nn.Sequential:
    """Build an autoencoder with 12 codes."""
    return nn.Sequential(layers(64, 96, 12), layers(12, 96, 64))


class FactorizationMachine(nn.Module):
    """A linear model and products of columns, weighted by products of their vectors (Rendle 2010)."""

    def __init__(self, inputs: int = 60, width: int = 8) -> None:
        super().__init__()
        self.linear, self.vectors = nn.Linear(inputs, 1), nn.Parameter(0.01 * torch.randn(inputs, width))

    def forward(self, x: Tensor) -> Tensor:
        pairs = (x @ self.vectors).square() - x.square() @ self.vectors.square()
        return self.linear(x) + pairs.sum(1, keepdim=True) / 2


class MatrixFactorization(nn.Module):
    """Products of the embeddings of users and items."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(tasks.USERS, width), nn.Embedding(tasks.ITEMS, width)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.users(x[:, 0]) * self.items(x[:, 1])).sum(1, keepdim=True)


class Fourier(nn.Module):
    """A perceptron on sines and cosines, whose frequencies are trained (Tancik et al. 2020)."""

    def __init__(self, count: int = 32) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(3 * torch.randn(2, count))
        self.layers = layers(2 * count, 64, 64, 1)

    def forward(self, x: Tensor) -> Tensor:
        angles = x @ self.frequencies
        return self.layers(torch.cat([angles.sin(), angles.cos()], 1))
