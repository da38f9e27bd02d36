"""Proximal optimizers, and the metrics of the torch optimizers that they build on."""

from torchlasso.optim.base import Proximal
from torchlasso.optim.metric import Metric, NoMetric, metric_of
from torchlasso.optim.optimizers import ProxAdam, ProxAdamW, ProxSGD, proximal

__all__ = ["Metric", "NoMetric", "ProxAdam", "ProxAdamW", "ProxSGD", "Proximal", "metric_of", "proximal"]
