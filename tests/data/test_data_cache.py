"""The files of the cache that are removed: those that have not been used for long, and never one in use."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from torchlasso._core import locks
from torchlasso.data.stored import cache, unused

DAY = 24 * 60 * 60


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(unused.VARIABLE, raising=False)
    return tmp_path / "cache"


def kept(name: str, content: bytes = b"content") -> Path:
    def write(file: BinaryIO) -> None:
        file.write(content)

    return cache.kept_file(cache.key_of(name), ".arrow", write, len(content), name)


def let_go(path: Path, days: float) -> None:
    """As if the process that used a file had ended, so many days ago."""
    beside = path.with_name(f"{path.name}.used")
    descriptor = locks._shared.pop(beside)
    locks._held.discard(descriptor)
    os.close(descriptor)
    os.utime(beside, (time.time() - days * DAY,) * 2)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_was_not_used_for_long_is_removed_when_something_new_is_kept(folder: Path) -> None:
    old, young = kept("old"), kept("young")
    let_go(old, 31)
    let_go(young, 29)
    times = young.stat()
    assert kept("young") == young  # which is a use of it, and no change
    assert young.stat() == times
    assert old.exists()  # nothing new was kept
    new = kept("new")
    assert names(folder) == {path.name + end for path in (young, new) for end in ("", ".used")}
    let_go(young, 31)
    record = cache.kept_record(cache.key_of("record"), lambda: {"a": 1}, "record")
    assert (record, young.exists(), new.exists()) == ({"a": 1}, False, True)


def test_a_file_in_use_stays_however_old(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(unused.VARIABLE, "0")
    old, gone = kept("old"), kept("gone")
    os.utime(folder / f"{old.name}.used", (0, 0))
    let_go(gone, 0.001)
    kept("new")
    assert old.exists()
    assert not gone.exists()


def _used_by(path: Path, started: Any) -> None:
    unused.use(path)
    started.set()
    signal.pause()


@pytest.mark.slow
def test_a_file_in_use_by_another_process_stays_until_that_is_killed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kept("old")
    let_go(path, 0)
    context = get_context("spawn")
    started = context.Event()
    process = context.Process(target=_used_by, args=(path, started))
    process.start()
    assert started.wait(60)
    monkeypatch.setenv(unused.VARIABLE, "0")
    try:
        kept("new")
        assert path.exists()
    finally:
        process.kill()
        process.join()
    kept("newer")
    assert not path.exists()


def test_the_least_recently_used_makes_space(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [kept(name) for name in "abc"]
    for days, path in zip((1, 3, 2), paths, strict=True):
        let_go(path, days)
    in_use = kept("in use")
    os.utime(folder / f"{in_use.name}.used", (0, 0))
    usage = cache.shutil.disk_usage(folder)

    def free(_: Path) -> Any:
        return usage._replace(free=100 - 10 * sum(path.exists() for path in (*paths, in_use)))

    monkeypatch.setattr(cache.shutil, "disk_usage", free)
    cache.kept_file(cache.key_of("new"), ".arrow", lambda file: None, 75, "new")
    assert [path.exists() for path in (*paths, in_use)] == [True, False, False, True]
    with pytest.raises(OSError, match="the cache needs") as caught:
        cache.kept_file(cache.key_of("large"), ".arrow", lambda file: None, 95, "large")
    assert caught.value.errno is not None
    assert not (folder / f"{cache.key_of('large')}.arrow.used").exists()


def test_other_files_stay(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(unused.VARIABLE, "0")
    folder.mkdir()
    (tmp_path / "mine").write_text("mine")
    others = [folder / name for name in ("notes.json", f"{'0' * 31}.json", f"{'0' * 32}.txt", ".lock")]
    for path in others:
        path.write_text("of somebody else")
    link, inner = folder / f"{'a' * 32}.arrow", folder / f"{'b' * 32}.arrow"
    link.symlink_to(tmp_path / "mine")
    inner.mkdir()
    earlier = folder / f"{'c' * 32}.parquet"  # of a version that recorded no use
    earlier.write_text("earlier")
    os.utime(earlier, (0, 0))
    kept("new")
    assert all(path.exists() for path in (*others, link, inner, tmp_path / "mine"))
    assert not earlier.exists()


@pytest.mark.parametrize("given", ["x", "-1", "nan", "3 days"])
def test_a_number_of_days_that_is_none_is_refused(given: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(unused.VARIABLE, given)
    with pytest.raises(ValueError, match=rf"^TORCHLASSO_CACHE_DAYS must be a number of days.*got '{given}'$"):
        kept("new")
    assert not names(folder)


def test_nothing_is_removed_with_infinitely_many_days(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(unused.VARIABLE, "inf")
    old = kept("old")
    let_go(old, 10_000)
    kept("new")
    assert old.exists()


def test_a_file_that_is_removed_while_another_process_waits_for_it_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remover holds the lock until the file is gone; then the file beside it is another one."""
    path = kept("old")
    let_go(path, 31)
    share: Callable[[Path], None] = unused.share

    def late(beside: Path) -> None:
        if path.exists() and beside.name.startswith(path.name):
            unused.remove_unused(folder)
        share(beside)

    monkeypatch.setattr(unused, "share", late)
    assert kept("old", b"again").read_bytes() == b"again"


def test_a_folder_that_cannot_be_written_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kept("old")
    let_go(path, 0)

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(unused, "share", refused)
    assert kept("old", b"other").read_bytes() == b"content"
