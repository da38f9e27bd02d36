"""The modes of an optimizer whose trained model has an average of the weights that it trains with."""

from __future__ import annotations

from typing import Any

import torch

from torchlasso.optim.base import Proximal
from torchlasso.optim.form import Updated
from torchlasso.optim.forms import NORMAL_MAP_FORM


class WithModes(Proximal):
    """A proximal optimizer with the methods ``train`` and ``eval``, which exchange the weights of the model."""

    def train(self) -> None:
        """Give the model the weights that gradients are taken at."""
        self._change_mode("train")

    def eval(self) -> None:
        """Give the model the averaged weights: to evaluate it, and to save it."""
        self._change_mode("eval")

    @torch.no_grad()
    def _change_mode(self, name: str) -> None:
        """Change the mode of the latent weights, and give the model their prox."""
        base: Any = self.base
        rows = [(group, self.penalties[i]) for i, group in enumerate(self.param_groups)]
        groups = [
            Updated(group, penalty, lambda i: None, {}, self.state, self.weights)
            for group, penalty in rows
            if penalty is not None and group["lam"]
        ]
        latent = [NORMAL_MAP_FORM.latent_(updated) for updated in groups]
        getattr(base, name)(self)
        for updated, params in zip(groups, latent, strict=True):
            NORMAL_MAP_FORM.settle_(updated, params)
