"""Tables with categories, gaps, dates and numbers as text, and what they become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from torchlasso.data import load, load_part, load_rows
from torchlasso.data.dividing import SplitOptions
from torchlasso.data.encoding import Encoding
from torchlasso.data.frame import Category, Frame
from torchlasso.data.loading import load_splits, selected
from torchlasso.data.preparing import PreparedData
from torchlasso.data.tables import table_frame

HEADER = "age,colour,joined,code,label\n"
ROWS = ["30,red,2020-01-31,007,a", ",blue,2020-02-01,008,b", "50,,2021-03-05,007,a", "40,red,2020-01-31,009,b"]


def table(path: Path, rows: list[str], header: str = HEADER) -> str:
    path.write_text(header + "".join(row + "\n" for row in rows))
    return str(path)


def split(path: Path, train: list[str], test: list[str], **options: object) -> PreparedData:
    table(path / "train.csv", train)
    table(path / "test.csv", test)
    return load_splits(str(path), selected(**options), SplitOptions(validation=0.0))  # type: ignore[arg-type]


def test_postcodes_are_codes_also_where_there_are_many(tmp_path: Path) -> None:
    codes = [f"{1234 * (1 + i % 60):05}" for i in range(300)]  # from 01234 to 74040
    rows = [f"{code},{i},{i % 2}" for i, code in enumerate(codes)]
    found = load_rows(table(tmp_path / "a.csv", rows, header="zip,x,label\n"))
    assert len(found.features) == 61
    assert {"zip=01234", "zip=74040"} <= {*found.features}


def test_every_kind_of_column(tmp_path: Path) -> None:
    part = load_rows(table(tmp_path / "a.csv", ROWS))
    x = dict(zip(part.features, part.tensor.T.tolist(), strict=True))
    assert x["age"] == [30, 40, 50, 40]  # the median of 30, 50 and 40
    assert x["age is missing"] == [0, 1, 0, 0]
    assert [x[f"colour={name}"] for name in ("blue", "red")] == [[0, 1, 0, 0], [1, 0, 0, 1]]
    assert x["colour is missing"] == [0, 0, 1, 0]
    assert x["code=007"] == [1, 0, 1, 0]  # leading zeros: no number
    assert np.diff(x["joined"]).tolist() == [1.0, 398.0, -399.0]
    assert x["joined: month=Jan"] == [1, 0, 0, 1]
    assert x["joined: weekday=Fri"] == [1, 0, 1, 1]
    assert "joined: hour=00" not in x


def test_the_medians_and_categories_are_those_of_the_training_rows(tmp_path: Path) -> None:
    test = ["1000,green,2020-01-31,007,a", ",red,,007,b"]
    found = split(tmp_path, ROWS, test)
    x = dict(zip(found.features, found.test[0].T.tolist(), strict=True))
    assert x["age"] == [1000, 40]
    assert (x["colour=blue"], x["colour=red"], x["colour is missing"]) == ([0, 0], [0, 1], [0, 0])
    assert found.card.gaps == {"age": 1, "colour": 1}
    assert found.card.left_out == {"joined: hour": "all rows have the same value"}
    new, gaps = [note for note in found.card.notes if "test part" in note]
    assert "column 'colour' has values in 1 row that are not in training ('green')" in new
    assert "gaps in columns that have none in training (joined 1, joined: month 1, joined: weekday 1)" in gaps


def test_a_column_of_numbers_can_have_text_in_the_test_part_only_if_it_is_one_of_categories(tmp_path: Path) -> None:
    test = ["old,red,2020-01-31,007,a"]
    with pytest.raises(ValueError, match=r"test.csv: column 'age' holds 'old' in row 0 .*in training it has numbers"):
        split(tmp_path, ROWS, test)
    found = split(tmp_path, ROWS, test, categories=["age"])
    assert "age=30" in found.features


def test_rare_categories_share_an_input(tmp_path: Path) -> None:
    often = [f"1,name{i % 100},2020-01-01,1,{'ab'[i % 2]}" for i in range(400)]
    rare = [f"1,rare{i},2020-01-01,1,{'ab'[i % 2]}" for i in range(50)]
    found = split(tmp_path, often + rare, ["1,rare3,2020-01-01,1,a", "1,never seen,2020-01-01,1,b"])
    at = found.features.index("colour: others")
    assert found.train[0][:, at].sum() == 50
    assert found.test[0][:, at].tolist() == [1, 1]
    assert sum(name.startswith("colour") for name in found.features) == 101


def test_text_that_differs_in_every_row_is_left_out_and_said(tmp_path: Path) -> None:
    found = split(tmp_path, [f"{i},person {i},2020-01-01,1,{'ab'[i % 2]}" for i in range(200)], ["1,x,2020-01-01,1,a"])
    assert found.features[0] == "age"
    assert not any(name.startswith("colour") for name in found.features)
    assert "its text is different in most rows" in found.card.left_out["colour"]
    assert any(line.startswith("  left out: colour (its text") for line in found.card.lines())


def test_parquet_with_text_booleans_and_dates(tmp_path: Path) -> None:
    columns = {
        "text": ["1.5", "2", None, "4"],
        "flag": [True, None, False, True],
        "when": pa.array([0, 86_400, None, 0], pa.timestamp("s")),
        "kind": pa.array(["u", "v", "u", None]).dictionary_encode(),
        "wait": pa.array([1, 2, 3, 4], pa.duration("s")),
        "label": [0, 1, 0, 1],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    part = load_rows(str(tmp_path / "a.parquet"))
    x = dict(zip(part.features, part.tensor.T.tolist(), strict=True))
    assert (x["text"], x["text is missing"]) == ([1.5, 2, 2, 4], [0, 0, 1, 0])
    assert (x["flag"], x["flag is missing"]) == ([1, 1, 0, 1], [0, 1, 0, 0])
    assert x["kind=v"] == [0, 1, 0, 0]
    assert x["wait"] == [1, 2, 3, 4]
    assert x["when"][1] - x["when"][0] == 1


@pytest.mark.parametrize("written", [("True", "False"), ("TRUE", "FALSE"), ("true", "false")])
def test_true_and_false_are_one_number_as_in_parquet(tmp_path: Path, written: tuple[str, str]) -> None:
    path = table(tmp_path / "a.csv", [f"{written[i % 3 > 0]},{i},{'ab'[i % 2]}" for i in range(6)], "flag,n,label\n")
    x = load_part(path)
    assert (x.features, x.tensor[:, 0].tolist()) == (("flag", "n"), [1, 0, 0, 1, 0, 0])
    gaps = load_rows(table(tmp_path / "b.csv", [f"{written[0]},0", ",1", f"{written[1]},1"], "flag,label\n"))
    assert gaps.features == ("flag", "flag is missing")
    classes = load(table(tmp_path / "c.csv", [f"{i},{written[i % 2]}" for i in range(20)], "n,label\n")).classes
    assert set(classes) == {*written}  # of labels they are names


@pytest.mark.parametrize("others", [[True, False, None], ["true", "FALSE", None], [1, 0, None]])
def test_categories_true_and_false_are_found_in_other_spellings(others: list[Any]) -> None:
    known = Frame(
        ("flag",), np.zeros((4, 0), np.float32), {"flag": Category(np.array([0, 1, 0, 1]), ("True", "False"))}
    )
    encoding = Encoding.fit(known, "known")
    new = table_frame(pa, pa.table({"flag": pa.array(others)}), (), "new")
    assert encoding(encoding.aligned(new, "new")).tolist() == [*encoding(known.rows(np.array([0, 1]))).tolist(), [0, 0]]


def test_a_table_of_numbers_stays_as_it_is(tmp_path: Path) -> None:
    part = load_part(table(tmp_path / "a.csv", ["1,2,0", "3,4,1"], "a,b,label\n"))
    assert isinstance(part.x, torch.Tensor)
    assert part.x.tolist() == [[1, 2], [3, 4]]


def test_several_targets_and_the_kind_of_task(tmp_path: Path) -> None:
    rows = [f"{i},{2 * i},{i / 2},{i % 2}" for i in range(20)]
    path = table(tmp_path / "a.csv", rows, "x,first,second,class\n")
    dataset = load(path, label="first,second")
    assert (dataset.outputs, dataset.classes, dataset.features) == (2, (), ("x", "class"))
    whole = load(path, label="first", task="regression")
    assert (whole.classes, whole.y.dtype) == ((), torch.float32)
    with pytest.raises(ValueError, match="several labels must be numbers, for regression; column 'first' is not"):
        load(path, label="first,class", task="classification")
    with pytest.raises(ValueError, match="unknown task 'sorting'"):
        load(path, label="first", task="sorting")


def test_whole_numbers_that_may_be_measurements_are_not_taken_as_classes(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", [f"{i % 7},{3 * i}" for i in range(60)], "x,price\n")
    with pytest.raises(ValueError, match=r"60 different whole numbers in 60 rows.*task='regression'"):
        load(path, label="price")
    assert load(path, label="price", task="regression").classes == ()
    assert len(load_rows(path, label="price", task="classification").tensor) == 60
