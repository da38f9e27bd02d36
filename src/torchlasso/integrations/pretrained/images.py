"""The preparation of images that a pretrained model expects, from its ``preprocessor_config.json``."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from torchlasso.integrations.pretrained.folder import PROCESSOR, Pretrained

LEVELS = 255


@dataclass(frozen=True)
class ImagePreparation:
    """The preparation of images before a network.

    Attributes:
        channels: of the images.
        size: height and width to which images are brought; None where the processor does not resize.
        crops: whether images keep their proportions and lose their margins; else they are stretched.
        mean, std: of each channel, for pixels between 0 and 1.
    """

    channels: int
    size: tuple[int, int] | None
    crops: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


def image_preparation(model: Pretrained) -> ImagePreparation:
    """Read the preparation of images of a pretrained model: size, proportions, scale, mean and deviation.

    Images are scaled as (pixel·factor − mean) / std. The filter of the processor is not taken over.

    Raises:
        ValueError: an entry has no use, or is not known.
    """
    known = json.loads(model.processor)
    origin = f"{model.folder}/{PROCESSOR}"
    channels = model.settings.get("num_channels", 3)
    if channels not in (1, 3):
        raise ValueError(f"{model.folder}: num_channels is {channels!r}; images have 1 or 3")
    if known.get("do_convert_annotations") or known.get("do_pad"):
        raise ValueError(f"{origin} is for detection (it pads), not for classification")
    factor = _number(known.get("rescale_factor", 1 / LEVELS), "rescale_factor", origin)
    factor = factor * LEVELS if known.get("do_rescale", True) else float(LEVELS)
    mean, std = [0.0] * channels, [1.0] * channels
    if known.get("do_normalize", True):
        mean = _each(known, "image_mean", channels, origin)
        std = _each(known, "image_std", channels, origin)
        if min(std) <= 0:
            raise ValueError(f"{origin} is damaged: image_std must be above 0; got {min(std)}")
    crops = bool(known.get("do_center_crop")) or "shortest_edge" in _sizes(known.get("size"))
    return ImagePreparation(
        channels,
        _size(known, origin),
        crops,
        tuple(m / factor for m in mean),
        tuple(s / factor for s in std),
    )


def _size(known: dict[str, Any], origin: str) -> tuple[int, int] | None:
    if known.get("do_center_crop") and known.get("crop_size") is not None:
        found = _sizes(known["crop_size"])
    elif known.get("do_resize", True) and known.get("size") is not None:
        found = _sizes(known["size"])
    else:
        return None
    edge = found.get("shortest_edge")
    height, width = found.get("height", edge), found.get("width", edge)
    if not all(isinstance(side, int) and side >= 1 for side in (height, width)):
        raise ValueError(
            f"{origin}: its size {known.get('size')!r} is not known; it must be height and width, or an edge"
        )
    return height, width  # type: ignore[return-value]


def _sizes(size: Any) -> dict[str, Any]:
    """Return a size as an object: in older files it is a number or a pair."""
    if isinstance(size, dict):
        return size
    if isinstance(size, list) and len(size) == 2:
        return {"height": size[0], "width": size[1]}
    return {} if size is None else {"height": size, "width": size}


def _each(known: dict[str, Any], name: str, channels: int, origin: str) -> list[float]:
    values = known.get(name)
    values = values if isinstance(values, list) else [values] * channels
    if len(values) != channels:
        raise ValueError(f"{origin} is damaged: {name} has {len(values)} values for {channels} channels")
    return [_number(value, name, origin) for value in values]


def _number(value: Any, name: str, origin: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{origin} is damaged: {name} is {value!r}, which is not a number")
    return float(value)
