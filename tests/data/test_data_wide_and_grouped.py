"""Tables of many columns or long ones, and tables with a column of groups."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from torchlasso.data import load_rows, text_columns


def write(path: Path, header: list[str], rows: list[list[object]]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def test_a_header_longer_than_a_block_of_arrow(tmp_path: Path) -> None:
    names = [f"{i:04} is a feature with a {'long, ' * 70}name" for i in range(3_000)]  # 1.3 MB
    values = np.arange(3 * len(names)).reshape(3, -1)
    path = write(tmp_path / "wide.csv", [*names, "y"], [[*row, kind] for row, kind in zip(values, "aba", strict=True)])
    part = load_rows(path)
    assert part.features == tuple(names)
    assert torch.equal(part.x, torch.from_numpy(values).float())


@pytest.mark.slow
def test_the_time_grows_with_the_columns_only_linearly(tmp_path: Path) -> None:
    seconds = []  # of processor time, which other programs hardly change
    for count in (50, 5_000, 20_000):  # the first one imports the readers
        rows = [[f"{i % 7}.5" for i in range(count)] + [str(k % 2)] for k in range(10)]
        path = write(tmp_path / f"{count}.csv", [*map(str, range(count)), "y"], rows)
        start = time.process_time()
        load_rows(path)
        seconds.append(time.process_time() - start)
    assert seconds[2] < 8 * seconds[1]  # it was 16 times and more


def test_the_types_of_columns_do_not_depend_on_their_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = ["whole", "blank", "decimal", "text", "signed", "y"]
    rows: list[list[object]] = [["1", "", "1.5", "u", "+3", "0.5"], ["2", "7", "-2e1", "v", "-4", "1.5"]]
    path = write(tmp_path / "mixed.csv", header, rows)
    for at_once in (1, 4, 1_000_000):
        monkeypatch.setattr(text_columns, "AT_ONCE", at_once)
        part = load_rows(path, ignore=["text", "blank"])
        assert part.features == ("whole", "decimal", "signed")
        assert part.x.tolist() == [[1.0, 1.5, 3.0], [2.0, -20.0, -4.0]]
        assert part.y is not None
        assert part.y.tolist() == [0.5, 1.5]
        encoded = load_rows(path)
        assert encoded.features == ("whole", "blank", "blank is missing", "decimal", "text=u", "text=v", "signed")
        assert encoded.x.tolist() == [[1.0, 7.0, 1.0, 1.5, 1.0, 0.0, 3.0], [2.0, 7.0, 0.0, -20.0, 0.0, 1.0, -4.0]]


def test_the_groups_of_rows(tmp_path: Path) -> None:
    rows: list[list[object]] = [["m1", 1, "a"], ["m2", 2, "b"], ["m1", 3, "a"]]
    path = write(tmp_path / "grouped.csv", ["mouse", "x", "class"], rows)
    part = load_rows(path, group="mouse")
    assert part.groups is not None
    assert part.groups.tolist() == ["m1", "m2", "m1"]
    assert part.features == ("x",)
    some = part.rows(torch.tensor([2, 1])).groups
    assert some is not None
    assert some.tolist() == ["m1", "m2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "rat"}, "no column 'rat' for groups; there are 'mouse', 'x', 'class'"),
        ({"group": "mouse"}, r"no group in column 'mouse', row 1 \(from 0\) \(1 such rows\)"),
        ({"group": "class", "label": "class"}, "'class' cannot be both the groups and the label"),
        ({"group": "mouse", "ignore": ["mouse"]}, "'mouse' cannot be both the groups and the label or ignored"),
    ],
)
def test_groups_that_are_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    path = write(tmp_path / "grouped.csv", ["mouse", "x", "class"], [["m1", 1, "a"], ["", 2, "b"]])
    with pytest.raises(ValueError, match=message):
        load_rows(path, **options)


def test_an_array_without_names_has_no_column_of_groups(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.eye(4), y=np.arange(4) % 2)
    with pytest.raises(ValueError, match="group=, time=, categories=, text= and weight= do not apply"):
        load_rows(str(tmp_path / "a.npz"), group="mouse")


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_long_columns_of_text_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Arrow refuses a chunk of text whose result might have 2 GB or more."""
    columns = {"a": ["Red", " red", "", "BLUE "] * 5, "b": ["u", "na", "v", "x"] * 5, "c": ["1", "2.5", "?", ""] * 5}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({**columns, "label": ["no", "yes"] * 10}), path, row_group_size=rows)
    whole = load_rows(str(path))
    monkeypatch.setattr(text_columns, "LARGEST", 8)
    pieces = load_rows(str(path))
    assert pieces.features == whole.features
    assert torch.equal(pieces.x, whole.x)
