"""From zeros to a model that runs faster."""

from torchlasso.sparse.accelerating import accelerate
from torchlasso.sparse.record import AccelerationReport, LayerAcceleration

__all__ = ["AccelerationReport", "LayerAcceleration", "accelerate"]
