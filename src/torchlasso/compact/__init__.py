"""From zeros to a smaller model with the same outputs."""

from torchlasso.compact.compacting import compact, compacted
from torchlasso.compact.record import CompactionReport
from torchlasso.compact.shrinker import Shrinker, restore_
from torchlasso.compact.shrinking import shrink_

__all__ = ["CompactionReport", "Shrinker", "compact", "compacted", "restore_", "shrink_"]
