"""Data that stay on the disk are the same, to the bit, as in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from tests.data.conftest import encode, save_images
from torchlasso._core.locks import held
from torchlasso.data.dividing import SplitOptions
from torchlasso.data.image_decoding import ImageOptions
from torchlasso.data.loading import load_splits, selected
from torchlasso.data.preparing import PreparedData
from torchlasso.data.scaled import ScaledRows, scale_of_bytes
from torchlasso.data.standardizer import Standardizer
from torchlasso.data.stored import cache, columnar, values
from torchlasso.data.stored.ahead import read_ahead
from torchlasso.data.stored.images import EncodedImages
from torchlasso.data.stored.options import StreamOptions
from torchlasso.data.stored.rows import StoredRows

PARTS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, and few rows at a time."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(columnar, "AT_ONCE", 600)
    monkeypatch.setattr(values, "AT_ONCE", 40)


def prepared(spec: object, stream: str, division: dict[str, Any], columns: dict[str, Any]) -> PreparedData:
    options = SplitOptions(**{"validation": None, **division}, stream=StreamOptions(stream))
    return load_splits(str(spec), selected(**columns), options)


def assert_same(spec: object, division: dict[str, Any] | None = None, **columns: Any) -> PreparedData:
    """Check that all is the same in memory and on the disk; return what is on the disk."""
    memory, disk = (prepared(spec, stream, division or {}, columns) for stream in ("never", "always"))
    assert (disk.encoding, disk.classes, disk.features) == (memory.encoding, memory.classes, memory.features)
    for name in PARTS:
        (x, y), (wanted, labels) = getattr(disk, name), getattr(memory, name)
        assert isinstance(x, StoredRows) or not len(x)
        assert x.shape == wanted.shape
        assert torch.equal(x[:], wanted)
        assert torch.equal(y, labels)
        if len(wanted) > 3:
            some = torch.tensor([3, 0, 2, 2])
            assert torch.equal(x[some], wanted[some])
    assert disk.card.parts == memory.card.parts
    assert (disk.card.gaps, disk.card.encoded, disk.card.left_out) == (
        memory.card.gaps,
        memory.card.encoded,
        memory.card.left_out,
    )
    [said] = set(disk.card.notes) - set(memory.card.notes)
    assert said.startswith("The rows stay on the disk")
    assert not set(memory.card.notes) - set(disk.card.notes)
    return disk


def scale_of(x: Tensor | StoredRows) -> Standardizer:
    return scale_of_bytes(x) if x.dtype == torch.uint8 else Standardizer.fit(x)  # type: ignore[arg-type]


def mixed(rng: np.random.Generator, n: int = 60) -> dict[str, list[object]]:
    """Columns of all kinds, of which the first rows look like others."""
    when = [f"2024-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(n)]
    return {
        "age": [None if i % 7 == 3 else float(round(rng.normal(), 3)) for i in range(n)],
        "town": [("Ulm", "Bern", "Graz", "")[i % 4] for i in range(n)],
        "code": [str(i % 3) if i < 40 else "x" for i in range(n)],  # categories, but for the first rows numbers
        "price": [f"{i}.50" for i in range(n)],
        "bought": [None if i < 20 else when[i] for i in range(n)],  # dates, but for the first rows nothing
        "sold": when,
        "flag": [i % 2 == 0 for i in range(n)],
        "empty": [None] * n,
        "zip": [10_000 + i % 5 for i in range(n)],
        "person": [f"p{i % 12}" for i in range(n)],
        "label": [("no", "yes")[i % 2] for i in range(n)],
    }


def as_table(columns: dict[str, list[object]]) -> Any:
    found = {name: pa.array(values, pa.string()) if name == "empty" else values for name, values in columns.items()}
    return pa.table(found)


def as_csv(path: Path, columns: dict[str, list[object]], delimiter: str = ",", encoding: str = "utf8") -> Path:
    lines = [delimiter.join(columns)]
    lines += [
        delimiter.join("" if value is None else str(value) for value in row)
        for row in zip(*columns.values(), strict=True)
    ]
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


COLUMNS = {"group": "person", "categories": ("zip",)}


def test_a_table_of_numbers(tmp_path: Path, rng: np.random.Generator) -> None:
    columns = {f"c{i}": rng.normal(size=50) for i in range(4)} | {"y": rng.normal(size=50)}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=7)
    disk = assert_same(tmp_path / "a.parquet")
    memory = prepared(tmp_path / "a.parquet", "never", {}, {})
    assert scale_of(disk.train[0]) == scale_of(memory.train[0])


@pytest.mark.parametrize("kind", ["parquet", "csv", "semicolons", "cp1252"])
def test_a_table_of_all_kinds_of_columns(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    columns = mixed(rng)
    if kind == "parquet":
        pq.write_table(as_table(columns), tmp_path / "a.parquet", row_group_size=11)
        spec = tmp_path / "a.parquet"
    elif kind == "csv":
        spec = as_csv(tmp_path / "a.csv", columns)
    elif kind == "semicolons":
        columns["price"] = [str(value).replace(".", ",") for value in columns["price"]]
        spec = as_csv(tmp_path / "a.csv", columns, ";")
    else:
        columns["town"] = ["Zürich" if value == "Ulm" else value for value in columns["town"]]
        spec = as_csv(tmp_path / "a.csv", columns, encoding="cp1252")
    disk = assert_same(spec, **COLUMNS)
    assert disk.encoding is not None
    assert set(disk.encoding.categories["code"]) == {"0", "1", "2", "x"}
    assert "bought: month" in disk.encoding.categories
    assert scale_of(disk.train[0]) == scale_of(prepared(spec, "never", {}, COLUMNS).train[0])


def test_files_of_a_folder_with_columns_in_another_order(tmp_path: Path, rng: np.random.Generator) -> None:
    columns = mixed(rng)
    table = as_table(columns)
    for index in range(2):
        pq.write_table(table.slice(30 * index, 30), tmp_path / f"train-{index}.parquet")
    pq.write_table(table.slice(0, 20).select([*reversed(columns)]), tmp_path / "valid.parquet")
    pq.write_table(table.slice(20, 25), tmp_path / "test.parquet")
    assert_same(tmp_path, ignore=["person"], categories=("zip",))


def test_plain_numbers_with_columns_in_another_order(tmp_path: Path, rng: np.random.Generator) -> None:
    table = pa.table({f"c{i}": rng.normal(size=50) for i in range(4)} | {"y": rng.normal(size=50)})
    pq.write_table(table.slice(0, 30), tmp_path / "train.parquet")
    pq.write_table(table.slice(30).select(["c3", "y", "c0", "c2", "c1"]), tmp_path / "test.parquet")
    assert_same(tmp_path)


def test_a_division_by_time_and_by_shares(tmp_path: Path, rng: np.random.Generator) -> None:
    pq.write_table(as_table(mixed(rng)), tmp_path / "a.parquet")
    assert_same(tmp_path / "a.parquet", {"validation": 0.2, "test": 0.3}, ignore=["person"])
    assert_same(tmp_path / "a.parquet", {"validation": 0.0}, time="sold", ignore=["person", "bought"])


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_images_of_a_column(tmp_path: Path, rng: np.random.Generator, format: str) -> None:
    pixels = rng.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
    encoded = [encode(each, format) for each in pixels]
    encoded[3:9] = [encode(each[:, :, 0], format) for each in pixels[3:9]]  # grey
    spec = save_images(tmp_path / "a.parquet", encoded, [i % 2 for i in range(40)])
    disk = assert_same(spec)
    memory = prepared(spec, "never", {}, {})
    for part in PARTS:
        assert scale_of(getattr(disk, part)[0]) == scale_of(getattr(memory, part)[0])


def test_a_folder_of_images_of_which_some_are_corrupt(tmp_path: Path, rng: np.random.Generator) -> None:
    for index in range(40):
        folder = tmp_path / "images" / ("cat", "dog")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (4 + index % 3, 5), dtype=np.uint8)
        (folder / f"{index}.png").write_bytes(encode(pixels) if index % 13 else b"no image")
    options = ImageOptions("6", "crop", skip_corrupt=0.2)
    disk = assert_same(tmp_path / "images", images=options)
    assert any("4 images are unreadable" in note for note in disk.card.notes)
    with pytest.raises(ValueError, match=r"0\.png: not a readable image"):
        prepared(tmp_path / "images", "always", {}, {"images": ImageOptions("6")})


def test_a_grey_part_beside_one_with_colours(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
    save_images(tmp_path / "train.parquet", [encode(each) for each in pixels], [i % 2 for i in range(20)])
    save_images(tmp_path / "test.parquet", [encode(each[:, :, 0]) for each in pixels], [i % 2 for i in range(20)])
    assert_same(tmp_path)


def test_a_data_set_of_datasets(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    (tmp_path / "files").mkdir()
    pq.write_table(as_table(mixed(rng)), tmp_path / "files" / "train.parquet")
    assert_same(f"hf:{tmp_path / 'files'}", **COLUMNS)


def test_errors_are_those_of_data_in_memory(tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {
        "a": ["1"] * 30 + ["one", "two"] + [str(i) for i in range(30)],
        "y": [0, 1] * 31,
    }
    spec = as_csv(tmp_path / "a.csv", columns)
    messages = []
    for stream in ("never", "always"):
        with pytest.raises(ValueError, match=r"a\.csv") as found:
            prepared(spec, stream, {}, {})
        messages.append(str(found.value))
    assert messages[0] == messages[1]
    assert "'one' in row 30" in messages[0]


def test_what_was_made_is_used_again_until_the_file_changes(tmp_path: Path, rng: np.random.Generator) -> None:
    spec = save_images(tmp_path / "a.parquet", [encode(rng.integers(0, 256, (4, 5), dtype=np.uint8))] * 30, [0, 1] * 15)

    def files() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir() if path.suffix != ".used"}

    prepared(spec, "always", {}, {})
    before = files()
    prepared(spec, "always", {}, {})
    assert files() == before
    spec.touch()
    os.utime(spec, ns=(1, 1))
    prepared(spec, "always", {}, {})
    assert set(files()) > set(before)


def test_a_file_that_changes_in_secret_is_read_anew(tmp_path: Path) -> None:
    rows = "".join(f"{i % 7},{('no', 'yes')[i % 2]}\n" for i in range(40))
    spec = tmp_path / "a.csv"
    for text, classes in ((rows, ("no", "yes")), (rows.replace("yes", "QQQ"), ("QQQ", "no"))):
        spec.write_text("a,y\n" + text)
        os.utime(spec, (1, 1))
        assert prepared(spec, "always", {}, {}).classes == classes


def test_a_damaged_file_of_the_cache_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    pq.write_table(pa.table({"a": rng.normal(size=40), "y": rng.normal(size=40)}), tmp_path / "a.parquet")
    prepared(tmp_path / "a.parquet", "always", {}, {})
    [made] = (tmp_path / "cache").glob("*.arrow")
    made.write_bytes(made.read_bytes()[:500])
    with pytest.raises(ValueError, match=rf"{made.name}: a damaged file of the cache .*; delete it"):
        prepared(tmp_path / "a.parquet", "always", {}, {}).train[0][:]


@pytest.mark.slow
def test_a_lock_is_not_held_by_workers(tmp_path: Path) -> None:
    with held(tmp_path / "lock", "in use"):
        ahead = read_ahead(abs, iter([-1, 2, 3]), workers=1)
        assert next(ahead) == 1
    with held(tmp_path / "lock", "in use"):
        assert list(ahead) == [2, 3]


KINDS = {
    "numbers and text": ([1, 2] * 15, ["1", "x"] * 15),
    "texts that look like numbers": (["1.0", "2.0"] * 15, ["2.0", "k"] * 15),
    "truth values and numbers": ([True, False] * 15, [3, 4] * 15),
    "whole and decimal numbers": ([1, 2] * 15, [0.5, None] * 15),
    "nothing": ([None] * 30, ["red", "blue"] * 15),
    "dates as text": (["2024-01-31", "2024-02-03"] * 15, [None] * 30),
    "dates with and without a zone": (
        pa.array([1, 10**6] * 15, pa.timestamp("us")),
        pa.array([2, 10**9] * 15, pa.timestamp("us", "UTC")),
    ),
    "nanoseconds": (pa.array([1, 10**18] * 15, pa.timestamp("ns")), pa.array([2, 10**9 + 1] * 15, pa.timestamp("ns"))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_several_files_are_one_table(tmp_path: Path, kind: str) -> None:
    """The kind of a column is decided by the rows of all files."""
    for index, column in enumerate(KINDS[kind]):
        table = pa.table({"a": column, "b": list(range(30)), "label": ["no", "yes"] * 15})
        pq.write_table(table, tmp_path / f"train-{index}.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "train-2.parquet")
    disk = assert_same(tmp_path)
    assert len(disk.train[0]) + len(disk.validation[0]) + len(disk.test[0]) == 60
    if kind == "texts that look like numbers":
        assert disk.encoding is not None
        assert disk.encoding.categories["a"] == ("1.0", "2.0", "k")


def test_files_of_other_columns_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1.0], "label": [0]}), tmp_path / "train-0.parquet")
    pq.write_table(pa.table({"b": [1.0], "label": [1]}), tmp_path / "train-1.parquet")
    for stream in ("never", "always"):
        with pytest.raises(ValueError, match=r"train-1\.parquet: its columns differ"):
            prepared(tmp_path, stream, {}, {})


def test_a_full_disk_leaves_nothing(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = save_images(tmp_path / "a.parquet", [encode(rng.integers(0, 256, (4, 5), dtype=np.uint8))] * 30, [0, 1] * 15)
    usage = cache.shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(cache.shutil, "disk_usage", lambda _: usage._replace(free=10))
        with pytest.raises(OSError, match="TORCHLASSO_CACHE"):
            prepared(spec, "always", {}, {})
    with monkeypatch.context() as patched:
        patched.setattr(cache, "replacing", _full(cache.replacing))
        with pytest.raises(OSError, match="No space"):
            prepared(spec, "always", {}, {})
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]


def test_what_a_killed_process_left_is_removed_before_space_is_measured(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = save_images(tmp_path / "a.parquet", [encode(rng.integers(0, 256, (4, 5), dtype=np.uint8))] * 30, [0, 1] * 15)
    usage, left = cache.shutil.disk_usage(tmp_path), tmp_path / "cache" / f".torchlasso-{'0' * 16}.part"
    left.parent.mkdir()
    left.write_bytes(bytes(100))  # nobody has a lock on it
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage._replace(free=10 if left.exists() else usage.free))
    assert prepared(spec, "always", {}, {}).train[0][:1].numel() == 20


def _full(replacing: Callable[..., Any]) -> Callable[..., Any]:
    """Make a file that takes a few bytes only."""

    class Full:
        def __init__(self, path: Path) -> None:
            self.inner = replacing(path)

        def __enter__(self) -> Any:
            file = self.inner.__enter__()

            class Few:
                closed = False

                def write(self, content: Any) -> int:
                    if file.tell() > 20:
                        raise OSError(28, "No space left on device")
                    return int(file.write(content))

                def __getattr__(self, name: str) -> Any:
                    return getattr(file, name)

            return Few()

        def __exit__(self, *error: Any) -> Any:
            return self.inner.__exit__(*error)

    return Full


def test_data_that_are_no_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((8, 2)), y=np.arange(8) % 2)
    with pytest.raises(ValueError, match="are read into memory"):
        prepared(tmp_path / "a.npz", "always", {}, {})
    prepared(tmp_path / "a.npz", "auto", {}, {})


def test_size_decides(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"a": rng.normal(size=1000), "y": rng.normal(size=1000)}), tmp_path / "a.parquet")
    for free, is_stored in ((100_000, False), (10_000, True)):
        monkeypatch.setattr("torchlasso.data.stored.options.available", lambda free=free: free)
        found = prepared(tmp_path / "a.parquet", "auto", {}, {})
        assert isinstance(found.train[0], StoredRows) == is_stored
        assert any("in memory they would take" in note for note in found.card.notes) == is_stored


def test_the_size_of_images_is_the_one_that_they_are_brought_to(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchlasso.data.stored.options.available", lambda: 40 * 3 * 3 * 30 * 30)
    pixels = rng.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
    spec = save_images(tmp_path / "a.parquet", [encode(each) for each in pixels], [i % 2 for i in range(40)])
    for size, is_stored in ((None, False), ("32", True)):
        found = prepared(spec, "auto", {}, {"images": ImageOptions(size)})
        assert isinstance(found.train[0], StoredRows) == is_stored


@pytest.mark.slow
def test_workers_read_the_same_rows_in_order(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
    spec = save_images(tmp_path / "a.parquet", [encode(each) for each in pixels], [i % 2 for i in range(40)])
    data = prepared(spec, "always", {}, {}).train[0]
    assert isinstance(data, EncodedImages)
    batches = list(torch.randperm(len(data)).split(5))
    alone, ahead = (ScaledRows(data, scale_of(data), workers=workers) for workers in (0, 2))
    state = torch.get_rng_state()
    for left, right in zip(alone.batches(batches), ahead.batches(batches), strict=True):
        assert torch.equal(left, right)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(alone.rows(torch.tensor([4, 1]))[:], alone[torch.tensor([4, 1])])


@pytest.mark.slow
def test_an_error_of_a_worker_is_that_of_the_call() -> None:
    with pytest.raises(ZeroDivisionError, match="modulo by zero"):
        list(read_ahead(lambda n: 1 // n, [1, 0, 2], workers=1))


def test_an_image_that_changes_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    for index in range(20):
        folder = tmp_path / "images" / ("cat", "dog")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.png").write_bytes(encode(rng.integers(0, 256, (4, 5), dtype=np.uint8)))
    found = prepared(tmp_path / "images", "always", {}, {})
    (tmp_path / "images" / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"0\.png: the image has changed"):
        [found.train[0][:], found.validation[0][:], found.test[0][:]]
