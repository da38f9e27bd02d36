"""A single image, for prediction."""

from __future__ import annotations

from pathlib import Path

from torchlasso.data.image_decoding import SUFFIXES
from torchlasso.data.image_part import image_part
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.registry import Portion, Reader, Source, register


@register
class ImageFile(Reader):
    """``FILE.png`` or another format of Pillow: one row without a label."""

    form = "an image"
    trains = False

    def accepts(self, spec: str) -> bool:
        return Path(spec).suffix.lower() in SUFFIXES and Path(spec).is_file()

    def open(self, spec: str, columns: ColumnSelection) -> Source:
        if columns.required:
            raise ValueError(
                f"{spec}: training needs more than one image; give a folder with a folder of images per class"
            )
        path = Path(spec)
        return Source(path.name, Portion(spec, lambda: image_part([path], 1, lambda _: spec, columns, names=(spec,))))
