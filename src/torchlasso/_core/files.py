"""Files that are written whole or not at all, and JSON in them."""

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

PART = re.compile(r"\.torchlasso-[0-9a-f]{16}\.part")  # names of files that are being written
UNUSUAL = re.compile(r"[^\n\x20-\x7e]")
MOST = 1 << 25  # bytes of JSON that are read: parsed, the worst of it takes twenty times as much


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file beside ``path`` for writing; it takes the place of ``path`` at the end, and goes after an error.

    A reader of ``path``, also after a crash or on a full disk, finds the old file or the new one, never a part. The
    file is new, under a name that nobody can foresee, so that no link that lies in the folder is followed. Such files
    of processes that were killed are removed.

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
        if error.filename is None or PART.fullmatch(Path(error.filename).name):  # name the file that was wanted
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise


def _create(folder: Path) -> tuple[Path, BinaryIO]:
    """Make a new file, locked as long as it is open, which tells it from what a killed process left."""
    while True:
        path = folder / f".torchlasso-{secrets.token_hex(8)}.part"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NOT_THROUGH_LINKS, 0o666)
        file = os.fdopen(descriptor, "wb")
        lock(descriptor, wait=True)
        if os.fstat(descriptor).st_nlink:  # else another process removed it before it was locked
            return path, file
        file.close()


def sweep(folder: Path) -> None:
    """Remove the files in a folder that processes of this user left when they were killed."""
    with suppress(OSError):  # a folder that cannot be read
        for name in filter(PART.fullmatch, os.listdir(folder)):  # noqa: PTH208  (names are all that is needed)
            with suppress(OSError):  # gone, a link, or of another user
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
    """Write a file, whole or not at all."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all; what UTF-8 cannot hold, such as half a character, is escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, as_json(content))


def as_json(content: Any) -> str:
    r"""Return the text of a JSON file, in which what a terminal obeys is escaped.

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
        ValueError: it is not one, or larger than any that is written here; the message names it.
    """
    return parse_json(read_text(path), path)


def read_json_lines(path: str | Path) -> list[Any]:
    """Read a file with JSON on every line, with the errors of :func:`read_json`."""
    lines = read_text(path).split("\n")
    return [parse_json(line, path) for line in (lines if lines[-1] else lines[:-1])]


def parse_json(text: str, origin: object) -> Any:
    """Parse JSON as its standard has it, without NaN and infinity.

    Raises:
        ValueError: it is something else; the message names ``origin``.

    >>> parse_json("[1e999]", "a.json")
    Traceback (most recent call last):
    ValueError: a.json is damaged: it is not JSON (1e999 is not a finite number)
    """
    try:
        return json.loads(text, parse_constant=_number, parse_float=_number)
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
    """Read a text file of a size that this package writes, with the errors of :func:`read_json`."""
    if not Path(path).is_file():  # nor a pipe, which would never end
        raise FileNotFoundError(f"there is no file {path}")
    with Path(path).open("rb") as file:
        content = file.read(MOST + 1)
    if len(content) > MOST:
        raise ValueError(f"{path} is damaged: it has more than {MOST >> 20} MiB")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: it is not UTF-8 ({error})") from error
