"""Tables that are refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torchlasso.data import load, load_part

MIXED = "a,y\n" + "".join(f"{i},{i % 2}\n" for i in range(29)) + "forty,1\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "a,b\n1,2\n",
            {},
            r"no label column \(label, class, target, y\); choose one with label=; there are 'a', 'b'",
        ),
        (
            "a,label\n1,2\n",
            {"label": "kind"},
            "no column 'kind'; choose one with label=; there are 'a', 'label'",
        ),
        ("a,label\n1,2\n2,3\n1,2\n2,3\n", {"ignore": ["id"]}, "no column 'id' to ignore; its inputs are 'a'"),
        ("a,y\n1,2\n", {"label": "y", "ignore": ["y"]}, "'y' cannot be both the label and ignored"),
        ("a,a,y\n1,1,2\n", {}, "more than one column 'a'; names must be unique"),
        ("y\n1\n0\n", {}, "there are no columns besides the label"),
        ("a,y\n", {}, "no rows; at least one is needed"),
        ("", {}, "an empty file; a header and rows are needed"),
        ("\n \n", {}, "an empty file"),
        ("a,y\n1,0\n1\n", {}, "rows of one length .*Row #3: Expected 2 columns, got 1"),
        (
            "a,b,y\n,v,0\n,v,1\n,v,0\n,v,1\n",
            {},
            "no column can be used: 'a': it is empty; 'b': all rows have the same value",
        ),
        ("a,y\ninf,0\n1e400,1\n", {}, "2 infinite values, first in row 0 .*, in column 'a'"),
        (MIXED, {}, "column 'a' has 'forty' in row 29 .from 0., and numbers in most other rows; correct it"),
        ("a,y\n1,\n2,1\n", {}, r"no label in column 'y', row 0 \(from 0\) \(1 such rows\)"),
        (
            "a,y\n1,0\n2,-3\n",
            {},
            r"column 'y': labels of classes must be 0 or more, or text, unless task= is given, but row 1 .* has -3",
        ),
        ("a,y\n1,0.5\n2,b\n3,1\n", {"task": "regression"}, r"labels for regression must be numbers; row 1 .* has 'b'"),
        ("a,y\n1,0.5\n2,inf\n", {}, "column 'y': labels must be finite"),
        ("a,y\n1,red\n2,red\n3,red\n", {}, "all labels are 'red'; at least 2 classes|3 rows are too few"),
    ],
)
def test_csv(tmp_path, refusal, text, options, message) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load(str(path), **options)
    refusal(path, **options)


def test_csv_in_another_encoding(tmp_path) -> None:
    (tmp_path / "a.csv").write_bytes("größe,y\n1,süß\n2,salzig\n".encode("latin-1"))
    part = load_part(str(tmp_path / "a.csv"), label="y")
    assert part.features == ("größe",)
    assert part.y is not None
    assert part.y.tolist() == ["süß", "salzig"]
    assert "is not UTF-8; it is read as cp1252" in part.notes[0]


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
def test_other_delimiters_and_decimal_commas(tmp_path, delimiter) -> None:
    lines = [["a, in m", "b", "y"], ["1,5", "-2", "0"], ["-0,25", "1e3", "1"], [",5", "3.5", "1"]]
    quoted = [[f'"{cell}"' if delimiter == "," and "," in cell else cell for cell in line] for line in lines]
    path = tmp_path / ("a.tsv" if delimiter == "\t" else "a.csv")
    path.write_text("\ufeff" + "".join(delimiter.join(line) + "\r\n" for line in quoted), encoding="utf8")
    part = load_part(str(path), categories=["a, in m"] if delimiter == "," else [])
    assert part.features == ("a, in m", "b")
    if delimiter == ",":  # where commas divide columns, they do not divide numbers
        assert part.frame.categories["a, in m"].values == ("1,5", "-0,25", ",5")
    else:
        assert part.tensor.tolist() == [[1.5, -2.0], [-0.25, 1000.0], [0.5, 3.5]]


def test_csv_whose_late_rows_are_of_another_kind(tmp_path) -> None:
    """The type of a column follows from all rows, not from the first block of the file."""
    path = tmp_path / "a.csv"
    path.write_text("a,y\n" + "1,1\n" * 400_000 + "2.5,two\n")
    part = load_part(str(path))
    assert part.x[-1].item() == 2.5
    assert part.y is not None
    assert part.y[-1] == "two"
    assert part.y[0] == "1"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [[1], [2]], "y": [0, 1]}, "no numbers, text or dates: column 'a' .'a' has the type list<.*leave it out"),
        ({"a": [1.0, 2.0], "y": [0, None]}, "no label in column 'y', row 1"),
        ({"a": [1.0, 2.0], "y": [[0], [1]]}, "labels must be whole numbers, decimal numbers or text"),
        ({"a": pa.array([], pa.float64()), "y": pa.array([], pa.int64())}, "no rows"),
    ],
)
def test_parquet(tmp_path, refusal, columns, message) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(ValueError, match=message):
        load(str(path))
    refusal(path)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("b,label\n1,0\n", "its columns differ .*missing: 'a'; only here: 'b'"),
        (
            "a,label\n1,2\n",
            "the label '2' in row 0 .from 0. is not among the classes '0', '1' of the training part",
        ),
        ("a,label\n1,0.5\n", "its labels are decimal numbers"),
        ("a\n1\n", "no label column"),
    ],
)
def test_test_file_that_does_not_fit(tmp_path, test, message) -> None:
    (tmp_path / "train.csv").write_text("a,label\n1,0\n2,1\n")
    (tmp_path / "test.csv").write_text(test)
    with pytest.raises(ValueError, match=f"^{tmp_path / 'test.csv'}.*{message}"):
        load(str(tmp_path))


def test_text_as_test_labels_of_a_regression(tmp_path) -> None:
    (tmp_path / "train.csv").write_text("a,label\n1,0.5\n2,1.5\n")
    (tmp_path / "test.csv").write_text("a,label\n1,red\n")
    with pytest.raises(
        ValueError, match="its labels are text, but the labels of the training part are decimal numbers"
    ):
        load(str(tmp_path))


def test_numbers_of_targets_that_differ(tmp_path) -> None:
    y, y_test = np.ones((4, 2)) / 2, np.ones(2) / 2
    np.savez(tmp_path / "a.npz", x=np.ones((4, 2)), y=y, x_test=np.ones((2, 2)), y_test=y_test)
    with pytest.raises(ValueError, match="1 targets per row, but the training part has 2"):
        load(str(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("b,label\n1,0\n", "its columns differ"),
    ],
)
def test_shards_that_do_not_fit(tmp_path, second, message) -> None:
    (tmp_path / "train-0.csv").write_text("a,label\n1,0\n2,1\n")
    (tmp_path / "train-1.csv").write_text(second)
    with pytest.raises(ValueError, match=f"^{tmp_path / 'train-1.csv'}: {message}"):
        load(str(tmp_path))
