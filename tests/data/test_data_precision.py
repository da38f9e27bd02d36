"""Numbers that 32 bits do not hold are named, from each kind of file, in memory and on a disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from torchlasso.data.dividing import SplitOptions, split_data
from torchlasso.data.loading import selected
from torchlasso.data.preparing import prepare
from torchlasso.data.stored.options import StreamOptions

ROWS = 60
NOTE = "rounding to 32 bits makes some of them equal"
FORMS = ("csv", "parquet")


def notes_of(path: Path, stream: str = "never", **columns: Any) -> list[str]:
    options = SplitOptions(stream=StreamOptions(stream))
    return [*prepare(split_data(str(path), selected(**columns), options)).card.notes]


def written(path: Path, form: str, **columns: Any) -> Path:
    frame = pd.DataFrame({"z": np.linspace(-1, 1, ROWS), "label": ["no", "yes"] * (ROWS // 2)} | columns)
    file = path / f"rows.{form}"
    frame.to_csv(file, index=False) if form == "csv" else frame.to_parquet(file, index=False)
    return file


@pytest.mark.parametrize("stream", ["never", "always"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "values",
    [
        1_700_000_000 + np.arange(ROWS),  # seconds of Unix time
        2**60 + np.arange(ROWS),  # equal in 64 bits of decimals, too
        1e9 + np.linspace(0, 5, ROWS),
        pd.date_range("2025-06-01", periods=ROWS, freq="s"),
    ],
    ids=["seconds", "large", "decimal", "dates"],
)
def test_numbers_close_together(tmp_path: Path, form: str, stream: str, values: Any) -> None:
    [note] = [n for n in notes_of(written(tmp_path, form, when=values), stream, label="label") if NOTE in n]
    assert note.startswith("'when': ")


def test_whole_numbers_above_64_bits_are_read(tmp_path: Path) -> None:
    values = [f"{'+' * (i % 2)}{9_000_000_000_000_000_000 + i * 10**18}" for i in range(ROWS)]
    path = written(tmp_path, "csv", large=values)
    prepared = prepare(split_data(str(path), selected(label="label"), SplitOptions()))
    assert "large" in prepared.features
    assert not [note for note in prepared.card.notes if NOTE in note]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "values",
    [
        1_700_000_000 + 1000 * np.arange(ROWS),
        np.full(ROWS, 2**60 + 1),  # a constant says nothing that could be lost
        np.where(np.arange(ROWS) % 2, 1.5, np.nan),
        np.arange(ROWS) * 1e-30,
        pd.date_range("2025-06-01", periods=ROWS, freq="h"),
    ],
    ids=["wide", "constant", "gaps", "small", "dates"],
)
def test_other_numbers(tmp_path: Path, form: str, values: Any) -> None:
    assert not [n for n in notes_of(written(tmp_path, form, when=values), label="label") if NOTE in n]


def test_arrays_and_targets(tmp_path: Path) -> None:
    close, y = 1e9 + np.arange(ROWS), np.arange(ROWS) % 2
    np.savez(tmp_path / "rows.npz", x=np.stack([close, close % 7], axis=1), y=y)
    [note] = [n for n in notes_of(tmp_path / "rows.npz") if NOTE in n]
    assert note.startswith("'column 1': ")
    path = written(tmp_path, "csv", target=close + 0.25)
    [note] = [n for n in notes_of(path, label="target", ignore=("label",)) if NOTE in n]
    assert note.startswith("'target 1': ")


@pytest.mark.parametrize("stream", ["never", "always"])
@pytest.mark.parametrize(
    ("values", "named"),
    [
        (["1.250", "250", "31.000"], True),
        (["1.250", "250", "1250"], False),  # a number of four digits has no point
        (["1.250", "250", "31.5"], False),
        (["0.250", "250", "31.000"], False),
        (["1.250", "2.500", "31.000"], False),  # all decimal numbers may have three digits
    ],
)
def test_points_that_may_divide_thousands(tmp_path: Path, stream: str, values: list[str], named: bool) -> None:
    lines = [f"{i};{values[i % 3]};{'ab'[i % 2]}" for i in range(ROWS)]
    (tmp_path / "rows.csv").write_text("\n".join(["n;sold;label", *lines]) + "\n")
    found = [note for note in notes_of(tmp_path / "rows.csv", stream, label="label") if "1250" in note]
    assert found == ["'sold': numbers such as 1.250 are read as 1.25; if they are 1250, write them so."] * named
