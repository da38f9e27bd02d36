"""From zeros to a model that runs faster."""

from torchlasso.inference.accelerating import accelerate
from torchlasso.inference.record import AccelerationReport, LayerAcceleration

__all__ = ["AccelerationReport", "LayerAcceleration", "accelerate"]
