"""From zeros to a smaller model with the same outputs."""

from torchlasso.compaction.api import compact, compacted
from torchlasso.compaction.report import CompactionReport
from torchlasso.compaction.while_training import Shrinker, restore_, shrink_

__all__ = ["CompactionReport", "Shrinker", "compact", "compacted", "restore_", "shrink_"]
