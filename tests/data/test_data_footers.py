"""Parts of the footers of Parquet files, against Arrow's reading of the whole."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torchlasso.data.stored import columnar, footers
from torchlasso.data.stored.columnar import ParquetFiles
from torchlasso.data.stored.footers import Footer
from torchlasso.data.stored.thrift import Cursor, integer

ROWS = 100


def every_kind(rows: int = ROWS) -> pa.Table:
    """Columns of one part and of several, some of which Parquet knows by the schema of Arrow only."""
    return pa.table(
        {
            "number": np.arange(rows, dtype=np.float32),
            "image": pa.array([{"bytes": b"x" * (i % 5), "path": None} for i in range(rows)]),
            "list": pa.array([[1, 2], [], None, [3]] * (rows // 4)),
            "span": pa.array([timedelta(seconds=i) for i in range(rows)]),
            "category": pa.array(["x", "y"] * (rows // 2)).dictionary_encode(),
            "flag": pa.array([True, None] * (rows // 2)),
            "map": pa.array([[("k", i)] for i in range(rows)], pa.map_(pa.string(), pa.int64())),
            "price": pa.array([Decimal("1.20"), None] * (rows // 2)),
            "größe": pa.array([f"{i} " * 60 for i in range(rows)]),
        }
    )


WRITERS: dict[str, dict[str, Any]] = {
    "usual": {},
    "old": {"version": "1.0", "compression": "gzip", "use_dictionary": False},
    "new": {"data_page_version": "2.0", "write_page_index": True, "write_page_checksum": True, "compression": "zstd"},
    "without statistics and the schema of Arrow": {"write_statistics": False, "store_schema": False},
    "sorted": {"sorting_columns": [pq.SortingColumn(0)]},
}


@pytest.mark.parametrize("how", WRITERS)
@pytest.mark.parametrize("size", [7, 33, 100])
def test_a_part_of_the_footer_reads_the_same(tmp_path: Path, how: str, size: int) -> None:
    table, path = every_kind(), tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=size, **WRITERS[how])
    found, known = Footer(path), pq.ParquetFile(path)
    groups = range(known.num_row_groups)
    assert found.schema.equals(known.schema_arrow)
    assert found.rows == ROWS
    assert found.size == sum(known.metadata.row_group(i).total_byte_size for i in groups)
    for names in (["number"], ["image", "list"], ["category", "span", "größe"], ["map", "price"], table.column_names):
        for some in (None, [0], [*groups][1:4], [groups[-1]]):
            read = pq.ParquetFile(path, metadata=found.metadata(names, some)).read()
            wanted = known.read_row_groups([*groups] if some is None else some, columns=names)
            assert read.select(names).equals(wanted.select(names)), (names, some)


def test_tables_are_read_by_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two files, in runs of row groups, some rows at a time."""
    table, paths = every_kind(), [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for path, size in zip(paths, (3, 50), strict=True):
        pq.write_table(table, path, row_group_size=size)
    monkeypatch.setattr(footers, "AT_ONCE", 20)
    monkeypatch.setattr(columnar, "AT_ONCE", 4000)
    files, names = ParquetFiles(paths), ["flag", "number", "image"]
    both = pa.concat_tables([table, table])
    assert files.count == 2 * ROWS
    assert files.select(names).equals(both.select(names))
    batches = [*files.batches(names)]
    assert len(batches) > 10
    assert pa.concat_tables(batches).equals(both.select(names))
    runs = [*Footer(paths[0]).runs(names)]
    assert [len(run) for run in runs] == [6] * 5 + [4]  # 34 groups
    assert Footer(paths[0]).metadata(names, runs[0]).num_columns == 4  # an image has two


def test_a_table_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(every_kind().slice(0, 0), path)
    files = ParquetFiles([path])
    assert (files.count, files.select(["number"]).num_rows, [*files.batches(["number"])]) == (0, 0, [])


def test_a_damaged_footer_is_refused(tmp_path: Path) -> None:
    """Wherever a byte is changed, there is one error, or the table is read; Arrow does not see all damages either."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [1.0, 2.0, 3.0], "b": ["x", "y", "z"]}), path, row_group_size=2)
    content = path.read_bytes()
    size, rng, refused = int.from_bytes(content[-8:-4], "little"), np.random.default_rng(0), 0
    for place in range(len(content) - size - 8, len(content)):
        damaged = bytearray(content)
        damaged[place] = (damaged[place] + int(rng.integers(1, 256))) % 256
        path.write_bytes(damaged)
        try:
            files = ParquetFiles([path])
            if "a" in files.names:
                files.select(["a"])
        except (ValueError, MemoryError):
            refused += 1
    assert refused > 100
    for length in (0, 3, 8, 12, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"a\.parquet: not a Parquet file, or a damaged one"):
            ParquetFiles([path])


def test_whole_numbers() -> None:
    for value in (0, 1, -1, 63, 64, -200, 2**31, -(2**40), 2**62):
        assert Cursor(integer(value)).integer() == value
