"""The archive of a ``.pt2`` file: only the entries that :func:`to_pt2` writes are allowed in its directory."""

from __future__ import annotations

import json
import re
import sys
import zipfile
import zlib
from collections.abc import Mapping
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from torchlasso.export.exported import KEY
from torchlasso.export.graphs import DTYPES

BESIDE = f"{KEY}.json"  # the metadata, in the archive's folder for extra files
SUM = f"extra/{KEY}.crc32"  # a checksum over all other entries: intact entries of two archives could be mixed
PROGRAM = "models/model.json"
SAMPLES = "data/sample_inputs/model.pt"  # empty: others are pickled
CONFIGS = {
    "weights": "data/weights/model_weights_config.json",
    "constants": "data/constants/model_constants_config.json",
}
FIXED = {PROGRAM, SAMPLES, *CONFIGS.values(), f"extra/{BESIDE}", SUM, "archive_format", "archive_version", "byteorder",
         "version", ".data/version", ".data/serialization_id", ".format_version", ".storage_alignment"}  # fmt: skip
TENSORS = {"weights": re.compile(r"weight_\d{1,9}"), "constants": re.compile(r"tensor_\d{1,9}")}
MOST_JSON = 1 << 26  # bytes: some 100,000 operators


class Archive(NamedTuple):
    """The content of a file: the program as JSON, the tensors by name, and the metadata."""

    program: dict[str, Any]
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def seal_archive(file: IO[bytes]) -> None:
    """Add a checksum over all entries to an archive."""
    with zipfile.ZipFile(file, "a") as archive:
        entries, root = _entries(archive), archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/{SUM}", str(_sum(entries)))


def _sum(entries: Mapping[str, zipfile.ZipInfo]) -> int:
    """Return the checksum over the names and the checksums of all other entries."""
    held = sorted((name, info.CRC) for name, info in entries.items() if name != SUM)
    return zlib.crc32(repr(held).encode())


def read_archive(file: IO[bytes]) -> Archive:
    """Read a ``.pt2`` file without decompressing, unpickling or writing anything.

    Raises:
        ValueError: its content is not as :func:`to_pt2` writes it.
        zipfile.BadZipFile: it is not an archive, or is damaged.
    """
    with zipfile.ZipFile(file) as archive:
        entries = _entries(archive)
        if f"extra/{BESIDE}" not in entries:
            raise ValueError(f"it was not written by torchlasso export, which adds {BESIDE!r}")
        if SUM in entries and archive.read(entries[SUM]) != str(_sum(entries)).encode():
            raise ValueError("its checksum is wrong")
        if entries[SAMPLES].file_size:
            raise ValueError("its sample inputs are pickled")
        if archive.read(entries["byteorder"]) != sys.byteorder.encode():
            raise ValueError("its numbers have another byte order")
        program, metadata = (_json(archive, entries[name]) for name in (PROGRAM, f"extra/{BESIDE}"))
        tensors: dict[str, Tensor] = {}
        for kind, config in CONFIGS.items():
            storages: dict[str, bytearray] = {}  # by name: tensors may share one
            for name, payload in _json(archive, entries[config])["config"].items():
                storage = payload["path_name"]
                if payload["use_pickle"] or not TENSORS[kind].fullmatch(storage):
                    raise ValueError(f"its {name[:40]!r} is pickled")
                if storage not in storages:
                    storages[storage] = bytearray(archive.read(entries[f"data/{kind}/{storage}"]))
                tensors[name] = _tensor(storages[storage], payload["tensor_meta"])
        return Archive(program, tensors, metadata)


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the entries by name, after checking that each is allowed and none is compressed."""
    entries: dict[str, zipfile.ZipInfo] = {}
    root = "".join(archive.namelist()[:1]).partition("/")[0]  # all of them are in one folder
    for info in archive.infolist():
        name = info.filename.removeprefix(f"{root}/")
        folder, _, last = name.rpartition("/")
        tensor = TENSORS.get(folder.removeprefix("data/"))
        if name == info.filename or not (name in FIXED or (tensor and tensor.fullmatch(last))):
            raise ValueError(f"it holds {info.filename[:80]!r}")
        if name in entries:
            raise ValueError(f"it holds {info.filename!r} twice")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ValueError(f"its {info.filename!r} is compressed")
        entries[name] = info
    return entries


def _json(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> dict[str, Any]:
    if info.file_size > MOST_JSON:
        raise ValueError(f"its {info.filename!r} has {info.file_size:,} bytes; at most {MOST_JSON:,} are read")
    content = json.loads(archive.read(info))
    if not isinstance(content, dict):
        raise ValueError(f"its {info.filename!r} is not an object")
    return content


def _tensor(data: bytearray, meta: Mapping[str, Any]) -> Tensor:
    dtype, sizes, strides = DTYPES[meta["dtype"]], *([s["as_int"] for s in meta[key]] for key in ("sizes", "strides"))
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return flat.as_strided(sizes, strides, meta["storage_offset"]["as_int"])  # checks that it lies within the data
