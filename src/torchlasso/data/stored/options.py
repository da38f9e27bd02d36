"""The options of rows that stay on a disk, and the choice between the disk and memory."""

from __future__ import annotations

from dataclasses import dataclass

from torchlasso._core.memory import available
from torchlasso._core.specs import unknown

AUTO, ALWAYS, NEVER = STREAMS = ("auto", "always", "never")
SHARE = 0.5  # of the free memory, which data may take


@dataclass(frozen=True)
class StreamOptions:
    """The reading of data a batch at a time.

    Attributes:
        stream: ``"always"``, ``"never"``, or ``"auto"``: where the data would take more than half of the free memory.
        workers: processes that read batches ahead; 0 to read in the process of the training.

    Raises:
        ValueError: a value is of no use.
    """

    stream: str = NEVER
    workers: int = 0

    def __post_init__(self) -> None:
        if self.stream not in STREAMS:
            raise unknown("stream", self.stream, STREAMS)
        if self.workers < 0:
            raise ValueError(f"workers must be a number of processes, at least 0; got {self.workers}")

    def asks_for(self, needed: int) -> bool:
        """Return whether data that take ``needed`` bytes of memory are to stay on the disk."""
        return self.stream == ALWAYS or (self.stream == AUTO and needed > SHARE * available())
