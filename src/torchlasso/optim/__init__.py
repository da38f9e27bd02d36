"""Proximal optimizers, and the metrics of the torch optimizers that they build on."""

from torchlasso.optim.base import Proximal
from torchlasso.optim.metric import Metric, metric_of
from torchlasso.optim.optimizers import ProxAdam, ProxAdamW, ProxSGD, proximal

__all__ = ["Metric", "ProxAdam", "ProxAdamW", "ProxSGD", "Proximal", "metric_of", "proximal"]
