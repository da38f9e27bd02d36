"""Hold out rows from training: seeded, and stratified by class."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from torchlasso.data.records import Part

TEST_FRACTION = 0.2
TEST_SEED = 0  # fixed, so that every run compares on the same test rows


def holdout(y: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split rows into kept and held-out rows, class by class if ``y`` contains whole numbers.

    round(n·fraction) rows are held out. Each class gives its share rounded down, and the classes with the largest
    remainders give one more. Every class keeps at least one row, so fewer rows are held out if many classes have only
    one.

    Args:
        y: class indices (n,), or regression targets (n, ...), which are not stratified.
        fraction: the fraction of rows to hold out, in [0, 1).
        seed: the seed of a separate generator.

    Returns:
        The indices of kept and of held-out rows, int64, each sorted.

    Raises:
        ValueError: ``fraction`` is out of range, or class indices are not of shape (n,).

    >>> kept, held = holdout(torch.tensor([0, 0, 0, 1, 1, 1]), fraction=1 / 3, seed=0)
    >>> len(kept), len(held)
    (4, 2)
    """
    if not 0.0 <= fraction < 1.0:
        raise ValueError(f"fraction must be at least 0 and below 1, got {fraction}")
    if y.dim() != 1 and not (y.is_floating_point() and y.dim() > 1):
        raise ValueError(f"y must have the shape (n,) for classes, got {tuple(y.shape)}")
    generator = torch.Generator().manual_seed(seed)
    n = len(y)
    order = torch.randperm(n, generator=generator)
    if y.is_floating_point():
        group, sizes = torch.zeros(n, dtype=torch.int64), torch.tensor([n])
    else:
        _, group, sizes = torch.unique(y, return_inverse=True, return_counts=True)
    quota = _quotas(sizes, fraction, generator)

    by_group = order[torch.argsort(group[order], stable=True)]  # shuffled within each group
    start = torch.cumsum(sizes, 0) - sizes
    rank = torch.arange(n) - start.repeat_interleave(sizes)
    held = torch.zeros(n, dtype=torch.bool)
    held[by_group] = rank < quota.repeat_interleave(sizes)
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def _quotas(sizes: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Return the number of rows that each group gives away, (groups,)."""
    room = (sizes - 1).clamp(min=0)
    exact = sizes.double() * fraction
    quota = torch.minimum(exact.floor().long(), room)
    left = round(int(sizes.sum()) * fraction) - int(quota.sum())
    # A random order first, so that equal remainders do not always favour the first classes.
    shuffled = torch.randperm(len(sizes), generator=generator)
    remainder = torch.where(quota < room, exact - quota, -1.0)[shuffled]
    chosen = shuffled[torch.argsort(remainder, descending=True, stable=True)][: max(left, 0)]
    quota[chosen] += 1
    return torch.minimum(quota, room)


def split_test(part: Part) -> tuple[Part, Part]:
    """Split a labelled part without a test part into training and test rows."""
    y = np.zeros(len(part.x)) if part.y is None else part.y
    codes = y if y.dtype.kind == "f" else np.unique(y, return_inverse=True)[1].reshape(-1)
    kept, held = holdout(torch.from_numpy(codes), TEST_FRACTION, TEST_SEED)
    return part.rows(kept), part.rows(held)
