"""``.pt2`` files: the programs of ``torch.export``, which need torch to run, but not the model's classes."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from torchlasso._core.files import write_bytes
from torchlasso._core.running import ExampleInputs
from torchlasso._core.text import first_line
from torchlasso.export.exported import Exported, check, program_of
from torchlasso.export.program import Program
from torchlasso.export.pt2_archive import BESIDE, read_archive, seal_archive

# The exceptions that reading a damaged file can raise.
DAMAGE = (AttributeError, ArithmeticError, EOFError, LookupError, MemoryError, NotImplementedError, RecursionError,
          RuntimeError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)  # fmt: skip


def to_pt2(
    model: nn.Module,
    example_inputs: ExampleInputs,
    path: str | Path,
    *,
    metadata: Mapping[str, Any] | None = None,
    longest: int | None = None,
) -> None:
    """Write a model as a program of ``torch.export`` that takes batches of any size.

    The file holds operators, weights and ``metadata``. It holds no sample inputs, which would be pickled, and no traces
    of the machine or the model's source code.

    Args:
        model: any model that ``torch.export`` can export to operators of torch; it is not changed. It is exported in
            evaluation mode.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments, batches of one size.
        path: the file to write, completely or not at all; its name must end in ``.pt2``.
        metadata: entries to store as JSON in the file ``torchlasso.json`` of the archive.
        longest: the largest size of dimension 1 of the inputs, such as the length of texts, which is then free too.

    Raises:
        ValueError: the model cannot be exported, it calls operators other than torch's, or the name of the file has
            another ending.
        RuntimeError: the outputs of the file differ from the model's by more than rounding, on the example inputs or on
            batches of 1 and 3; nothing is written.

    Examples:
        >>> import tempfile
        >>> net, x = nn.Linear(4, 2), torch.randn(2, 4)
        >>> file = Path(tempfile.mkdtemp()) / "net.pt2"
        >>> to_pt2(net, x, file)
        >>> torch.equal(read_pt2(file)(x), net(x))
        True
    """
    if Path(path).suffix != ".pt2":
        raise ValueError(f"{path}: the name of the file must end in .pt2")
    program, content = program_of(model, example_inputs, longest), io.BytesIO()
    _strip(program)
    try:
        torch.export.save(program, content, extra_files={BESIDE: json.dumps(dict(metadata or {}))})
        seal_archive(content)
        exported = _read(content)
    except (RuntimeError, ValueError) as error:  # such as an object or an operator that such a file cannot hold
        raise ValueError(f"the model cannot be stored in a .pt2 file: {first_line(error)}") from error
    check(model, exported, example_inputs, longest)
    write_bytes(path, content.getbuffer())


def read_pt2(path: str | Path) -> Exported:
    """Read a model from a ``.pt2`` file that :func:`to_pt2` wrote.

    Reading and running the file runs no code from it. Its operators run one by one, and only operators in the list of
    :mod:`torchlasso.export.operators` are allowed. Nothing is unpickled, imported or evaluated; a file that needs it is
    refused.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or not such a file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with Path(path).open("rb") as file:
            return _read(file)
    except DAMAGE as error:
        raise ValueError(f"{path} is damaged or not a .pt2 file of torchlasso: {first_line(error)}") from error


def _read(file: IO[bytes]) -> Exported:
    archive = read_archive(file)
    return Exported(Program(archive.program, archive.tensors), archive.metadata)


def _strip(program: torch.export.ExportedProgram) -> None:
    """Remove the parts of a program that are not needed to run it: source traces, sample inputs, guards as code."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta = {key: value for key, value in node.meta.items() if key == "val"}
    program._example_inputs = None
    program._guards_code = []
