"""Files of a run's weights, with the records of the units removed from the model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import repr as briefly
from typing import Any

from torch import Tensor

from torchlasso._core.files import parse_json
from torchlasso.storage import checkpoint

CUTS, WORDS = "torchlasso.cuts", "torchlasso.words"  # the keys of these records in the metadata


def read_weights(path: Path) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Read the weights, and the records of the units removed from the model.

    Raises:
        ValueError: the file is damaged.
    """
    tensors, metadata = checkpoint.read_tensors(path)
    cuts = parse_json(metadata.get(CUTS, "[]"), path)
    if not isinstance(cuts, list) or not all(isinstance(cut, dict) for cut in cuts):
        raise ValueError(f"{path} is damaged: its records of removed units are {briefly(cuts)}")
    return tensors, cuts


def read_words(path: Path) -> list[int] | None:
    """Read the numbers of the words that a compacted model reads; None if it reads all, or no words.

    Raises:
        ValueError: the file is damaged.
    """
    _, metadata = checkpoint.read_tensors(path)
    if WORDS not in metadata:
        return None
    words = parse_json(metadata[WORDS], path)
    if not isinstance(words, list) or not all(type(word) is int for word in words):
        raise ValueError(f"{path} is damaged: its words are {briefly(words)}")
    return words


def write_weights(
    path: Path, state: Mapping[str, Tensor], cuts: Sequence[Mapping[str, Any]], words: Sequence[int] | None = None
) -> None:
    """Write the weights, the records of the units removed from the model, and the numbers of the words it reads."""
    read = {} if words is None else {WORDS: json.dumps(list(words))}
    checkpoint.write_tensors(path, state, {"format": "pt", **told(cuts), **read})


def told(cuts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the metadata with the records of removed units; empty if there are none."""
    return {CUTS: json.dumps(list(cuts))} if cuts else {}
