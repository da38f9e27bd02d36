"""Faster inference with models that have zeros."""

from torchlasso.inference.accelerating import accelerate
from torchlasso.inference.record import AccelerationReport, LayerAcceleration

__all__ = ["AccelerationReport", "LayerAcceleration", "accelerate"]
