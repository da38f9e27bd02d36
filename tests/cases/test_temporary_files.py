"""Temporary files: none that another could foresee, none followed through a link, none of anybody else's removed."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support import programs
from torchlasso import figures, storage
from torchlasso._core import files
from torchlasso._core.files import replacing, write_json, write_text
from torchlasso.diagnostics.report import report
from torchlasso.export import to_onnx, to_pt2
from torchlasso.storage import checkpoint

LEFT = ".torchlasso-0123456789abcdef.part"

WRITERS: dict[str, Callable[[Path], None]] = {
    "text": lambda folder: write_text(folder / "file.txt", "new"),
    "json": lambda folder: write_json(folder / "file.json", [1]),
    "checkpoint": lambda folder: checkpoint.save_state(folder / "file.safetensors", {"w": torch.ones(2)}),
    "compressed": lambda folder: storage.save(nn.Linear(2, 2), folder / "file.safetensors"),
    "figure": lambda folder: figures.save(figures.stability([0.1]), folder / "file.svg"),
    "page": lambda folder: report(nn.Linear(2, 2)).to_html(folder / "file.html"),
    "pt2": lambda folder: to_pt2(nn.Linear(2, 2), torch.ones(2, 2), folder / "file.pt2"),
    "onnx": lambda folder: to_onnx(nn.Linear(2, 2), torch.ones(2, 2), folder / "file.onnx"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_no_writer_follows_a_link(tmp_path: Path, name: str) -> None:
    """Nothing is written through links, under foreseeable temporary names or at the place of the file itself."""
    folder, precious = tmp_path / "run", tmp_path / "precious"
    folder.mkdir()
    torch.manual_seed(0)
    WRITERS[name](folder)
    (written,) = folder.iterdir()
    content, wanted = written.read_bytes(), written.name
    written.unlink()
    precious.write_text("mine")
    for link in (wanted, f".{wanted}.part", f"{wanted}.tmp", LEFT):
        (folder / link).symlink_to(precious)
    torch.manual_seed(0)
    WRITERS[name](folder)
    assert precious.read_text() == "mine"
    assert not (folder / wanted).is_symlink()
    assert len((folder / wanted).read_bytes()) == len(content)
    assert (folder / LEFT).is_symlink()  # a link is nothing that a process left


def test_names_cannot_be_foreseen_and_files_are_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, flags, opened = [], [], os.open

    def watched(path: Path, flag: int, mode: int = 0o777) -> int:
        names.append(Path(path).name)
        flags.append(flag)
        return opened(path, flag, mode)

    monkeypatch.setattr(files.os, "open", watched)
    for _ in range(20):
        write_text(tmp_path / "file", "x")
    assert len(set(names)) == 20
    assert all(flag & os.O_EXCL and flag & os.O_CREAT and flag & os.O_NOFOLLOW for flag in flags)


def test_a_file_has_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_files_of_a_killed_process_are_removed_by_the_next_write(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from torchlasso._core.files import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"half of")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert programs.run(tmp_path / "file", code=program).code == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert files.PART.fullmatch(left.name)
    write_text(tmp_path / "other", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_file_that_is_being_written_stays(tmp_path: Path) -> None:
    with replacing(tmp_path / "slow") as slow:
        slow.write(b"slow")
        write_text(tmp_path / "fast", "fast")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fast", "slow"]
    assert (tmp_path / "slow").read_text() == "slow"


def test_other_files_stay(tmp_path: Path) -> None:
    """Other names, folders, pipes, and a file that somebody has locked."""
    kept = {".file.part", "file.part", ".torchlasso-short.part", f"{LEFT}.txt", ".torchlasso-0123456789ABCDEF.part"}
    for name in kept:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".torchlasso-000000000000000a.part").mkdir()
    os.mkfifo(tmp_path / ".torchlasso-000000000000000b.part")
    locked = tmp_path / ".torchlasso-000000000000000c.part"
    with locked.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = {path.name for path in tmp_path.iterdir()}
        write_text(tmp_path / "file", "x")
        assert {path.name for path in tmp_path.iterdir()} == before | {"file"}
    write_text(tmp_path / "file", "x")
    assert not locked.exists()


def test_a_file_that_was_removed_before_it_was_locked_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, calls = files.lock, []

    def slow(descriptor: int, *, wait: bool = False) -> bool | None:
        calls.append(descriptor)
        if len(calls) == 1:  # another process is faster
            next(tmp_path.iterdir()).unlink()
        return lock(descriptor, wait=wait)

    monkeypatch.setattr(files, "lock", slow)
    write_text(tmp_path / "file", "x")
    assert len(calls) == 2
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_text(tmp_path / "nowhere" / "file", "x")
    assert caught.value.filename == str(tmp_path / "nowhere" / "file")


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "figure"])
def test_the_place_of_a_folder_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Return neither a folder of the requested name nor, for an empty text, the current folder."""
    monkeypatch.chdir(tmp_path)

    class Named:
        """A folder that returns the same path for any name."""

        def __init__(self, path: str | Path) -> None:
            self.path = path

        def __truediv__(self, other: str) -> Any:
            return self.path

    (tmp_path / "folder.pt2").mkdir()
    with pytest.raises(IsADirectoryError, match=r"a file cannot take the place of this folder: .*folder\.pt2"):
        WRITERS[name](Named(tmp_path / "folder.pt2"))  # type: ignore[arg-type]
    if name not in ("onnx", "pt2"):
        with pytest.raises(ValueError, match=r"^path must name a file; got an empty text$"):
            WRITERS[name](Named(""))  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["folder.pt2"]


def test_a_name_of_full_length_can_be_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("a" * 255), "x")
    assert [path.name for path in tmp_path.iterdir()] == ["a" * 255]


def test_text_that_utf_8_cannot_hold_is_escaped(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "half \ud83d, byte \udcff")
    assert (tmp_path / "file").read_bytes() == rb"half \ud83d, byte \udcff"
    content = {"names": ["half \ud83d", "\x1b[2J", "\x7f", "λ", "\U0001f600", "\U000e0001"]}
    write_json(tmp_path / "json", content)
    assert files.read_json(tmp_path / "json") == content
    assert (tmp_path / "json").read_text(encoding="utf-8").replace("\n", "").isprintable()
