"""Models run by another runtime, onnxruntime or OpenVINO, as modules with the call and the outputs of the original."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from torchlasso._core.extras import require
from torchlasso._core.running import ExampleInputs, as_arguments, quietly
from torchlasso._core.text import first_line
from torchlasso.export.exported import batch_of, rows_between, rows_of
from torchlasso.export.onnx_content import EXTRA, unseal_onnx
from torchlasso.export.onnx_sessions import arrays_by_name, session_of

MOST_ROWS, BATCH = 256, 32  # for the ranges of numbers, which need the values of all layers at once

Arrays = dict[str, Any]


class RuntimeModel(nn.Module):
    """A model that another runtime computes, on the CPU and without gradients.

    Args:
        names: the names of its inputs.
        run: a function from arrays by name to the list of output arrays.
        outputs: the outputs of the original on an example, which give them their structure.

    Raises:
        ValueError: the outputs contain other things than tensors and None.
    """

    def __init__(self, names: list[str], run: Callable[[Arrays], list[Any]], outputs: Any) -> None:
        super().__init__()
        leaves, self._structure = _flattened(outputs)
        self._names, self._run = names, run
        self._places = [isinstance(leaf, Tensor) for leaf in leaves]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs.

        Raises:
            ValueError: the runtime cannot compute the model for these inputs, such as texts of another length.
        """
        arrays = arrays_by_name(self._names, args, kwargs)
        try:
            found = iter(self._run(arrays))
        except Exception as error:  # of any kind: runtimes have their own classes
            raise ValueError(f"the model was exported for inputs of other sizes: {first_line(error)}") from error
        leaves = [torch.from_numpy(next(found)) if there else None for there in self._places]
        return tree_unflatten(leaves, self._structure)


def _flattened(outputs: Any) -> tuple[list[Any], TreeSpec]:
    leaves, structure = tree_flatten(outputs)
    strange = [type(leaf).__name__ for leaf in leaves if not (isinstance(leaf, Tensor) or leaf is None)]
    if strange:
        raise ValueError(f"its outputs contain {strange[0]} objects, and not only tensors")
    return leaves, structure


def run_by_onnxruntime(onnx: bytes, outputs: Any) -> RuntimeModel:
    """Return a module that onnxruntime computes.

    Args:
        onnx: the content of an ONNX file.
        outputs: of the original model on an example.

    Raises:
        ValueError: onnxruntime cannot run it.
    """
    session = session_of(onnx)
    names = [each.name for each in session.get_inputs()]
    return RuntimeModel(names, lambda arrays: session.run(None, arrays), outputs)


def run_by_openvino(onnx: bytes, outputs: Any) -> RuntimeModel:
    """Return a module that OpenVINO computes, in float32; the arguments are those of :func:`run_by_onnxruntime`.

    Raises:
        ValueError: OpenVINO is missing.
        RuntimeError: OpenVINO cannot run it.
    """
    core = require("openvino", "openvino", "the backend openvino").Core()
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    settings["INFERENCE_PRECISION_HINT"] = "f32"  # by itself it takes half precision where the processor has it
    compiled = core.compile_model(core.read_model(io.BytesIO(onnx)), "CPU", settings)
    names = [each.get_any_name() for each in compiled.inputs]

    def run(arrays: Arrays) -> list[Any]:
        found = compiled(arrays)
        return [found[output].copy() for output in compiled.outputs]  # its own memory is used again

    return RuntimeModel(names, run, outputs)


def in_8_bits(onnx: bytes, calibration: ExampleInputs) -> bytes:
    """Convert a model to 8-bit whole numbers; return the content of an ONNX file.

    A model without convolutions has its matrices in int8, and finds the range of their inputs as it runs. For the
    convolutions of others, and all that is between them, the ranges are found before, on rows of the calibration.

    Args:
        onnx: the content of an ONNX file.
        calibration: inputs like those that will come, of which the ranges are taken; the first 256 rows count.

    Raises:
        ValueError: onnxruntime is missing. Its quantization raises errors of many kinds.
    """
    quantization = require("onnxruntime.quantization", EXTRA, "the backend int8")
    graph = unseal_onnx(onnx)[0].graph
    # without instructions for sums of 8-bit products, these are added up in 16 bits, and 8 bits would overflow
    settings = {"per_channel": True, "reduce_range": not torch.cpu._is_vnni_supported()}
    with quietly(), tempfile.TemporaryDirectory() as folder:
        exact, prepared, made = (Path(folder) / f"{name}.onnx" for name in ("exact", "prepared", "int8"))
        exact.write_bytes(onnx)
        quantization.quant_pre_process(exact, prepared, skip_symbolic_shape=True)  # it folds batch norms, too
        if any(node.op_type.startswith("Conv") for node in graph.node):
            rows = _Batches(calibration, [each.name for each in graph.input])
            quantization.quantize_static(prepared, made, rows, **settings)
        else:
            quantization.quantize_dynamic(prepared, made, **settings)
        return made.read_bytes()


class _Batches:
    """Rows for onnxruntime's calibration, in small batches.

    Args:
        inputs: of the model.
        names: the names of the model's inputs.
    """

    def __init__(self, inputs: ExampleInputs, names: list[str]) -> None:
        rows = min(rows_of(inputs), MOST_ROWS)
        parts = (batch_of(rows_between(inputs, i, i + BATCH), BATCH) for i in range(0, rows, BATCH))
        self._arrays = (arrays_by_name(names, *as_arguments(part)) for part in parts)

    def get_next(self) -> Arrays | None:
        """Return the next batch, or None after the last one."""
        return next(self._arrays, None)
