"""Tasks for the networks of ``kinds.py``: scikit-learn's digits in several forms, and data that are made here."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from torchlasso import data

Rows = tuple[Tensor, Tensor]
CLASSES = 10  # of the digits


class Task(NamedTuple):
    """Rows to train on and to judge on, a loss of outputs and labels, and an error as a share."""

    train: Rows
    test: Rows
    loss: Callable[[Tensor, Tensor], Tensor]
    error: Callable[[Tensor, Tensor], Tensor]
    guess: float  # the error of one answer for all rows
    batch: int = 64


def of_classes(train: Rows, test: Rows) -> Task:
    """Return a task whose error is the share of wrong classes; labels may be sequences."""

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(outputs.flatten(0, -2), y.flatten())

    def error(outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs.argmax(-1) != y).double().mean()

    return Task(train, test, loss, error, float((test[1] != train[1].flatten().mode().values).double().mean()))


def of_numbers(train: Rows, test: Rows, batch: int = 64) -> Task:
    """Return a task whose error is the share of the variance that is not explained."""
    variance = (test[1] - train[1].mean(0)).square().mean()

    def error(outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs - y).square().mean() / variance

    return Task(train, test, mse_loss, error, 1.0, batch)


def split(x: Tensor, y: Tensor, count: int) -> tuple[Rows, Rows]:
    """Split rows into those to train on, as many as ``count``, and those to judge on."""
    return (x[:count], y[:count]), (x[count:], y[count:])


@cache
def digits() -> tuple[Rows, Rows]:
    """Read images of (1, 8, 8) pixels and their digits."""
    whole = data.load("digits")
    x, test_x = whole.x.float(), whole.test_x.float()
    mean, std = x.mean(), x.std()
    return ((x - mean) / std, whole.y), ((test_x - mean) / std, whole.test_y)


def images() -> Task:
    return of_classes(*digits())


def reshaped(*shape: int) -> Task:
    (x, y), (test_x, test_y) = digits()
    return of_classes((x.reshape(-1, *shape), y), (test_x.reshape(-1, *shape), test_y))


def table() -> Task:
    return reshaped(64)


def rows() -> Task:
    """Return digits as sequences of 8 rows."""
    return reshaped(8, 8)


def signal() -> Task:
    """Return digits as sequences of 64 pixels, in one channel."""
    return reshaped(1, 64)


def pixels() -> Task:
    """Return digits as sets of 64 pixels, each with its brightness and its place: (64, 3)."""
    side = torch.linspace(-1, 1, 8)
    places = torch.cartesian_prod(side, side)

    def as_set(x: Tensor) -> Tensor:
        return torch.cat([x.reshape(-1, 64, 1), places.expand(len(x), -1, -1)], 2)

    (x, y), (test_x, test_y) = digits()
    return of_classes((as_set(x), y), (as_set(test_x), test_y))


def reconstruction() -> Task:
    (x, _), (test_x, _) = digits()
    return of_numbers((x.flatten(1), x.flatten(1)), (test_x.flatten(1), test_x.flatten(1)))


def denoising() -> Task:
    """Return images with noise, and the images."""
    (x, _), (test_x, _) = digits()
    generator = torch.Generator().manual_seed(0)
    noisy, test = (clean + torch.randn(clean.shape, generator=generator) for clean in (x, test_x))
    return of_numbers((noisy, x), (test, test_x))


def waves() -> Task:
    """Return places in a square, and the height of waves there."""
    x = 2 * torch.rand(6000, 2, generator=torch.Generator().manual_seed(0)) - 1
    a, b = x[:, :1], x[:, 1:]
    return of_numbers(*split(x, (9 * a).sin() * (7 * b).cos() + (15 * a * b).sin() / 2, 5000), batch=256)


COLOURS = 5


def neighbours() -> Tensor:
    """Return whether nodes of a grid of 6 × 6 are neighbours or the same: (36, 36)."""
    row, column = torch.arange(36) // 6, torch.arange(36) % 6
    return (row[:, None] - row).abs() + (column[:, None] - column).abs() <= 1


def loudest() -> Task:
    """Return a loudness and a colour for each node of a graph, and the colour of its loudest neighbour."""
    g = torch.Generator().manual_seed(0)
    loudness, colour = torch.randn(4000, 36, generator=g), torch.randint(COLOURS, (4000, 36), generator=g)
    nearest = loudness[:, None].expand(-1, 36, -1).masked_fill(~neighbours(), -torch.inf).argmax(2)
    x = torch.cat([loudness[..., None], one_hot(colour, COLOURS)], 2)
    return of_classes(*split(x, colour.gather(1, nearest), 3500))


USERS, ITEMS = 200, 150


def ratings() -> Task:
    """Return pairs of a user and an item, and ratings: products of few sparse factors, with noise."""
    g = torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, 4, generator=g) * (torch.rand(n, 4, generator=g) < 0.4) for n in (USERS, ITEMS))
    user, item = (torch.randint(n, (24_000,), generator=g) for n in (USERS, ITEMS))
    y = (users[user] * items[item]).sum(1, keepdim=True) + 0.1 * torch.randn(24_000, 1, generator=g)
    return of_numbers(*split(torch.stack([user, item], 1), y, 20_000), batch=1024)


def interactions() -> Task:
    """Return 60 columns, and numbers in which four of them and two of their products take part."""
    x = torch.randn(5000, 60, generator=torch.Generator().manual_seed(0))
    y = x[:, :4].sum(1) + 2 * x[:, 0] * x[:, 1] + 2 * x[:, 2] * x[:, 5]
    return of_numbers(*split(x, y[:, None], 4000), batch=256)


WORDS, TOKENS = 1000, 48


def texts() -> Task:
    """Return texts of 24 words, 4 of them from the 20 that only texts of its class have."""
    g = torch.Generator().manual_seed(0)
    y = torch.randint(8, (5000,), generator=g)
    common = torch.multinomial(1 / torch.arange(1.0, WORDS - 159), 5000 * 20, replacement=True, generator=g)
    own = WORDS - 160 + 20 * y[:, None] + torch.randint(20, (5000, 4), generator=g)
    return of_classes(*split(torch.cat([common.reshape(5000, 20), own], 1), y, 4000))


def next_tokens() -> Task:
    """Return sequences and each next token: in 9 of 10 cases it follows from this token and the first one."""
    g = torch.Generator().manual_seed(0)
    follows = torch.randint(TOKENS, (2, TOKENS), generator=g)
    tokens = [torch.randint(TOKENS, (4000,), generator=g)]
    for _ in range(12):
        other = torch.randint(TOKENS, (4000,), generator=g)
        likely = torch.rand(4000, generator=g) < 0.9
        tokens.append(torch.where(likely, follows[tokens[0] % 2, tokens[-1]], other))
    sequences = torch.stack(tokens, 1)
    return of_classes(*split(sequences[:, :-1], sequences[:, 1:], 3500))


def reversal() -> Task:
    """Return sequences of 8 tokens, and the same backwards."""
    x = torch.randint(TOKENS, (4000, 8), generator=torch.Generator().manual_seed(0))
    return of_classes(*split(x, x.flip(1), 3500))
