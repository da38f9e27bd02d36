"""Hold out rows from training: seeded, and stratified by class."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from torchlasso.data.distinct import distinct
from torchlasso.data.records import Labels, Part
from torchlasso.data.stored.rows import FEW

TEST_FRACTION = 0.2
AT_ONCE = 1 << 18  # rows of an order that are looked at together
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
    order = torch.randperm(len(y), generator=generator, dtype=torch.int32 if len(y) < FEW else torch.int64)
    codes = np.zeros(len(y), dtype=np.int8) if y.is_floating_point() else distinct(y.cpu().numpy())[1]
    sizes = torch.from_numpy(np.bincount(codes)) if len(y) else torch.tensor([0])
    held = _first_of_each(order.numpy(), codes, _quotas(sizes, fraction, generator).numpy())
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def _first_of_each(order: Labels, codes: Labels, quota: Labels) -> Tensor:
    """Return a mask of the first rows of each class in a random order of all rows, as many as ``quota`` says.

    A few rows of the order are taken at a time: sorting all by their class would take several times their memory.
    """
    found, taken = np.zeros(len(order), dtype=np.bool_), np.zeros_like(quota)
    for start in range(0, len(order), AT_ONCE):
        rows = order[start : start + AT_ONCE]
        of = codes[rows].astype(np.int64)
        by_class, counts = np.argsort(of, kind="stable"), np.bincount(of, minlength=len(quota))
        place = np.empty_like(of)  # of each row among those of its class
        place[by_class] = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
        found[rows[place + taken[of] < quota[of]]] = True
        taken += counts
        if (taken >= quota).all():
            break
    return torch.from_numpy(found)


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


def holdout_groups(y: Tensor, groups: Labels, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split rows into kept and held-out rows, with all rows of a group on one side.

    Groups are held out in a random order as long as each brings the held-out share of the classes nearer to
    ``fraction``. No class loses its last group.

    Args:
        y: class indices (n,), or regression targets, which are not stratified.
        groups: the group of each row, (n,).
        fraction: the fraction of rows to hold out, in (0, 1).
        seed: the seed of a separate generator.

    Returns:
        The indices of kept and of held-out rows, int64, each sorted.

    Raises:
        ValueError: no group can be held out.

    >>> groups = np.array(["a", "a", "b", "b", "c", "c"])
    >>> kept, held = holdout_groups(torch.zeros(6, dtype=torch.int64), groups, fraction=1 / 3, seed=0)
    >>> len(kept), groups[held.numpy()].tolist()
    (4, ['c', 'c'])
    """
    names, group = np.unique(groups, return_inverse=True)
    classes = np.zeros(len(groups), dtype=np.int64) if y.is_floating_point() else y.numpy()
    counts = np.zeros((len(names), int(classes.max()) + 1))
    np.add.at(counts, (group.reshape(-1), classes), 1)
    totals = counts.sum(axis=0)
    shares = counts / np.maximum(totals, 1)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    taken, held = list[int](), np.zeros_like(totals)

    def leaves_all(i: int) -> bool:
        return not ((held + shares[i] > 1 - 1e-9) & (shares[i] > 0)).any()

    for i in order:
        before, after = ((each - fraction) ** 2 for each in (held, held + shares[i]))
        if leaves_all(i) and after.sum() < before.sum():
            taken.append(i)
            held = held + shares[i]
    if not taken:
        smallest = sorted((i for i in order if leaves_all(i)), key=lambda i: counts[i].sum())
        if not smallest:
            raise ValueError(f"{len(names)} groups are too few to hold any out: a class would have none left")
        taken = smallest[:1]
    is_held = torch.from_numpy(np.isin(group.reshape(-1), taken))
    return (~is_held).nonzero().flatten(), is_held.nonzero().flatten()


def holdout_last(times: Labels, fraction: float) -> tuple[Tensor, Tensor]:
    """Split rows into earlier and later ones; rows of the same time stay together.

    Args:
        times: the time of each row, (n,).
        fraction: the fraction of rows to hold out, about, in (0, 1).

    Returns:
        The indices of kept and of held-out rows, int64, each sorted.

    Raises:
        ValueError: all rows have the same time.

    >>> [rows.tolist() for rows in holdout_last(np.array([3.0, 1.0, 2.0, 4.0]), fraction=0.5)]
    [[1, 2], [0, 3]]
    """
    in_order = np.sort(times)
    first = in_order[min(len(times) - 1, len(times) - round(len(times) * fraction))]
    if first == in_order[0]:
        first = in_order[np.searchsorted(in_order, first, side="right") :][:1]
        if not len(first):
            raise ValueError("all rows have the same time")
    is_held = torch.from_numpy(times >= first)
    return (~is_held).nonzero().flatten(), is_held.nonzero().flatten()


def codes_of(y: Labels, tenths: bool = False) -> Tensor:
    """Return class indices of labels, or numbers as they are; with ``tenths``, the tenth that a number is in."""
    if y.dtype.kind != "f":
        return torch.from_numpy(distinct(y)[1])
    if not tenths:
        return torch.from_numpy(y)
    first = y.reshape(len(y), -1)[:, 0]
    return torch.from_numpy(np.searchsorted(np.quantile(first, np.arange(1, 10) / 10), first))


def hold_out(part: Part, fraction: float, seed: int, tenths: bool = False) -> tuple[Part, Part]:
    """Split a part into kept and held-out rows: the last ones if they have times, whole groups if they have groups.

    Args:
        part: the rows, with labels.
        fraction: the fraction of rows to hold out, in [0, 1).
        seed: of the choice; there is none among times.
        tenths: whether labels that are numbers are stratified, by tenths.
    """
    y = codes_of(np.zeros(len(part.x)) if part.y is None else part.y, tenths)
    if not fraction:
        kept, held = torch.arange(len(y)), torch.arange(0)
    elif part.times is not None:
        kept, held = holdout_last(part.times, fraction)
    elif part.groups is not None:
        kept, held = holdout_groups(y, part.groups, fraction, seed)
    else:
        kept, held = holdout(y, fraction, seed)
    return part.rows(kept), part.rows(held)


def split_test(part: Part) -> tuple[Part, Part]:
    """Split a labelled part without a test part into training and test rows."""
    return hold_out(part, TEST_FRACTION, TEST_SEED)
