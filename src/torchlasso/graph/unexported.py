"""The reason why a model could not be exported, in terms of the model."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch
from torch import nn

from torchlasso._core.text import first_line


def reason_of(error: Exception) -> str:
    """Return the reason why a model could not be exported, in one line."""
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    if any(frame.f_locals.get("batch_sizes") is not None for frame in _frames_of(error, nn.modules.rnn.__file__)):
        return (
            "a recurrent layer gets a packed sequence, which torch.export cannot follow; let the forward pass take "
            "padded sequences as well, such as where no lengths are given, and give such an example"
        )
    if not isinstance(error, GuardOnDataDependentSymNode):
        return first_line(error)
    ours = tuple(str(Path(file).parent) for file in (torch.__file__, Path(__file__).parent))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return (
        f"its forward pass needs a number that depends on the values of its inputs{place}, for a branch or a size; "
        "write a branch with torch.where or torch.cond, and give a size as a number"
    )


def _frames_of(error: Exception, file: str) -> Iterator[FrameType]:
    """Yield the frames in a file that an error passed through."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == file:
            yield frame
