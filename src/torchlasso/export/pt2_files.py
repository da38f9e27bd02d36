"""``.pt2`` files: the programs of ``torch.export``, which need torch to run, but not the model's classes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from torchlasso._core.files import replacing
from torchlasso.control.live_channels import undisturbed
from torchlasso.export.exported import KEY, Exported, check, for_any_batch
from torchlasso.graph.tracing import Inputs, first_line

BESIDE = f"{KEY}.json"  # the file inside the archive


def to_pt2(
    model: nn.Module, example_inputs: Inputs, path: str | Path, *, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a model as a program of ``torch.export`` that takes batches of any size.

    Args:
        model: any that ``torch.export`` can export; it is not changed. It is exported as it is in evaluation.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments, batches of one size.
        path: the file to write, whole or not at all; torch wants its name to end in ``.pt2``.
        metadata: what to keep beside it, as JSON in the file ``torchlasso.json`` of the archive.

    Raises:
        ValueError: the model cannot be exported, or the name of the file has another ending.
        RuntimeError: what is read from the file differs from the model in its outputs by more than rounding, on the
            example inputs or on batches of 1 and 3; nothing is written.

    Examples:
        >>> import tempfile
        >>> net, x = nn.Linear(4, 2), torch.randn(2, 4)
        >>> file = Path(tempfile.mkdtemp()) / "net.pt2"
        >>> to_pt2(net, x, file)
        >>> torch.equal(read_pt2(file)(x), net(x))
        True
    """
    if Path(path).suffix != ".pt2":
        raise ValueError(f"{path}: the name of such a file ends in .pt2")
    args, kwargs, shapes = for_any_batch(example_inputs)
    try:
        with undisturbed(model), torch.no_grad():
            program = torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
    except Exception as error:  # of any kind: the model's own code runs
        raise ValueError(f"the model cannot be exported: {first_line(error)}") from error
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.export.save(program, file, extra_files={BESIDE: json.dumps(dict(metadata or {}))})
        file.flush()
        check(model, read_pt2(temporary), example_inputs)


def read_pt2(path: str | Path) -> Exported:
    """A model from a ``.pt2`` file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or it is damaged.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    beside = {BESIDE: ""}
    try:
        with warnings.catch_warnings(), Path(path).open("rb") as file:
            warnings.simplefilter("ignore")
            program = torch.export.load(file, extra_files=beside)
        run = program.module()
        # not the module itself, which would be a part of the model, and cannot be told to evaluate
        return Exported(lambda *args, **kwargs: run(*args, **kwargs), json.loads(beside[BESIDE] or "{}"))
    except Exception as error:  # torch has many kinds of errors for damaged archives
        raise ValueError(f"{path} is damaged or no .pt2 file: {first_line(error)}") from error
