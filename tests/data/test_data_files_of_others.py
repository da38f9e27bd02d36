"""Files of other people: compressed, without a header, or of a kind that cannot be read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from torchlasso.data import load_rows
from torchlasso.data.dividing import SplitOptions, split_data
from torchlasso.data.loading import selected
from torchlasso.data.preparing import PreparedData, prepare
from torchlasso.data.stored.options import StreamOptions

VALUES = [(i * i % 17, "red" if i % 3 else "blue", "ab"[i % 2]) for i in range(60)]
ROWS = {
    "csv": "\n".join(["x,colour,label", *(",".join(map(str, values)) for values in VALUES)]) + "\n",
    "jsonl": "".join(json.dumps(dict(zip(("x", "colour", "label"), values, strict=True))) + "\n" for values in VALUES),
}


def prepared(path: Path, stream: str = "never") -> PreparedData:
    return prepare(split_data(str(path), selected(label="label"), SplitOptions(stream=StreamOptions(stream))))


@pytest.mark.parametrize("stream", ["never", "always"])
@pytest.mark.parametrize("form", ROWS)
def test_a_compressed_table_is_read_as_what_it_holds(tmp_path: Path, form: str, stream: str) -> None:
    (tmp_path / f"a.{form}").write_text(ROWS[form])
    (tmp_path / f"b.{form}.gz").write_bytes(gzip.compress(ROWS[form].encode()))
    plain, packed = prepared(tmp_path / f"a.{form}", stream), prepared(tmp_path / f"b.{form}.gz", stream)
    assert packed.features == plain.features
    for one, other in zip(packed.train, plain.train, strict=True):
        rows = torch.arange(len(one))
        assert torch.equal(one[rows], other[rows])


def test_a_folder_of_compressed_tables(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(ROWS["csv"].encode()))
    assert len(prepared(tmp_path).test[0]) == 60


@pytest.mark.parametrize("stream", ["never", "always"])
@pytest.mark.parametrize("form", ROWS)
def test_a_compressed_table_that_is_cut_short(tmp_path: Path, form: str, stream: str) -> None:
    (tmp_path / f"a.{form}.gz").write_bytes(gzip.compress(ROWS[form].encode())[:-20])
    with pytest.raises(ValueError, match=rf"a\.{form}\.gz: .*not a whole gzip file") as raised:
        prepared(tmp_path / f"a.{form}.gz", stream)
    assert str(raised.value).count("a." + form) == 1


def test_one_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end may lie about the bytes that it holds."""
    content = gzip.compress(b"x,label\n" + b"1,0\n" * 1_000_000)
    (tmp_path / "a.csv.gz").write_bytes(content[:-4] + (100).to_bytes(4, "little"))
    monkeypatch.setattr("torchlasso._core.memory.available", lambda: 2_000_000)
    with pytest.raises(MemoryError, match=r"a\.csv\.gz needs"):
        load_rows(str(tmp_path / "a.csv.gz"))


def test_json_lines_that_hold_more_than_their_end_says_are_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compressed files may be joined, and then the end is that of the last one."""
    half = len(VALUES) // 2
    lines = ROWS["jsonl"].splitlines(keepends=True)
    parts = ("".join(lines[:half]), "".join(lines[half:]))
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(gzip.compress(part.encode()) for part in parts))
    monkeypatch.setattr("torchlasso.data.stored.json_blocks.LARGEST", len(parts[0]) + len(parts[1]) // 2)
    assert len(load_rows(str(tmp_path / "a.jsonl.gz")).tensor) == len(VALUES)


@pytest.mark.parametrize("stream", ["never", "always"])
def test_a_first_line_that_is_a_row_is_named(tmp_path: Path, stream: str) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{a:.2f},{b:.2f},{'ab'[i % 2]}" for i, (a, b) in enumerate(rng.normal(size=(40, 2)))]
    (tmp_path / "a.csv").write_text("\n".join(["5.1,3.5,label", *lines]) + "\n")
    [note] = [n for n in prepared(tmp_path / "a.csv", stream).card.notes if "looks like a row" in n]
    assert note.endswith("('5.1', '3.5', 'label'), and its values are the names of the columns; put names above it.")


@pytest.mark.parametrize(
    ("first", "fault"),
    [("5.1,3.5,setosa", "no label column"), ("0,0,1", "more than one column '0'"), ("1.5,1.5,label", "more than one")],
)
def test_an_error_that_a_missing_header_leads_to_says_so(tmp_path: Path, first: str, fault: str) -> None:
    (tmp_path / "a.csv").write_text("\n".join([first] * 20))
    with pytest.raises(ValueError, match=rf"{fault}.*; the first line looks like a row: put the names .* above it$"):
        load_rows(str(tmp_path / "a.csv"))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("a.csv.zip", "unpack it first"),
        ("A.TAR.GZ", "unpack it first"),
        ("a.xlsx", "save it as CSV or Parquet"),
        ("a.pkl", "it can run code when it is read; save it as CSV or Parquet"),
        ("iris.data", "name it FILE.csv if it is text with a header"),
        ("a.json", "write an object in each line, FILE.jsonl"),
    ],
)
def test_the_error_of_another_kind_of_file_says_what_to_do(tmp_path: Path, name: str, remedy: str) -> None:
    (tmp_path / name).write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match=rf"cannot be read as data; {remedy}; there are readers for"):
        load_rows(str(tmp_path / name))


@pytest.mark.parametrize(("classes", "named"), [(10, False), (14, True)])
def test_many_classes_that_are_whole_numbers_are_named(tmp_path: Path, classes: int, named: bool) -> None:
    lines = [f"{i % 7},{i % classes}" for i in range(140)]
    (tmp_path / "a.csv").write_text("\n".join(["x,label", *lines]) + "\n")
    found = [note for note in prepared(tmp_path / "a.csv").card.notes if "whole numbers" in note]
    what = "The whole numbers in column 'label' are learned as 14 classes, without an order; to predict them as numbers"
    assert found == [f"{what}, give task='regression'."] * named
