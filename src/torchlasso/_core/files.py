"""Files that are written atomically, and JSON files."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from torchlasso._core.locks import NOT_THROUGH_LINKS, lock

PART = re.compile(r"\.torchlasso-[0-9a-f]{16}\.part")  # the names of files while they are written
UNUSUAL = re.compile(r"[^\n\x20-\x7e]")
MOST = 1 << 25  # the most bytes of JSON to read: parsing can take twenty times as much memory


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` for writing; it replaces ``path`` at the end, or is removed after an error.

    A reader of ``path`` finds either the old or the new file, never a part, even after a crash or on a full disk. The
    temporary file is new and has an unpredictable name, so that no existing link is followed. Temporary files of killed
    processes are removed.

    Raises:
        IsADirectoryError: there is a folder of this name.
        ValueError: ``path`` is an empty text.
    """
    if not str(path):
        raise ValueError("path must name a file; got an empty text")
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a file cannot take the place of this folder", str(path))
    sweep(path.parent)
    try:
        temporary, file = _create(path.parent)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.filename is None or PART.fullmatch(Path(error.filename).name):  # name the requested file
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise


def _create(folder: Path) -> tuple[Path, BinaryIO]:
    """Create a new file and lock it while it is open; leftovers of killed processes are not locked."""
    while True:
        path = folder / f".torchlasso-{secrets.token_hex(8)}.part"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NOT_THROUGH_LINKS, 0o666)
        file = os.fdopen(descriptor, "wb")
        lock(descriptor, wait=True)
        if os.fstat(descriptor).st_nlink:  # otherwise another process removed it before it was locked
            return path, file
        file.close()


def sweep(folder: Path) -> None:
    """Remove temporary files in a folder that killed processes of this user left behind."""
    with suppress(OSError):  # a folder that cannot be read
        for name in filter(PART.fullmatch, os.listdir(folder)):  # noqa: PTH208  (names are all that is needed)
            with suppress(OSError):  # removed already, a link, or owned by another user
                _remove_unless_in_use(folder / name)


def _remove_unless_in_use(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | NOT_THROUGH_LINKS | getattr(os, "O_NONBLOCK", 0))
    try:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and lock(descriptor):
            path.unlink()
    finally:
        os.close(descriptor)


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Write a file atomically."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically; characters that UTF-8 cannot encode, such as half of a pair, are escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, as_json(content))


def as_json(content: Any) -> str:
    r"""Return the text of a JSON file, with terminal control characters escaped.

    >>> print(as_json(["λ", "\x9b2J", "\udcff"]), end="")
    [
      "λ",
      "\u009b2J",
      "\udcff"
    ]
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return UNUSUAL.sub(lambda found: _escaped(found[0]), text)


def _escaped(c: str) -> str:
    return c if c.isprintable() else "\\u007f" if c == "\x7f" else json.dumps(c)[1:-1]


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a JSON file, or is larger than any file of this package; the message names it.
    """
    return parse_json(read_text(path), path)


def read_json_lines(path: str | Path) -> list[Any]:
    """Read a file with JSON on every line, with the errors of :func:`read_json`."""
    lines = read_text(path).split("\n")
    return [parse_json(line, path) for line in (lines if lines[-1] else lines[:-1])]


def parse_json(text: str, origin: object, *, finite: bool = True) -> Any:
    """Parse standard JSON, without NaN and infinity.

    Args:
        text: the text.
        origin: its file, for messages.
        finite: whether NaN and infinity, which other programs write, are refused.

    Raises:
        ValueError: the text is not such JSON; the message names ``origin``.

    >>> parse_json("[1e999]", "a.json")
    Traceback (most recent call last):
    ValueError: a.json is damaged: it is not JSON (1e999 is not a finite number)
    """
    try:
        return json.loads(text, parse_constant=_number, parse_float=_number) if finite else json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{origin} is damaged: its JSON is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{origin} is damaged: it is not JSON ({error})") from error


def _number(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise ValueError(f"{text:.40} is not a finite number")
    return number


def read_text(path: str | Path) -> str:
    """Read a text file of limited size, with the errors of :func:`read_json`."""
    if not Path(path).is_file():  # this also refuses pipes, which might never end
        raise FileNotFoundError(f"there is no file {path}")
    with Path(path).open("rb") as file:
        content = file.read(MOST + 1)
    if len(content) > MOST:
        raise ValueError(f"{path} is damaged: it has more than {MOST >> 20} MiB")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: it is not UTF-8 ({error})") from error
