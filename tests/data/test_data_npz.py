"""NPZ files that are refused."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest

from torchlasso.data import load, load_part


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("it was unpickled",))


def test_pickled_objects_are_never_loaded(tmp_path, refusal) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.ones((2, 2)), y=np.array([Trap(), Trap()], dtype=object))
    assert "pickled objects, which are never loaded" in refusal(path)
    path.write_bytes(pickle.dumps(Trap()))
    assert "not an NPZ file" in refusal(path)


def test_npz_with_a_false_header(tmp_path, refusal) -> None:
    stream = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (2**40, 2**10)}
    np.lib.format.write_array_header_1_0(stream, header)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", stream.getvalue() + bytes(64))
    assert "'x' has the shape (1099511627776, 1024) in its header, which does not fit its bytes" in refusal(
        tmp_path / "a.npz", load_part
    )


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": [1]}, "no array 'x' or 'x_train'; there are 'a'"),
        ({"x": np.ones((2, 2))}, "no array 'y' for 'x'; there are 'x'"),
        ({"x": np.ones(3), "y": [0, 1, 0]}, r"x must have the shape .*, not \(3,\)"),
        ({"x": np.ones((3, 2)), "y": [0, 1]}, "x has 3 rows and y has 2"),
        ({"x": np.ones((0, 2)), "y": np.ones(0, int)}, "x is empty"),
        ({"x": np.array([["a"]] * 2), "y": [0, 1]}, "x must hold numbers, not <U1"),
        (
            {"x": np.ones((2, 2)), "y": np.ones((2, 2), int)},
            r"labels must have the shape \(n,\), not \(2, 2\)",
        ),
        ({"x": np.ones((2, 2)), "y": np.ones(2, complex)}, "labels must be .* not complex128"),
        (
            {"x": np.ones((2, 2)), "y": [0, -1]},
            r"must be 0 or more, or text, unless task= is given, but row 1 \(from 0\) has -1",
        ),
        ({"x": np.ones((2, 2)), "y": np.array([0, 2**63], np.uint64)}, "must fit into 64 bits"),
        ({"x": np.ones((2, 2)), "y": [0.5, np.nan]}, r"must be finite numbers, but row 1 \(from 0\) has nan"),
        ({"x": np.array([[0], [np.nan]]), "y": [0, 1]}, r"1 missing or infinite value, first in row 1"),
        ({"x": np.array([[0], [1e300]]), "y": [0, 1]}, r"1 missing or infinite value, first in row 1"),
        ({"x": np.ones((4, 2)), "y": [3] * 4}, "all labels are '3'; at least 2 classes are needed"),
        ({"x": np.ones((2, 2)), "y": [0, 1]}, "2 rows are too few to split off test rows"),
    ],
)
def test_npz_contents(tmp_path, refusal, arrays, message) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load(str(tmp_path / "a.npz"))
    refusal(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (
            {"x_test": np.ones((2, 3)), "y_test": [0, 1]},
            r"the shape \(3,\), but the rows of the training part .* \(2,\)",
        ),
        (
            {"x_test": np.ones((2, 2)), "y_test": [0, 7]},
            r"x_test: the label '7' in row 1 .* classes '0', '1'",
        ),
        (
            {"x_test": np.ones((2, 2)), "y_test": [0.5, 1.0]},
            "its labels are decimal numbers, .* whole numbers",
        ),
        ({"x_test": np.ones((2, 2))}, "no array 'y_test'"),
        ({"x_test": np.ones((2, 2)), "y_test": [0, 1, 0]}, "x has 2 rows and y has 3"),
    ],
)
def test_test_part_that_does_not_fit(tmp_path, test, message) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((4, 2)), y=[0, 1, 0, 1], **test)
    with pytest.raises(ValueError, match=message):
        load(str(tmp_path / "a.npz"))
