"""Images as a part: those that can be read, with their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from torch import Tensor

from torchlasso.data.frame import Array
from torchlasso.data.images import decode_images
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.records import Part
from torchlasso.data.roles import Roles
from torchlasso.data.stored.rows import StoredRows


def image_part(
    images: Iterable[bytes | Path],
    count: int,
    where: Callable[[int], str],
    columns: ColumnSelection,
    roles: Roles | None = None,
    names: tuple[str, ...] = (),
) -> Part:
    """Decode images, and leave out the labels of those that are skipped.

    Args:
        images: encoded images, or their files.
        count: their number.
        where: a function from the index of an image to its name in messages.
        columns: has the options of images.
        roles: labels and other columns of each image.
        names: of each image.

    Raises:
        ValueError: too many images cannot be decoded, or their sizes differ.
    """
    found = decode_images(images, count, where, columns.images)
    return part_of_kept(found, found.x, roles, names)


class KeptImages(Protocol):
    """Images of which those that can be read are kept.

    Attributes:
        kept: their numbers.
        notes: what was done to them, a sentence each.
    """

    kept: Array
    notes: tuple[str, ...]


def part_of_kept(found: KeptImages, x: Tensor | StoredRows, roles: Roles | None, names: tuple[str, ...]) -> Part:
    """Make a part of the images that are kept, without the labels of the others."""
    held = (None,) * 4 if roles is None else (roles.y, roles.groups, roles.times, roles.weights)
    y, groups, times, weights = (None if values is None else values[found.kept] for values in held)
    names = tuple(names[i] for i in found.kept.tolist()) if names else ()
    return Part(x, y, (), names, groups, times, found.notes, weights, () if roles is None else roles.absent)
