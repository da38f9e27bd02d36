"""Runs that start from a pretrained model: ``--model hf:FOLDER``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchlasso.data.image_decoding import CROP, PAD, STRETCH
from torchlasso.data.preparing import PreparedData
from torchlasso.data.text_options import MAX_LENGTH, WORDS
from torchlasso.integrations.pretrained import (
    PREFIX,
    ImagePreparation,
    Pretrained,
    head_note,
    image_preparation,
    read_pretrained,
)
from torchlasso.integrations.pretrained.folder import TOKENIZER
from torchlasso.runs.model_blocks import UNITS
from torchlasso.runs.options import COSTS, Options
from torchlasso.runs.recipes import completed

RATE = 1e-3  # the highest learning rate, below that of a recipe, since the weights are trained already


def options_from(given: Mapping[str, Any]) -> Options:
    """Make the options of a new run from those that are given; None where the recipe decides.

    A pretrained model also decides about the size of images, the tokenizer and the length of texts, the learning rate,
    and that the penalty acts on units where the target is a cost; unless these are given.

    Raises:
        ValueError: an option has no use; the pretrained model cannot be used.
    """
    if not given["model"].startswith(PREFIX):
        return Options(**completed(given))
    found = read_pretrained(given["model"])
    chosen = {**given, **(_of_texts(found, given) if found.reads_texts else _of_images(found, given))}
    if given["over"] is None and any(given.get(name) is not None for name in COSTS):
        chosen["over"] = UNITS
    if given["lr"] is None:
        chosen["lr"] = RATE
    return Options(**completed(chosen), pretrained=found)


def _of_images(model: Pretrained, given: Mapping[str, Any]) -> dict[str, Any]:
    prepared = image_preparation(model)
    if given["size"] is not None or prepared.size is None:
        return {}
    usual = CROP if prepared.crops else STRETCH
    return {"size": "x".join(map(str, prepared.size)), "resize": usual if given["resize"] == PAD else given["resize"]}


def _of_texts(model: Pretrained, given: Mapping[str, Any]) -> dict[str, Any]:
    if given["tokenizer"] != WORDS:
        raise ValueError(f"--tokenizer does not go with --model {PREFIX}{model.folder}, which has its own")
    most, padding = model.settings.get("max_position_embeddings"), model.settings.get("pad_token_id") or 0
    chosen: dict[str, Any] = {"tokenizer": str(Path(model.folder) / TOKENIZER)}
    if isinstance(most, int):
        most -= padding + 1 if padding else 0  # models whose padding is not 0 count places from behind it
        if given["max_length"] > most and given["max_length"] != MAX_LENGTH:
            raise ValueError(f"--max-length {given['max_length']} is more than the {most} tokens that the model reads")
        chosen["max_length"] = min(given["max_length"], most)
    return chosen


def fit(model: Pretrained, found: PreparedData, spec: str) -> tuple[ImagePreparation | None, tuple[str, ...]]:
    """Return the preparation of images for a pretrained model, None for texts, and say what it does.

    Raises:
        ValueError: the rows are not what the model reads, or not of classes.
    """
    name = f"--model {PREFIX}{model.folder}"
    if not found.classes:
        raise ValueError(f"{name} is for classes; the labels of {spec} are numbers")
    note = head_note(model, found.classes)
    if model.reads_texts:
        if found.text is None:
            raise ValueError(f"{name} classifies texts; {spec} has none (--text names the columns of texts)")
        vocabulary = model.settings.get("vocab_size")
        words = found.text.words - (found.text.tokenizer != model.tokenizer)
        if isinstance(vocabulary, int) and words > vocabulary:
            raise ValueError(f"{name}: its {TOKENIZER} has {words:,} tokens, and the model reads {vocabulary:,}")
        return None, (note,)
    prepared = _images(model, found, spec, name)
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (prepared.mean, prepared.std))
    return prepared, (f"Pixels have the mean {mean} and the deviation {std} of the pretrained model.", note)


def _images(model: Pretrained, found: PreparedData, spec: str, name: str) -> ImagePreparation:
    x, prepared = found.train[0], image_preparation(model)
    if len(x.shape) != 4:
        raise ValueError(f"{name} classifies images; the rows of {spec} have the shape {tuple(x.shape[1:])}")
    if x.shape[1] not in (1, prepared.channels):
        raise ValueError(f"{name} reads images of {prepared.channels} channels; those of {spec} have {x.shape[1]}")
    if isinstance(x, Tensor) and x.dtype != torch.uint8 and not 0 <= float(x.min()) <= float(x.max()) <= 1:
        raise ValueError(
            f"{name} needs pixels from 0 to 1, or bytes; those of {spec} are from {float(x.min()):g} to "
            f"{float(x.max()):g}"
        )
    return prepared
