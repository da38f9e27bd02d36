"""Checkpoints: nested states of numbers, strings and tensors in one safetensors file, written whole or not at all.

The tensors are stored as tensors and all else as JSON in the file's metadata: nothing is ever pickled or unpickled, and
numbers come back to the last bit.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from torchlasso._core.files import replacing

KEY = "torchlasso.state"
SUM = "torchlasso.crc32"  # over the JSON and the tensors: safetensors itself does not notice a flipped bit


def save(path: str | Path, state: Any) -> None:
    """Write ``state``, made of dictionaries, lists, tuples, tensors, numbers, strings and None.

    Examples:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "state.safetensors"
        >>> save(file, {"epoch": 3, "betas": (0.9, 0.999), "w": torch.ones(2), 7: None})
        >>> load(file)
        {'epoch': 3, 'betas': (0.9, 0.999), 'w': tensor([1., 1.]), 7: None}
    """
    tensors: dict[str, Tensor] = {}
    content = json.dumps(_pack(state, tensors))
    write_tensors(path, tensors, {KEY: content, SUM: _checksum(content, tensors)})


def load(path: str | Path) -> Any:
    """Read what :func:`save` wrote; tensors are on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or something else; the message names it.
    """
    tensors, metadata = read_tensors(path)
    if KEY not in metadata:
        raise ValueError(f"{path} is not a checkpoint of torchlasso: it has no entry {KEY!r}")
    if metadata.get(SUM) != _checksum(metadata[KEY], tensors):
        raise ValueError(f"{path} is damaged: its checksum does not hold")
    try:
        return _unpack(json.loads(metadata[KEY]), tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: its state does not fit its tensors ({error})") from error


def write_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all; tensors may share memory and be on any device."""
    own = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(serialize(own, metadata))


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no safetensors file or is damaged; the message names it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error})") from error


def _checksum(content: str, tensors: dict[str, Tensor]) -> str:
    total = zlib.crc32(content.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        if tensor.numel():
            total = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, total)
    return str(total)


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
