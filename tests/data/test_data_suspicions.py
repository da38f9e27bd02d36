"""Columns of text that look like numbers or dates are named: they would be read as categories, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from torchlasso.data.dividing import SplitOptions, split_data
from torchlasso.data.loading import selected
from torchlasso.data.preparing import prepare


def notes_of(tmp_path: Path, values: list[str], **columns: Any) -> list[str]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"a": rng.normal(size=len(values)), "column": values, "label": ["no", "yes"] * (len(values) // 2)}
    )
    frame.to_csv(tmp_path / "rows.csv", index=False)
    notes = prepare(split_data(str(tmp_path / "rows.csv"), selected(**columns), SplitOptions())).card.notes
    return [note for note in notes if "is read as text" in note]


@pytest.mark.parametrize(
    "made",
    [
        lambda i: f"{i % 30}%",
        lambda i: f"${i + 1},{i:03}.50",
        lambda i: f"{i + 1}.{i:03},25 €",
        lambda i: f"{i},5",
        lambda i: f"{i + 10} kg" if i % 2 else f"{i + 10}",
        lambda i: f"-{i}'000",
    ],
)
def test_numbers_as_people_write_them_are_named(tmp_path: Path, made: Callable[[int], str]) -> None:
    [note] = notes_of(tmp_path, [made(i) for i in range(200)])
    assert note.startswith("'column' holds numbers such as ")
    assert note.endswith("and is read as text; write them as 1250.5.")


@pytest.mark.parametrize(
    "form",
    ["%m/%d/%Y", "%d.%m.%Y", "%d.%m.%y", "%Y/%m/%d", "%d %B %Y", "%b %d, %Y", "%m/%d/%Y %H:%M", "%d-%m-%Y, %H:%M:%S"],
)
def test_dates_as_people_write_them_are_named(tmp_path: Path, form: str) -> None:
    days = pd.date_range("2020-01-31", periods=200).strftime(form).tolist()
    [note] = notes_of(tmp_path, days)
    assert note.startswith("'column' holds dates such as '")
    assert note.endswith("write them as 2000-12-31.")


@pytest.mark.parametrize(
    "made",
    [
        lambda i: "red" if i % 2 else "blue",
        lambda i: f"{i % 9}{'ABC'[i % 3]}",  # seats
        lambda i: f"0{i % 50:04}",  # postcodes
        lambda i: f"10.0.{i % 7}.{i % 9}",  # addresses
        lambda i: f"{i % 24:02}:30",
        lambda i: ["S", "M", "L", "3XL"][i % 4],
        lambda i: str(pd.Timestamp("2020-01-31") + pd.Timedelta(days=i))[:10],  # read as dates
        lambda i: str(1.5 * i),  # read as numbers
    ],
)
def test_other_columns_are_not(tmp_path: Path, made: Callable[[int], str]) -> None:
    assert not notes_of(tmp_path, [made(i) for i in range(200)])


def test_numbers_that_are_given_as_categories_are_not_named(tmp_path: Path) -> None:
    assert not notes_of(tmp_path, [str(i % 7) for i in range(200)], categories=("column",))
