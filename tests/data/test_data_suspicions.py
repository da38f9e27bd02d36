"""Columns of text that look like numbers or dates are named: they would be read as categories, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from torchlasso.data.dividing import SplitOptions, split_data
from torchlasso.data.loading import load_rows, selected
from torchlasso.data.preparing import prepare
from torchlasso.data.stored.options import StreamOptions


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


@pytest.mark.parametrize(
    ("made", "values"),
    [
        (lambda i: f"{i / 8:.3f}".replace(".", ","), [0.0, 0.125, 0.25]),
        (lambda i: f"{i},125" if i % 2 else f"{i},5", [0.5, 1.125, 2.5]),
        (lambda i: f"{i + 1:,}" if i < 3 else f"{i + 1}", [1.0, 2.0, 3.0]),  # without a comma
    ],
)
def test_decimal_commas_are_read(tmp_path: Path, made: Callable[[int], str], values: list[float]) -> None:
    (tmp_path / "rows.csv").write_text("x;label\n" + "".join(f"{made(i)};{i % 2}\n" for i in range(200)))
    assert load_rows(str(tmp_path / "rows.csv")).tensor[:3, 0].tolist() == values


@pytest.mark.parametrize("stream", ["never", "always"])
@pytest.mark.parametrize(
    "made",
    [
        lambda i: f"{7 * i + 800:,}",  # 800, 807 … 1,003: thousands
        lambda i: f"{100.25 * i:,.2f}",
        lambda i: f"{i / 8:.2f}".replace(".", "," if i % 2 else "."),
    ],
)
def test_commas_with_two_meanings_are_not_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[int], str], stream: str
) -> None:
    monkeypatch.setenv("TORCHLASSO_CACHE", str(tmp_path / "cache"))
    rows = "".join(f"{i / 4};{made(i)};{i % 2}\n" for i in range(200))
    (tmp_path / "rows.csv").write_text("a;column;label\n" + rows)
    found = prepare(split_data(str(tmp_path / "rows.csv"), selected(), SplitOptions(stream=StreamOptions(stream))))
    assert any("'column' holds numbers such as" in note for note in found.card.notes)
