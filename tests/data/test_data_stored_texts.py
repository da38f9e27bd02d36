"""Texts that stay on the disk become the same numbers, vocabulary and notes as in memory."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from torchlasso.data import texts as text_rows
from torchlasso.data.dividing import SplitOptions
from torchlasso.data.loading import load_part, load_splits, selected
from torchlasso.data.padded import PaddedRows
from torchlasso.data.preparing import PreparedData
from torchlasso.data.stored import cache, columnar, json_blocks, tokens
from torchlasso.data.stored.options import StreamOptions
from torchlasso.data.stored.tokens import StoredTokens
from torchlasso.data.text_options import TextOptions
from torchlasso.data.tokenizing import TextEncoding
from torchlasso.training.rows import evaluation_batches
from torchlasso.training.token_rows import TokenRows

WORDS = ["pump", "leaks", "hinge", "jams", "lamp", "flickers", "the", "a", "is", "我爱", "😀", "often", "never"]


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, and few texts at a time."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(columnar, "AT_ONCE", 600)
    monkeypatch.setattr(text_rows, "AT_ONCE", 5)
    monkeypatch.setattr(tokens, "ROWS", 7)
    monkeypatch.setattr(json_blocks, "BLOCK", 100)


def drawn(rng: np.random.Generator, count: int = 60) -> dict[str, list[Any]]:
    """Texts of 0 to 19 words, some of which occur once, with a label."""
    texts = [" ".join([*rng.choice(WORDS, i % 20), f"rare{i}"][: i % 20]) for i in range(count)]
    titles = [("  Lamp ", None, "Pump")[i % 3] for i in range(count)]
    return {"text": texts, "title": titles, "label": [("no", "yes")[i % 2] for i in range(count)]}


def written(path: Path, columns: dict[str, list[Any]]) -> Path:
    """Write columns as the suffix of the path says."""
    path.parent.mkdir(exist_ok=True)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path, row_group_size=13)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf8")
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(columns), lineterminator="\r\n")
            writer.writeheader()
            writer.writerows(rows)
    return path


def both(spec: object, division: dict[str, Any] | None = None, **columns: Any) -> tuple[PreparedData, PreparedData]:
    """Return the data in memory and on the disk."""
    asked = {"validation": None, **(division or {})}
    splits = (SplitOptions(**asked, stream=StreamOptions(stream)) for stream in ("never", "always"))
    memory, disk = (load_splits(str(spec), selected(**columns), each) for each in splits)
    return memory, disk


def assert_same(spec: object, division: dict[str, Any] | None = None, **columns: Any) -> PreparedData:
    """Check that all is the same in memory and on the disk; return what is on the disk."""
    memory, disk = both(spec, division, **columns)
    assert disk.text == memory.text
    assert (disk.card.inputs, disk.card.parts) == (memory.card.inputs, memory.card.parts)
    for name in ("train", "validation", "test"):
        (x, y), (wanted, labels) = getattr(disk, name), getattr(memory, name)
        assert isinstance(x, StoredTokens)
        assert isinstance(wanted, TokenRows)
        assert torch.equal(x[:], wanted[:])
        assert torch.equal(y, labels)
        if len(wanted) > 3:
            some = torch.tensor([3, 0, 2, 2])
            assert torch.equal(x[some], wanted[some])
            assert torch.equal(x.rows(some)[:], wanted.rows(some)[:])
        ours, theirs = evaluation_batches(PaddedRows(x)), evaluation_batches(wanted)
        assert len(ours) == len(theirs)
    [said] = set(disk.card.notes) - set(memory.card.notes)
    assert said.startswith("The rows stay on the disk")
    assert not set(memory.card.notes) - set(disk.card.notes)
    return disk


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("text", [("text",), ("title", "text")])
def test_texts_of_a_file(tmp_path: Path, rng: np.random.Generator, suffix: str, text: tuple[str, ...]) -> None:
    spec = written(tmp_path / f"a.{suffix}", drawn(rng))
    disk = assert_same(spec, text=text, texts=TextOptions(max_length=9, vocabulary=12))
    assert disk.text is not None
    assert disk.text.words == 13
    assert any("have more than 9 words, at most" in note for note in disk.card.notes)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_the_column_of_texts_is_found(tmp_path: Path, suffix: str) -> None:
    texts = [f"The cat number {i} sat on the mat." for i in range(30)]
    spec = written(tmp_path / f"a.{suffix}", {"text": texts, "other": [*range(30)], "label": [0, 1] * 15})
    disk = assert_same(spec)
    assert disk.text is not None
    assert disk.text.columns == ("text",)
    assert "Only the text is read; 'other' is not." in disk.card.notes
    repeated = {"text": texts[:2] * 15, "label": [0, 1] * 15}
    memory, disk = both(written(tmp_path / f"b.{suffix}", repeated))
    assert disk.text is memory.text is None
    assert disk.features == memory.features


def test_files_of_a_folder_and_a_named_file(tmp_path: Path, rng: np.random.Generator) -> None:
    columns = drawn(rng)
    for name, rows in (("train-0", slice(0, 25)), ("train-1", slice(25, 50)), ("test", slice(40, 60))):
        written(tmp_path / "data" / f"{name}.jsonl", {key: values[rows] for key, values in columns.items()})
    assert_same(tmp_path / "data", text=("text",))
    other = written(tmp_path / "other.jsonl", drawn(rng, 20))
    assert_same(tmp_path / "data", {"validation": str(other), "test": 0.3}, text=("text",))


def test_groups_and_times_divide_texts_too(tmp_path: Path, rng: np.random.Generator) -> None:
    columns = drawn(rng) | {"who": [f"p{i % 12}" for i in range(60)], "when": [59 - i for i in range(60)]}
    spec = written(tmp_path / "a.parquet", columns)
    assert_same(spec, text=("text",), group="who", ignore=["when", "title"])
    assert_same(spec, {"validation": 0.2, "test": 0.3}, text=("text",), time="when", ignore=["who", "title"])


def test_texts_of_a_data_set_of_datasets(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    written(tmp_path / "files" / "train.jsonl", drawn(rng))
    assert_same(f"hf:{tmp_path / 'files'}", text=("text",))


def test_a_tokenizer_from_a_file(tmp_path: Path, rng: np.random.Generator) -> None:
    spec = written(tmp_path / "a.parquet", drawn(rng))
    memory, _ = both(spec, text=("text",))
    assert memory.text is not None
    (tmp_path / "tokenizer.json").write_text(memory.text.tokenizer, encoding="utf8")
    assert_same(spec, text=("text",), texts=TextOptions(tokenizer=str(tmp_path / "tokenizer.json"), max_length=8))


def test_texts_are_tokenised_once(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = written(tmp_path / "a.csv", drawn(rng))
    first = both(spec, text=("text",))[1]

    def refused(*_: Any) -> None:
        raise AssertionError("the words are found again")

    with monkeypatch.context() as patched:
        patched.setattr(TextEncoding, "tokenise", refused)
        patched.setattr("torchlasso.data.tokenizing.trained_words", refused)
        options = SplitOptions(validation=None, stream=StreamOptions("always"))
        again = load_splits(str(spec), selected(text=("text",)), options)
        assert torch.equal(again.train[0][:], first.train[0][:])


def test_other_rows_and_other_options_have_other_files(tmp_path: Path, rng: np.random.Generator) -> None:
    spec = written(tmp_path / "a.parquet", drawn(rng))
    found = [
        both(spec, {"seed": seed}, text=text, texts=texts)
        for seed, text, texts in (
            (0, ("text",), TextOptions()),
            (1, ("text",), TextOptions()),  # another vocabulary: of other training rows
            (0, ("title", "text"), TextOptions()),
            (0, ("text",), TextOptions(max_length=4)),
            (0, ("text",), TextOptions(vocabulary=4)),
        )
    ]
    for memory, disk in found:
        assert memory.text == disk.text
        assert torch.equal(disk.train[0][:], memory.train[0][:])


def test_batches_that_workers_read_ahead(tmp_path: Path, rng: np.random.Generator) -> None:
    spec = written(tmp_path / "a.parquet", drawn(rng))
    memory, disk = both(spec, text=("text",))
    batches = torch.randperm(len(memory.train[0])).split(8)
    assert isinstance(disk.train[0], StoredTokens)
    for workers in (0, 2):
        rows = PaddedRows(disk.train[0], workers=workers)
        for found, batch in zip(rows.batches(batches), batches, strict=True):
            assert torch.equal(found, memory.train[0][batch])


def test_fewer_words_are_numbered_anew_on_the_disk_too(tmp_path: Path, rng: np.random.Generator) -> None:
    spec = written(tmp_path / "a.parquet", drawn(rng))
    memory, _ = both(spec, text=("text",))
    assert memory.text is not None
    less = memory.text.with_words(torch.tensor([0, 2, 3]))
    parts = [load_part(str(spec), text=("text",), stream=StreamOptions(stream)) for stream in ("never", "always")]
    for encoding in (less, TextEncoding(memory.text.tokenizer, 6, ("text",), kept=(0, 2, 5))):
        (ours, counts), (theirs, wanted) = (part.x.tokenised(encoding) for part in parts)
        assert torch.equal(ours[:], theirs[:])
        assert counts == wanted


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_the_size_of_texts_decides(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    spec = written(tmp_path / f"a.{suffix}", drawn(rng, 400))
    options = SplitOptions(validation=None, stream=StreamOptions("auto"))
    size = sum(map(len, drawn(rng, 400)["text"]))
    for free, stays in ((4 * size, True), (100 * size, False)):
        monkeypatch.setattr("torchlasso.data.stored.options.available", lambda free=free: free)
        found = load_splits(str(spec), selected(text=("text",)), options)
        assert isinstance(found.train[0], StoredTokens) == stays
        assert any("in memory they would take about" in note for note in found.card.notes) == stays


BROKEN = {
    "a.jsonl": ('{"text": "a b", "label": 1}\n\n{"text": "a b", "label": \n', "line 3"),
    "b.jsonl": ('{"text": "a b", "label": 1}\n' * 9 + '{"text": 5, "label": 1}\n', "line 10"),
    "c.jsonl": ('{"text": "a b", "label": 1}\n[1]\n', "line 2"),
    "a.csv": ("text,label\n" + "a b,1\n" * 3 + "a b\n", "Row #5"),
    "d.jsonl": ("\n \n", "an empty file"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("stream", ["never", "always"])
def test_a_broken_row_is_named(tmp_path: Path, name: str, stream: str) -> None:
    content, message = BROKEN[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_splits(str(tmp_path / name), selected(text=("text",)), SplitOptions(stream=StreamOptions(stream)))
    assert name in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not list((tmp_path / "cache").glob("*")) or stream == "never"


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a b", "label": 1}\n{"text": "\xff", "label": 0}\n')
    for stream in ("never", "always"):
        with pytest.raises(ValueError, match=r"a\.jsonl, line 2: .*Invalid UTF8"):
            load_splits(str(tmp_path / "a.jsonl"), selected(), SplitOptions(stream=StreamOptions(stream)))


def test_errors_are_those_of_texts_in_memory(tmp_path: Path) -> None:
    rows = {"text": [""] * 8, "x": [*range(8)], "label": [0, 1] * 4}
    spec = written(tmp_path / "a.parquet", rows)
    for columns, message in (
        ({"text": ("text",)}, "all texts of column 'text' are empty"),
        ({"text": ("x",)}, "column 'x' holds values of type int64, not texts"),
        ({"text": ("label",)}, "cannot be both the text and something else"),
    ):
        for stream in ("never", "always"):
            with pytest.raises(ValueError, match=message):
                load_splits(str(spec), selected(**columns), SplitOptions(stream=StreamOptions(stream)))


def fails(error: BaseException, after: int) -> Callable[..., Any]:
    """Make the tokenizer fail after some calls."""
    calls, tokenise = iter(range(after)), TextEncoding.tokenise

    def function(encoding: TextEncoding, some: list[str]) -> Any:
        if next(calls, None) is None:
            raise error
        return tokenise(encoding, some)

    return function


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_file_that_could_not_be_written(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    spec = written(tmp_path / "a.parquet", drawn(rng))
    with monkeypatch.context() as patched:
        patched.setattr(TextEncoding, "tokenise", fails(error, after=4))
        with pytest.raises(type(error)):
            load_splits(str(spec), selected(text=("text",)), SplitOptions(stream=StreamOptions("always")))
    assert not [*(tmp_path / "cache").glob("*.arrow*"), *(tmp_path / "cache").glob(".torchlasso*")]
    assert_same(spec, text=("text",))


def killed(spec: Path) -> None:
    """Read texts onto the disk, in a process that is killed when it begins to tokenise them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TextEncoding, "tokenise", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        load_splits(str(spec), selected(text=("text",)), SplitOptions(stream=StreamOptions("always")))


