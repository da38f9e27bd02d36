"""Files in which zeros take almost no space: safetensors with compressed sparse tensors (``docs/format.md``)."""

from torchlasso.storage.loading import load, read
from torchlasso.storage.saving import save

__all__ = ["load", "read", "save"]
