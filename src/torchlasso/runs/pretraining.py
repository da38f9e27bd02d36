"""Runs that start from a pretrained model: ``--model hf:FOLDER``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchlasso.data.image_decoding import CROP, PAD, STRETCH
from torchlasso.data.preparing import PreparedData
from torchlasso.integrations.pretrained import (
    PREFIX,
    ImagePreparation,
    Pretrained,
    head_note,
    image_preparation,
    read_pretrained,
)
from torchlasso.runs.model_blocks import UNITS
from torchlasso.runs.options import Options
from torchlasso.runs.recipes import completed

COSTS = ("flops", "bytes")
RATE = 1e-3  # of the learning rate, at its highest: higher ones forget what the model knows


def options_from(given: Mapping[str, Any]) -> Options:
    """Make the options of a new run from those that are given; None where the recipe decides.

    A pretrained model also decides about the size of images, about the learning rate, and that the penalty acts on
    units where the target is a cost; unless these are given.

    Raises:
        ValueError: an option has no use; the pretrained model cannot be used.
    """
    if not given["model"].startswith(PREFIX):
        return Options(**completed(given))
    found = read_pretrained(given["model"])
    prepared, chosen = image_preparation(found), dict(given)
    if given["size"] is None and prepared.size is not None:
        chosen["size"] = "x".join(map(str, prepared.size))
        chosen["resize"] = (CROP if prepared.crops else STRETCH) if given["resize"] == PAD else given["resize"]
    if given["over"] is None and any(given.get(name) is not None for name in COSTS):
        chosen["over"] = UNITS
    if given["lr"] is None:
        chosen["lr"] = RATE
    return Options(**completed(chosen), pretrained=found)


def images_for(model: Pretrained, found: PreparedData, spec: str) -> ImagePreparation:
    """Return the preparation of images for a pretrained model.

    Raises:
        ValueError: the rows are not images of classes, or have more channels than the model reads, or values that are
            not between 0 and 1.
    """
    x, prepared = found.train[0], image_preparation(model)
    if len(x.shape) != 4:
        raise ValueError(
            f"--model {PREFIX}{model.folder} classifies images; the rows of {spec} have the shape {tuple(x.shape[1:])}"
        )
    if not found.classes:
        raise ValueError(f"--model {PREFIX}{model.folder} is for classes; the labels of {spec} are numbers")
    if x.shape[1] not in (1, prepared.channels):
        raise ValueError(
            f"--model {PREFIX}{model.folder} reads images of {prepared.channels} channels; those of {spec} have "
            f"{x.shape[1]}"
        )
    if isinstance(x, Tensor) and x.dtype != torch.uint8 and not 0 <= float(x.min()) <= float(x.max()) <= 1:
        raise ValueError(
            f"--model {PREFIX}{model.folder} needs pixels from 0 to 1, or bytes; those of {spec} are from "
            f"{float(x.min()):g} to {float(x.max()):g}"
        )
    return prepared


def preparation_notes(model: Pretrained, prepared: ImagePreparation, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Say how images are prepared, and what becomes of the model's head."""
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (prepared.mean, prepared.std))
    return (f"Pixels have the mean {mean} and the deviation {std} of the pretrained model.", head_note(model, classes))
