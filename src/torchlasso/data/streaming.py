"""Read data into memory, or leave their rows on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torchlasso.data.records import Part
from torchlasso.data.registry import Portion
from torchlasso.data.stored.cache import folder
from torchlasso.data.stored.options import ALWAYS, AUTO, NEVER, StreamOptions


def choose_stream(asked: StreamOptions, portions: Sequence[Portion]) -> tuple[StreamOptions, list[str]]:
    """Return whether rows stay on the disk, and what to say of it.

    Raises:
        ValueError: they are to stay there and cannot.
    """
    known = all(portion.stored and portion.size for portion in portions)
    if asked.stream == ALWAYS and not known:
        kinds = "Parquet, CSV and JSON lines files, hf: data sets and folders of images"
        raise ValueError(f"{portions[0].origin}: these data are read into memory; stream='{ALWAYS}' is for {kinds}")
    needed = sum(portion.size() for portion in portions if portion.size) if asked.stream == AUTO and known else 0
    if not (known and asked.asks_for(needed)):
        return replace(asked, stream=NEVER), []
    why = "" if asked.stream == ALWAYS else f"; in memory they would take about {needed / 2**30:,.1f} GiB"
    note = f"The rows stay on the disk and are read a batch at a time{why}. What is made of them is kept in {folder()}."
    return replace(asked, stream=ALWAYS), [note]


def read_portion(portion: Portion, stream: StreamOptions) -> Part:
    """Read a split, or make a part whose rows stay on the disk, as :func:`choose_stream` has chosen."""
    return portion.stored(stream) if stream.stream == ALWAYS and portion.stored is not None else portion.read()
