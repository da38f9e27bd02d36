"""Tables as data frames of pandas are often written: with an index, and whole labels as decimal numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from torchlasso.data.dividing import SplitOptions
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.loading import load_part, load_rows, load_splits
from torchlasso.data.stored.options import StreamOptions


def sorted_frame(rows: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=rows), "b": rng.normal(size=rows)})
    frame["label"] = np.where(np.arange(rows) < rows // 2, "no", "yes")
    return frame


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_csv(path)
    return path


def write_csv_twice(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_csv(path)
    pd.read_csv(path).to_csv(path, index=False)
    return path


def write_filtered_parquet(frame: pd.DataFrame, path: Path) -> Path:
    path = path.with_suffix(".parquet")
    frame[frame["a"] > -1].to_parquet(path)
    return path


@pytest.mark.parametrize("stream", ["never", "always"])
@pytest.mark.parametrize("write", [write_csv, write_csv_twice, write_filtered_parquet])
def test_the_index_of_a_data_frame_is_not_an_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[pd.DataFrame, Path], Path], stream: str
) -> None:
    monkeypatch.setenv("TORCHLASSO_CACHE", str(tmp_path / "cache"))
    path = write(sorted_frame(), tmp_path / "rows.csv")
    found = load_splits(str(path), ColumnSelection(), SplitOptions(stream=StreamOptions(stream)))
    assert found.features == ("a", "b")
    assert sum("as the index of a data frame" in note for note in found.card.notes) == 1
    part = load_part(str(path))  # the same columns are read of rows to predict
    assert part.features == ("a", "b")


def test_other_columns_of_whole_numbers_stay_inputs(tmp_path: Path) -> None:
    frame = sorted_frame().assign(index=range(60), id=range(60))
    frame.to_csv(tmp_path / "rows.csv", index=False)
    assert load_rows(str(tmp_path / "rows.csv")).features == ("a", "b", "index", "id")


def test_a_column_without_a_name_that_does_not_number_rows_is_an_input(tmp_path: Path) -> None:
    frame = sorted_frame()
    frame.index = pd.Index(frame["a"] * 2)
    frame.to_csv(tmp_path / "rows.csv", index_label="")
    assert load_rows(str(tmp_path / "rows.csv")).features == ("", "a", "b")


def test_an_index_is_read_where_it_has_a_role(tmp_path: Path) -> None:
    write_csv_twice(sorted_frame(), tmp_path / "rows.csv")
    part = load_rows(str(tmp_path / "rows.csv"), group="Unnamed: 0")
    assert part.features == ("a", "b")
    assert part.groups is not None
    assert len(set(part.groups.tolist())) == 60
    assert len(load_rows(str(tmp_path / "rows.csv"), categories=["Unnamed: 0"]).features) > 2


@pytest.mark.parametrize(
    ("labels", "task", "is_said"),
    [
        ([0.0, 1.0] * 30, None, True),
        ([0.0, 1.0] * 30, "regression", False),
        ([0.0, 1.0] * 30, "classification", False),
        ([0.0, 1.5] * 30, None, False),
        (np.arange(60.0), None, False),
    ],
)
def test_whole_labels_that_are_written_as_decimals_are_pointed_out(
    tmp_path: Path, labels: Any, task: str | None, is_said: bool
) -> None:
    sorted_frame().assign(label=labels).to_csv(tmp_path / "rows.csv", index=False)
    notes = load_rows(str(tmp_path / "rows.csv"), task=task).notes
    assert any("task='classification'" in note for note in notes) is is_said
