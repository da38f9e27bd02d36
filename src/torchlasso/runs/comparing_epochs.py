"""The checks of ``--keep-best`` and ``--patience``, which compare epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torchlasso.runs.quality import measure_named

if TYPE_CHECKING:
    from torchlasso.runs.options import Options


def check_comparing_epochs(options: Options, targets: Sequence[str]) -> None:
    """Raise ``ValueError`` if ``--keep-best`` and ``--patience`` do not fit the other options.

    Args:
        options: of the run.
        targets: the options that name a target.
    """
    if options.keep_best is None:
        if options.patience is not None:
            raise ValueError("--patience needs --keep-best, the figure by which epochs are compared")
        return
    _ = measure_named(options.keep_best)  # raises an error if there is none
    if options.patience is not None and options.patience < 1:
        raise ValueError(f"--patience must be a number of epochs, at least 1; got {options.patience}")
    if options.validation == 0:
        raise ValueError("--keep-best needs validation rows to compare epochs: give --validation above 0")
    if targets and not options.hold:
        raise ValueError(
            f"--keep-best with {targets[0]} needs epochs that meet the target before the end: give --hold above 0"
        )
    if options.shrink:
        raise ValueError("--keep-best and --shrink exclude each other: a smaller model cannot go back to an epoch")
