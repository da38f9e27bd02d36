"""Checkpoints: nested states of numbers, strings and tensors in one safetensors file, written atomically.

Tensors are stored as tensors, and everything else as JSON in the file's metadata. Nothing is ever pickled or unpickled,
and numbers are restored to the last bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from torchlasso._core.memory import need_memory
from torchlasso.compaction.resizing import Resizing
from torchlasso.storage.container import METADATA, Entry, Stored, write
from torchlasso.storage.records import NAMES, as_bytes

KEY = "torchlasso.state"


def save_state(path: str | Path, state: Any) -> None:
    """Write ``state``, made of dictionaries, lists, tuples, tensors, numbers, strings and None.

    Examples:
        >>> import tempfile, torch
        >>> file = Path(tempfile.mkdtemp()) / "state.safetensors"
        >>> save_state(file, {"epoch": 3, "betas": (0.9, 0.999), "w": torch.ones(2), 7: None})
        >>> load_state(file)
        {'epoch': 3, 'betas': (0.9, 0.999), 'w': tensor([1., 1.]), 7: None}
    """
    tensors: dict[str, Tensor] = {}
    content = json.dumps(_pack(state, tensors))
    write_tensors(path, tensors, {KEY: content})


def load_state(path: str | Path) -> Any:
    """Read a file of :func:`save_state`; tensors are on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or not a checkpoint; the message names it.
    """
    tensors, metadata = read_tensors(path)
    if KEY not in metadata:
        raise ValueError(f"{path} is not a checkpoint of torchlasso: it lacks the entry {KEY!r}")
    try:
        return _unpack(json.loads(metadata[KEY]), tensors)
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: its state does not fit its tensors ({error})") from error


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically, with a checksum over the whole file.

    Tensors may share memory and be on any device. Equal tensors give equal bytes.
    """
    plain = {name: w.detach().cpu().resolve_conj().resolve_neg().contiguous() for name, w in tensors.items()}
    for name, w in plain.items():
        if w.dtype not in NAMES or name == METADATA:
            raise TypeError(f"a safetensors file cannot hold {w.dtype} under the name {name!r}")
    entries = {name: Entry(NAMES[w.dtype], tuple(w.shape), as_bytes(w).data) for name, w in plain.items()}
    write(path, entries, {}, {}, Resizing(), metadata)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file.

    Raises:
        FileNotFoundError: there is no such file.
        MemoryError: its tensors need more memory than is free.
        ValueError: it is not a safetensors file, or it has a checksum that does not match; the message names it.
    """
    stored = Stored.open(path)
    need_memory(sum(outline.nbytes for outline in stored.outlines.values()), str(path))
    # cloned: the memory is mapped from the file, and would change with it
    tensors = {name: stored.tensor(name).clone() for name in stored.outlines}
    return {name: tensors[entry] for name, entry in stored.names.items()}, dict(stored.file.metadata() or {})


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    match value:
        case Tensor():
            name = str(len(tensors))
            tensors[name] = value.detach().cpu().contiguous()
            return {"tensor": name}
        case dict():
            return {"dict": [[_pack(k, tensors), _pack(v, tensors)] for k, v in value.items()]}
        case tuple():
            return {"tuple": [_pack(v, tensors) for v in value]}
        case list():
            return [_pack(v, tensors) for v in value]
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}: {value!r}")


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    match value:
        case {"tensor": name}:
            return tensors[name]
        case {"dict": items}:
            return {_unpack(k, tensors): _unpack(v, tensors) for k, v in items}
        case {"tuple": items}:
            return tuple(_unpack(v, tensors) for v in items)
        case list():
            return [_unpack(v, tensors) for v in value]
    return value
