"""Parquet files are read in batches: large ones for numbers, small ones where a value may be long."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from torchlasso.data.readers import parquet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
ROWS = 3 * parquet.MOST_ROWS + 5


def batches_of(path: Path, **columns: Sequence[object]) -> int:
    pq.write_table(pa.table(columns), path, row_group_size=ROWS)
    table = parquet.Parquet().table(path, [])
    assert table.num_rows == len(next(iter(columns.values())))
    return table.column(0).num_chunks


@pytest.mark.parametrize("kind", ["float64", "float32", "int64", "int8", "bool"])
def test_numbers_are_read_in_large_batches(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long their column is: otherwise the batches of a long row group would have a few rows each."""
    monkeypatch.setattr(parquet, "available", lambda: 50_000_000)
    x = np.random.default_rng(0).integers(0, 2**62, ROWS).astype(kind)
    assert batches_of(tmp_path / "x.parquet", x=x, y=x) == 4


@pytest.mark.parametrize("column", [["word" * 20] * 5_000, [[1.0] * 20] * 5_000])
def test_texts_and_lists_are_read_in_batches_that_fit(
    tmp_path: Path, column: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "available", lambda: 1_000)
    assert batches_of(tmp_path / "x.parquet", x=column) > 4


def test_an_empty_text_column_is_read(tmp_path: Path) -> None:
    assert batches_of(tmp_path / "x.parquet", x=[""] * 10) == 1
