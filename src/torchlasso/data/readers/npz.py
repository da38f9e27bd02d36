"""NPZ files of numpy with x and y, and perhaps x_test and y_test. Nothing is ever unpickled."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from torchlasso._core.memory import need_memory
from torchlasso._core.text import first_line
from torchlasso.data.arrays import array_part
from torchlasso.data.frame import Array
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.messages import listed
from torchlasso.data.records import Part
from torchlasso.data.registry import Portion, Reader, Source, register

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_MOST_EXPANSION = 1100  # deflate makes at most 1032 bytes of one


@register
class Npz(Reader):
    """Arrays x and y, or x_train and y_train; x_test and y_test, x_val and y_val are optional."""

    form = "FILE.npz"

    def accepts(self, spec: str) -> bool:
        return spec.lower().endswith(".npz") and Path(spec).is_file()

    def open(self, spec: str, columns: ColumnSelection) -> Source:
        columns.refuse(spec)
        path = Path(spec)
        names = _names(path)
        train = next((key for key in ("x", "x_train") if key in names), None)
        test = "x_test" if "x_test" in names else None
        validation = next((key for key in ("x_val", "x_valid", "x_validation") if key in names), None)
        if train is None and (columns.required or test is None):
            raise ValueError(f"{path}: no array 'x' or 'x_train'; there are {listed(names)}")
        wanted = (train, test, validation) if columns.required else (test or train,)
        return Source(path.name, *(_portion(path, key, names, columns) for key in wanted))


def _portion(path: Path, key: str | None, names: list[str], columns: ColumnSelection) -> Portion | None:
    if key is None:
        return None
    label = "y" + key[1:]
    origin = f"{path}, {key}"
    if columns.required and label not in names:
        raise ValueError(f"{path}: no array {label!r} for {key!r}; there are {listed(names)}")

    def read() -> Part:
        y = _array(path, label) if label in names else None
        return array_part(_array(path, key), y, origin, columns.task)

    return Portion(origin, read)


def _names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except Exception as error:  # zipfile raises all kinds of errors on a damaged directory
        raise ValueError(f"{path}: not an NPZ file, or cut short ({first_line(error)})") from error


def _array(path: Path, name: str) -> Array:
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(f"{name}.npy")
            with archive.open(info) as stream:
                version = np.lib.format.read_magic(stream)
                shape, _, dtype = _HEADERS[version](stream)
                held = info.file_size - stream.tell()
            if dtype.hasobject:
                raise ValueError(f"{name!r} holds pickled objects, which are never loaded; save plain arrays")
            compressed = min(info.compress_size, path.stat().st_size)
            bounded = info.file_size <= _MOST_EXPANSION * (compressed + 1)
            if math.prod(shape) * dtype.itemsize != held or not bounded:
                raise ValueError(f"{name!r} has the shape {shape} in its header, which does not fit its bytes")
            need_memory(held + 4 * math.prod(shape), f"{path}, {name!r},")  # the bytes, and as float32
            with archive.open(info) as stream:
                return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
    except MemoryError:
        raise
    except KeyError as error:
        raise ValueError(f"{path}: {name!r} has an unknown version of the format") from error
    except Exception as error:  # numpy and zipfile raise all kinds of errors on damaged files
        raise ValueError(f"{path}: cannot be read: {first_line(error)}") from error
