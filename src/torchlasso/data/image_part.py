"""Images as a part: those that can be read, with their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from torchlasso.data.images import decode_images
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.records import Labels, Part


def image_part(
    images: Iterable[bytes | Path],
    count: int,
    where: Callable[[int], str],
    columns: ColumnSelection,
    y: Labels | None = None,
    groups: Labels | None = None,
    times: Labels | None = None,
    names: tuple[str, ...] = (),
) -> Part:
    """Decode images, and leave out the labels of those that are skipped.

    Args:
        images: encoded images, or their files.
        count: their number.
        where: a function from the index of an image to its name in messages.
        columns: has the options of images.
        y, groups, times, names: of each image, as those of a part.

    Raises:
        ValueError: too many images cannot be decoded, or their sizes differ.
    """
    found = decode_images(images, count, where, columns.images)
    y, groups, times = (None if values is None else values[found.kept] for values in (y, groups, times))
    names = tuple(names[i] for i in found.kept.tolist()) if names else ()
    return Part(found.x, y, (), names, groups, times, found.notes)
