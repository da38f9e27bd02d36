"""The rows of the last data that were read, kept in memory for other trainings of this process on the same data."""

from __future__ import annotations

from dataclasses import fields

from torchlasso.runs.data_options import DataOptions
from torchlasso.runs.options import Options
from torchlasso.runs.rows import InputSpec, RowSplits, read_data

OTHERS = ("seed", "loss", "device", "pretrained")  # options that also decide about rows
TARGET = "sparsity"  # does not, though it is declared with the data
_last: dict[str, tuple[InputSpec, RowSplits]] = {}


def rows_for(options: Options) -> tuple[InputSpec, RowSplits]:
    """Return the rows of the options, which are read unless they are the last ones; see :func:`read_data`."""
    key = _key(options)
    if key not in _last:
        _last.clear()  # before others take their place in memory
        _last[key] = read_data(options)
    return _last[key]


def keep_rows(options: Options, inputs: InputSpec, rows: RowSplits) -> None:
    """Keep rows that this process has read already."""
    _last.clear()
    _last[_key(options)] = inputs, rows


def _key(options: Options) -> str:
    names = (*(field.name for field in fields(DataOptions) if field.name != TARGET), *OTHERS)
    return repr([getattr(options, name) for name in names])
