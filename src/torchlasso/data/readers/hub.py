"""Data sets from the Hugging Face hub, or folders that ``datasets.load_dataset`` reads."""

from __future__ import annotations

from typing import Any

from torchlasso._core.extras import require
from torchlasso._core.text import first_line
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.messages import listed
from torchlasso.data.records import Part
from torchlasso.data.registry import Portion, Reader, Source, register
from torchlasso.data.stored.columnar import HubColumns
from torchlasso.data.stored.parts import memory_of, stored_table_part
from torchlasso.data.tables import table_part

ROLES = (("train",), ("test",), ("validation", "valid", "val", "dev"))  # in the order of Source


@register
class Hub(Reader):
    """``hf:NAME``, with a train split, and perhaps a test and a validation split."""

    form = "hf:NAME"
    rank = 0

    def accepts(self, spec: str) -> bool:
        return spec.startswith("hf:")

    def open(self, spec: str, columns: ColumnSelection) -> Source:
        splits = _load(spec)
        if "train" not in splits:
            raise ValueError(f"{spec}: no split 'train'; there are {listed(splits)}")
        found = (next((name for name in names if name in splits), None) for names in ROLES)
        return Source(spec, *(_portion(spec, splits, split, columns) for split in found))


def _portion(spec: str, splits: Any, split: str | None, columns: ColumnSelection) -> Portion | None:
    if split is None:
        return None
    origin = f"{spec}, split {split!r}"

    def read() -> Part:
        return table_part(splits[split].with_format("arrow")[:], columns, origin, image_paths=True)

    def table() -> HubColumns:
        return HubColumns(splits[split], origin)

    return Portion(
        origin,
        read,
        size=lambda: memory_of(table(), columns),
        stored=lambda stream: stored_table_part(table(), columns, stream),
    )


def _load(spec: str) -> Any:
    datasets = require("datasets", "data", spec)
    name = spec.removeprefix("hf:")
    if not name:
        raise ValueError(f"{spec}: no name; it must look like hf:mnist")
    shown = datasets.utils.is_progress_bar_enabled()
    datasets.utils.disable_progress_bars()
    try:
        return datasets.load_dataset(name)
    except Exception as error:  # from datasets, the hub, the network or a file format
        raise ValueError(f"{spec}: cannot be loaded ({first_line(error)})") from error
    finally:
        if shown:
            datasets.utils.enable_progress_bars()
