"""ONNX files: written by torch's exporter, run by onnxruntime."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from torchlasso._core.extras import require
from torchlasso._core.files import replacing
from torchlasso.control.live_channels import undisturbed
from torchlasso.export.exported import KEY, Exported, check, for_any_batch
from torchlasso.graph.tracing import Inputs, first_line

EXTRA = "export"


def to_onnx(
    model: nn.Module, example_inputs: Inputs, path: str | Path, *, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a model as an ONNX file that takes batches of any size.

    Args:
        model: any that ``torch.export`` can export; it is not changed. It is exported as it is in evaluation.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments, batches of one size.
        path: the file to write, whole or not at all.
        metadata: what to keep beside it, under ``torchlasso`` in the file's metadata, as JSON.

    Raises:
        ValueError: the model cannot be exported, or ``onnx``, ``onnxscript`` or ``onnxruntime`` is missing.
        RuntimeError: what onnxruntime makes of the file differs from the model's outputs by more than rounding, on the
            example inputs or on batches of 1 and 3; nothing is written.

    Examples:
        >>> import tempfile
        >>> net, x = nn.Linear(4, 2), torch.randn(2, 4)
        >>> file = Path(tempfile.mkdtemp()) / "net.onnx"
        >>> to_onnx(net, x, file, metadata={"classes": ["cat", "dog"]})
        >>> loaded = read_onnx(file)
        >>> loaded.metadata["classes"], torch.allclose(loaded(x), net(x), atol=1e-6)
        (['cat', 'dog'], True)
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        require(name, EXTRA, "ONNX")
    args, kwargs, shapes = for_any_batch(example_inputs)
    names = list(kwargs) or ["input" if len(args) == 1 else f"input_{i}" for i in range(len(args))]
    try:
        with _quietly(), undisturbed(model), torch.no_grad():
            program = torch.onnx.export(
                model, args, kwargs=kwargs, dynamo=True, dynamic_shapes=shapes, input_names=names, verbose=False
            )
    except Exception as error:  # of any kind: the model's own code runs, and the exporter has many errors
        raise ValueError(f"the model cannot be exported to ONNX: {first_line(error)}") from error
    assert program is not None  # as dynamo=True has it; None is for mypy
    program.model.metadata_props[KEY] = json.dumps(dict(metadata or {}))
    with replacing(path) as temporary:
        program.save(temporary)
        check(model, read_onnx(temporary), example_inputs)


def read_onnx(path: str | Path) -> Exported:
    """A model from an ONNX file, run by onnxruntime on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no ONNX file, or onnxruntime is missing.
    """
    runtime = require("onnxruntime", EXTRA, "running an ONNX file")
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4  # what is wrong with a file is raised, too
    settings.intra_op_num_threads = torch.get_num_threads()
    try:
        session = runtime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        metadata = json.loads(session.get_modelmeta().custom_metadata_map.get(KEY, "{}"))
    except Exception as error:  # onnxruntime has an exception of its own for each kind of damage
        raise ValueError(f"{path} is damaged or no ONNX file: {first_line(error)}") from error
    names = [each.name for each in session.get_inputs()]

    def function(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(names, tree_leaves((args, kwargs)), strict=False))
        outputs = session.run(None, {name: _as_array(value) for name, value in given.items()})
        tensors = tuple(torch.from_numpy(output) for output in outputs)
        return tensors[0] if len(tensors) == 1 else tensors

    return Exported(function, metadata)


def _as_array(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporter says of packages that it does not need."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
