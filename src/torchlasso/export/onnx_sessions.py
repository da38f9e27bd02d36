"""Sessions of onnxruntime: an ONNX model in memory that runs on the CPU, and its inputs by their names in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path

from torchlasso._core.extras import require
from torchlasso._core.text import first_line
from torchlasso.export.onnx_content import EXTRA


def session_of(content: bytes) -> Any:
    """Make a session of onnxruntime for a model, with as many threads as torch has.

    Raises:
        ValueError: onnxruntime cannot run the model, or is missing.
    """
    runtime = require("onnxruntime", EXTRA, "running an ONNX file")
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4  # errors are raised anyway
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.add_session_config_entry("session.load_model_format", "ONNX")  # not guessed from the content
    try:
        return runtime.InferenceSession(
            content,
            settings,
            providers=["CPUExecutionProvider"],
            enable_fallback=False,  # a fallback would print, and try the same again
        )
    except Exception as error:  # of any kind: onnxruntime has a class for each kind of damage
        raise ValueError(first_line(error)) from error


def tensors_by_name(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors among arguments, by their names in the file."""
    given = {"input" if len(args) == 1 else f"input_{i}": value for i, value in enumerate(args)} | dict(kwargs)
    return {
        ".".join([name, *(keystr((key,)).strip("[].'\"") for key in keys)]): leaf
        for name, value in given.items()
        for keys, leaf in tree_flatten_with_path(value)[0]
        if isinstance(leaf, Tensor)
    }


def arrays_by_name(names: Sequence[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors among arguments as arrays, by the names of a model's inputs.

    Raises:
        ValueError: they are other inputs than the model's.
    """
    given = tensors_by_name(args, kwargs)
    if not kwargs and len(given) == len(names):
        given = dict(zip(names, given.values(), strict=True))  # files from other software have other names
    if set(given) != set(names):
        raise ValueError(f"its inputs are {', '.join(names)}; got {', '.join(given)}")
    return {name: value.detach().cpu().numpy() for name, value in given.items()}
