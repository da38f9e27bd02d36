"""From zeros to a smaller model with the same outputs."""

from torchlasso.compact.compacting import compact
from torchlasso.compact.record import CompactionReport

__all__ = ["CompactionReport", "compact"]
