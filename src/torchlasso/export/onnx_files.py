"""ONNX files, which torch's exporter writes and onnxruntime runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import ConstantArgument, TensorArgument
from torch.utils._pytree import tree_leaves

from torchlasso._core.extras import require
from torchlasso._core.files import write_bytes
from torchlasso._core.running import ExampleInputs, as_arguments, quietly
from torchlasso._core.text import first_line
from torchlasso.export.exported import KEY, Exported, check, program_of
from torchlasso.export.onnx_content import EXTRA, make_outputs_unique_, name_batch, seal_onnx, strip, unseal_onnx
from torchlasso.export.onnx_sessions import arrays_by_name, session_of, tensors_by_name

MOST_BYTES = (1 << 31) - 1  # the largest file of the format


def to_onnx(
    model: nn.Module,
    example_inputs: ExampleInputs,
    path: str | Path,
    *,
    metadata: Mapping[str, Any] | None = None,
    longest: int | None = None,
) -> None:
    """Write a model as an ONNX file that takes batches of any size.

    Its inputs are called ``input``, or ``input_0``, ``input_1`` and so on, or by their keywords, with the key of an
    entry of a dictionary, a list or a tuple, as in ``input_1.mask``. Its outputs are a flat list of tensors. Arguments
    that are not tensors become part of the model.

    Args:
        model: any model that ``torch.export`` can export; it is not changed. It is exported in evaluation mode.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments, batches of one size.
        path: the file to write, completely or not at all.
        metadata: entries to store under ``torchlasso`` in the metadata of the file, as JSON.
        longest: the largest size of dimension 1 of the inputs, such as the length of texts, which is then free too.

    Raises:
        ValueError: the model cannot be exported, onnxruntime cannot run it on a CPU (for example in bfloat16, for which
            it has few operators), it does not fit into one file of 2 GB, or ``onnx``, ``onnxscript`` or ``onnxruntime``
            is missing.
        RuntimeError: the outputs of onnxruntime differ from the model's by more than rounding, on the example inputs or
            on batches of 1 and 3; nothing is written.

    Examples:
        >>> import tempfile
        >>> net, x = nn.Linear(4, 2), torch.randn(2, 4)
        >>> file = Path(tempfile.mkdtemp()) / "net.onnx"
        >>> to_onnx(net, x, file, metadata={"classes": ["cat", "dog"]})
        >>> loaded = read_onnx(file)
        >>> loaded.metadata["classes"], torch.allclose(loaded(x), net(x), atol=1e-6)
        (['cat', 'dog'], True)
    """
    write_bytes(path, onnx_bytes(model, example_inputs, metadata=metadata, longest=longest))


def onnx_bytes(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    metadata: Mapping[str, Any] | None = None,
    longest: int | None = None,
) -> bytes:
    """Return the content of the ONNX file that :func:`to_onnx` writes, after the same checks, with the same errors."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        require(name, EXTRA, "ONNX")
    content = _converted(program_of(model, example_inputs, longest), example_inputs, json.dumps(dict(metadata or {})))
    if len(content) > MOST_BYTES:
        raise ValueError("the model is larger than 2 GB, which one ONNX file cannot hold")
    try:
        check(model, _read(content), example_inputs, longest)
    except ValueError as error:
        narrow = any(tensor.dtype == torch.bfloat16 for tensor in _tensors_of(model, example_inputs))
        hint = "; it is in bfloat16: convert the model and its inputs with .float()" if narrow else ""
        raise ValueError(f"the model cannot be run by onnxruntime{hint}: {first_line(error)}") from error
    return content


def _tensors_of(model: nn.Module, inputs: ExampleInputs) -> Iterator[Tensor]:
    return chain(model.parameters(), model.buffers(), (x for x in tree_leaves(inputs) if isinstance(x, Tensor)))


def _converted(program: torch.export.ExportedProgram, inputs: ExampleInputs, metadata: str) -> bytes:
    """Convert a program to the content of an ONNX file."""
    names, outputs = list(tensors_by_name(*as_arguments(inputs))), list[str]()
    for i, each in enumerate(program.graph_signature.output_specs):
        if isinstance(each.arg, TensorArgument):
            name = each.arg.name  # names must be unique, but an input may be an output, or two outputs the same
            outputs.append(f"{name}_output_{i}" if name in (*names, *outputs) else name)
        elif not isinstance(each.arg, ConstantArgument) or each.arg.value is not None:  # None is left out
            raise ValueError("the model cannot be exported to ONNX: it has an output that is not a tensor")
    try:
        with quietly(), torch.no_grad():
            converted = torch.onnx.export(program, input_names=names, output_names=outputs, dynamo=True, verbose=False)
        assert converted is not None  # for mypy; with dynamo=True it is never None
        make_outputs_unique_(converted.model.graph)
        model = converted.model_proto
    except Exception as error:  # of any kind: the exporter has many exception classes
        raise ValueError(f"the model cannot be exported to ONNX: {_reason(error)}") from error
    strip(model)
    name_batch(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, metadata
    return seal_onnx(model)


def _reason(error: BaseException) -> str:
    """Return the exporter's message about the operator that failed, without its messages about itself."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error) if isinstance(error, Exception) else type(error).__name__


def read_onnx(path: str | Path) -> Exported:
    """Read a model from an ONNX file, to be run by onnxruntime on the CPU.

    Reading the file runs no code from it: it contains all of its weights, and calls only operators of ONNX itself. The
    outputs are a tensor or a tuple of tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or not such a file, it needs other files or operators, or ``onnx`` or ``onnxruntime``
            is missing.
    """
    require("onnxruntime", EXTRA, "running an ONNX file")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("it is larger than 2 GB")
        return _read(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged or not an ONNX file of torchlasso: {error}") from error


def _read(content: bytes) -> Exported:
    model, content = unseal_onnx(content)
    try:
        metadata = json.loads(next((entry.value for entry in model.metadata_props if entry.key == KEY), "{}"))
    except RecursionError as error:
        raise ValueError("its metadata are nested too deeply") from error
    if not isinstance(metadata, dict):
        raise ValueError("its metadata are not an object")
    session = session_of(content)
    names = [each.name for each in session.get_inputs()]

    def function(*args: Any, **kwargs: Any) -> Any:
        outputs = session.run(None, arrays_by_name(names, args, kwargs))
        tensors = tuple(torch.from_numpy(output) for output in outputs)
        return tensors[0] if len(tensors) == 1 else tensors

    return Exported(function, metadata)
