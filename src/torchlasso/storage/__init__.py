"""Files in which zeros cost next to nothing: safetensors with sparse tensors compressed, as ``docs/format.md`` says."""

from torchlasso.storage.loading import load, read
from torchlasso.storage.saving import save

__all__ = ["load", "read", "save"]
