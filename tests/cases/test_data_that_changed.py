"""A run's data, changed since it was begun: nothing is measured on them, and no training goes on with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from torchlasso.cli.main import main

OPTIONS = ("--model", "mlp:width=4,depth=1", "--batch-size", "16", "--epochs", "1")
Rows = list[list[str]]


def written(path: Path, rows: Rows) -> Path:
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def rows() -> Rows:
    return [["a", "b", "y"], *([str(k % 7), str(k % 5), "yes" if k % 7 > 3 else "no"] for k in range(80))]


@pytest.fixture(scope="module")
def run(rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    data = written(folder / "rows.csv", rows)
    with pytest.raises(SystemExit) as ended:
        main(["train", "--data", str(data), "--out", str(folder / "run"), *OPTIONS])
    assert ended.value.code == 0
    return folder / "run"


def columns_in_another_order(rows: Rows) -> Rows:
    return [[b, a, y] for a, b, y in rows]


def a_column_more(rows: Rows) -> Rows:
    return [["c" if row is rows[0] else "1", *row] for row in rows]


def another_class(rows: Rows) -> Rows:
    return [*rows, *[["1", "2", "perhaps"]] * 10]


def other_units(rows: Rows) -> Rows:
    return [rows[0], *([a, str(1000 * int(b)), y] for a, b, y in rows[1:])]


CHANGES = {
    columns_in_another_order: "its features is ('b', 'a'), and was ('a', 'b')",
    a_column_more: "its shape is (3,), and was (2,)",
    another_class: "its outputs is 3, and was 2",
    other_units: "its values have other means or deviations",
}


@pytest.mark.parametrize("command", [("bench", "{run}", "--seconds", "0.01"), ("train", "--resume", "--out", "{run}")])
@pytest.mark.parametrize(("change", "said"), CHANGES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_it_is_said(
    run: Path,
    rows: Rows,
    change: Callable[[Rows], Rows],
    said: str,
    command: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = run.parent / "rows.csv"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    written(data, change(rows))
    try:
        with pytest.raises(SystemExit) as ended:
            main([word.format(run=run) for word in command])
    finally:
        written(data, rows)
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err == f"error: {data} has changed since the run began: {said}\n"
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_same_rows_in_another_file_will_do(run: Path, rows: Rows, capsys: pytest.CaptureFixture[str]) -> None:
    written(run.parent / "rows.csv", [[f"{word}.0" if word.isdigit() else word for word in row] for row in rows])
    with pytest.raises(SystemExit) as ended:
        main(["train", "--resume", "--out", str(run)])
    assert ended.value.code == 0