def test_nothing_is_left_of_a_killed_process(tmp_path: Path, rng: np.random.Generator) -> None:
    spec, folder = written(tmp_path / "a.parquet", drawn(rng)), tmp_path / "cache"
    process = multiprocessing.get_context("spawn").Process(target=killed, args=(spec,))
    process.start()
    process.join(100)
    assert process.exitcode == -signal.SIGKILL
    assert [*folder.glob(".torchlasso*")]
    assert_same(spec, text=("text",))
    assert not [*folder.glob(".torchlasso*")]


def test_a_disk_that_is_too_small_is_said_before(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = written(tmp_path / "a.parquet", drawn(rng))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("torchlasso.data.stored.cache.shutil.disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(OSError, match=r"a\.parquet: the cache needs .* and 100 B are free"):
        load_splits(str(spec), selected(text=("text",)), SplitOptions(stream=StreamOptions("always")))


def test_texts_are_not_held(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most a few batches of texts are alive at any time."""
    spec = written(tmp_path / "a.parquet", drawn(rng))
    sizes, every = list[int](), text_rows.in_pieces

    def watched(some: Any) -> Iterator[list[str]]:
        for piece in every(some):
            sizes.append(len(piece))
            yield piece

    monkeypatch.setattr("torchlasso.data.stored.texts.in_pieces", watched)
    load_splits(str(spec), selected(text=("text",)), SplitOptions(stream=StreamOptions("always")))
    assert max(sizes) <= 5
    assert sum(sizes) >= 60
