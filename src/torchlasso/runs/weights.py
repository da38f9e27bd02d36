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

CUTS = "torchlasso.cuts"  # the key of these records in the metadata


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


def write_weights(path: Path, state: Mapping[str, Tensor], cuts: Sequence[Mapping[str, Any]]) -> None:
    """Write the weights, and the records of the units removed from the model."""
    checkpoint.write_tensors(path, state, {"format": "pt", **told(cuts)})


def told(cuts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the metadata with the records of removed units; empty if there are none."""
    return {CUTS: json.dumps(list(cuts))} if cuts else {}
