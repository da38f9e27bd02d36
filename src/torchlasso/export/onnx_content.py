"""The content of an ONNX file: the operators of ONNX itself and the data in the file, and nothing else."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from itertools import count
from typing import Any

from torchlasso._core.extras import require

EXTRA = "export"
SUM = "torchlasso.crc32"  # a checksum over everything else, since ONNX itself has none
DOMAINS = ("", "ai.onnx")  # the domains of operators that a file may call; operators of other domains can read files


def seal_onnx(model: Any) -> bytes:
    """Return the content of a file, with a checksum."""
    total = zlib.crc32(model.SerializeToString(deterministic=True))
    entry = model.metadata_props.add()
    entry.key, entry.value = SUM, str(total)
    return bytes(model.SerializeToString(deterministic=True))


def unseal_onnx(content: bytes) -> tuple[Any, bytes]:
    """Parse a model and check that it is complete and self-contained; return it, and its content for a runtime.

    Raises:
        ValueError: it is damaged, reads other files, or calls operators that are not ONNX's own.
    """
    model = _parse(content)
    sums = [entry for entry in model.metadata_props if entry.key == SUM]
    for entry in sums:
        model.metadata_props.remove(entry)
    rest = bytes(model.SerializeToString(deterministic=True))
    if any(entry.value != str(zlib.crc32(rest)) for entry in sums):  # a file from other software has no checksum
        raise ValueError("its checksum is wrong")
    return model, rest


def _parse(content: bytes) -> Any:
    onnx = require("onnx", EXTRA, "reading an ONNX file")
    decoding = require("google.protobuf.message", EXTRA, "reading an ONNX file").DecodeError
    try:
        model = onnx.ModelProto.FromString(content)
    except decoding as error:
        raise ValueError("it cannot be parsed") from error
    model.DiscardUnknownFields()
    if not model.graph.node and not model.graph.output:
        raise ValueError("it has no graph")
    own = {(function.domain, function.name) for function in model.functions}
    for part in parts(model):
        if isinstance(part, onnx.TensorProto) and (part.external_data or part.data_location):
            raise ValueError(f"its tensor {part.name[:40]!r} is in another file")
        if isinstance(part, onnx.NodeProto) and part.domain not in DOMAINS and (part.domain, part.op_type) not in own:
            raise ValueError(
                f"it calls {part.op_type[:40]!r} of {part.domain[:40]!r}, which is not an operator of ONNX"
            )
    return model


def parts(message: Any) -> Iterator[Any]:
    """Yield a message and all messages within it."""
    waiting = [message]
    while waiting:
        yield (part := waiting.pop())
        for field, value in part.ListFields():
            if field.message_type is not None:
                waiting.extend(value if isinstance(value, (list, tuple)) or hasattr(value, "add") else [value])


def strip(model: Any) -> None:
    """Remove traces of the machine and the source code from a model."""
    for part in parts(model):
        if "metadata_props" in part.DESCRIPTOR.fields_by_name:
            part.ClearField("metadata_props")
        if "doc_string" in part.DESCRIPTOR.fields_by_name:
            part.ClearField("doc_string")


def make_outputs_unique_(graph: Any) -> None:
    """Rename the outputs whose names other values have too, such as a value inside a layer that was taken apart.

    Args:
        graph: of the exporter, where values are objects, which are told apart even if their names are the same.
    """
    outputs = list(graph.outputs)
    inner = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    taken = {value.name for value in inner if not any(value is output for output in outputs)}
    for output in outputs:
        if output.name in taken:
            free = (f"{output.name}_output_{i}" for i in count())
            output.name = next(name for name in free if name not in taken)
        taken.add(output.name)


def name_batch(model: Any) -> None:
    """Name the free dimensions of the inputs ``batch``, and ``length`` if there is a second one."""
    found = (size.dim_param for entry in model.graph.input for size in entry.type.tensor_type.shape.dim)
    for symbol, name in zip(dict.fromkeys(filter(None, found)), ("batch", "length"), strict=False):
        word = re.compile(rf"\b{re.escape(symbol)}\b")
        for part in parts(model):
            if "dim_param" in part.DESCRIPTOR.fields_by_name and part.dim_param:
                part.dim_param = word.sub(name, part.dim_param)
