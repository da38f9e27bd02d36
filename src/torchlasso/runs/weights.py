"""Files of a run's weights, which say what was taken out of the model, too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import repr as briefly
from typing import Any

from torch import Tensor

from torchlasso._core.files import parse_json
from torchlasso.storage import checkpoint

CUTS = "torchlasso.cuts"  # where the metadata say what was taken out of the model


def read_weights(path: Path) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Read the weights, and what was taken out of the model.

    Raises:
        ValueError: the file is damaged.
    """
    tensors, metadata = checkpoint.read_tensors(path)
    cuts = parse_json(metadata.get(CUTS, "[]"), path)
    if not isinstance(cuts, list) or not all(isinstance(cut, dict) for cut in cuts):
        raise ValueError(f"{path} is damaged: what was taken out of the model is {briefly(cuts)}")
    return tensors, cuts


def write_weights(path: Path, state: Mapping[str, Tensor], cuts: Sequence[Mapping[str, Any]]) -> None:
    """Write the weights, and what was taken out of the model."""
    checkpoint.write_tensors(path, state, {"format": "pt", **told(cuts)})


def told(cuts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the metadata that say what was taken out of the model: none, if nothing was."""
    return {CUTS: json.dumps(list(cuts))} if cuts else {}
