"""Checks of arrays, and their conversion to a part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from torchlasso.data.frame import Array
from torchlasso.data.labels import raw_labels
from torchlasso.data.messages import listed, row
from torchlasso.data.precision import is_coarse, notes_of_coarse
from torchlasso.data.records import Labels, Part


def array_part(x: Array, y: Array | None, origin: str, task: str | None = None) -> Part:
    """Make a part from plain arrays.

    Images of bytes stay bytes; (n, height, width) gets a channel, and bytes of shape
    (n, height, width, 1 or 3) get their channels in front.

    Args:
        x: (n, features), (n, height, width) or (n, channels, height, width).
        y: labels, (n,) or, of floats, (n, outputs).
        origin: the name of the data in messages.
        task: what whole numbers as labels are: ``"classification"``, ``"regression"``, or None to judge by them.

    Raises:
        ValueError: the arrays cannot be used; the message says why.
    """
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{origin}: x must hold numbers, not {x.dtype}")
    if not 2 <= x.ndim <= 4:
        wanted = "(n, features), (n, height, width) or (n, channels, height, width)"
        raise ValueError(f"{origin}: x must have the shape {wanted}, not {x.shape}")
    if x.size == 0:
        raise ValueError(f"{origin}: x is empty, of shape {x.shape}; at least one row is needed")
    if y is not None:
        y = raw_labels(y, origin, task)
        if len(x) != len(y):
            raise ValueError(f"{origin}: x has {len(x)} rows and y has {len(y)}; they must be the same")
    if x.ndim == 3:
        x = x[:, None]
    coarse = [f"column {i + 1}" for i, column in enumerate(x.T) if is_coarse(column)] if x.ndim == 2 else []
    return Part(torch.from_numpy(_plain(x, origin)), y, notes=notes_of_coarse(coarse))


def _plain(x: Array, origin: str) -> Array:
    """Return images of bytes with their channels in front, and other numbers as float32."""
    if x.ndim == 4 and x.dtype == np.uint8:
        in_front = x.shape[3] not in (1, 3) or x.shape[1] in (1, 3)
        return np.ascontiguousarray(x if in_front else x.transpose(0, 3, 1, 2))
    with np.errstate(over="ignore"):  # values too large for float32 become infinite and are found below
        values = np.array(x, dtype=np.float32, order="C")
    refuse_infinite(values, (), origin)
    return values


def refuse_infinite(x: Array, features: Sequence[str], origin: str, gaps: bool = False) -> None:
    """Refuse infinite values, and missing ones (NaN) unless there may be ``gaps``.

    Raises:
        ValueError: there are such values; the message names the columns or else the first row, and the count.
    """
    bad = np.isinf(x) if gaps else ~np.isfinite(x)
    count = int(bad.sum())
    if not count:
        return
    first = int(bad.reshape(len(x), -1).any(1).argmax())
    where = f"first in {row(first)}"
    if features:
        names = [features[index] for index in np.flatnonzero(bad.any(0)).tolist()]
        where += f", in {'column' if len(names) == 1 else 'columns'} {listed(names, most=5)}"
    how = "fill them in, or leave columns out with ignore=" if features else "fill them in"
    kind = "infinite" if gaps else "missing or infinite"
    values = f"1 {kind} value" if count == 1 else f"{count} {kind} values"
    raise ValueError(f"{origin}: {values}, {where}; {how}")


def array_from(value: object, what: str, origin: str) -> Labels:
    """Convert a tensor, an array or nested lists to an array.

    Raises:
        ValueError: the value is none of these.
    """
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{origin}: {what} has rows of different lengths") from error
    if array.ndim == 0:
        raise ValueError(f"{origin}: {what} must be an array or a tensor, not {type(value).__name__}")
    return array
