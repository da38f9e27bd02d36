"""The modes of an optimizer whose trained model has an average of the weights that it trains with.

Going to the averages and back by arithmetic alone would round the weights, so that a training that is evaluated or
saved more often would be another training. So ``eval()`` keeps the weights of the training in the state of the
optimizer, and ``train()`` takes them from there, if the model still has the averages that belong to them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchlasso.distributed.sharding import local, totals_over_shards
from torchlasso.optim.base import Proximal
from torchlasso.optim.form import Updated
from torchlasso.optim.forms import NORMAL_MAP_FORM
from torchlasso.optim.normal_form import OFFSET
from torchlasso.selection import Group

# The names of the weights of the training, and of their offset, in the state of a parameter that has the average.
KEPT, KEPT_OFFSET = "training_weights", "training_offset"

Settled = dict[Tensor, tuple[Tensor, Tensor | None]]  # the values of each parameter, and its offset


class WithModes(Proximal):
    """A proximal optimizer with the methods ``train`` and ``eval``, which exchange the weights of the model."""

    @property
    def is_training(self) -> bool:
        """The model has the weights that gradients are taken at, rather than their average."""
        return any(group["train_mode"] for group in self.param_groups)

    @torch.no_grad()
    def train(self) -> None:
        """Give the model the weights that gradients are taken at; after ``eval()``, the same as before to the bit.

        If the model no longer has the averages that ``eval()`` gave to it, since weights were loaded into it, training
        goes on from these instead.
        """
        groups = self._groups_in("eval")
        kept = self._taken(groups)
        if kept:
            averages = self._weights_of(groups)
            self._put_back(kept, groups)
            self._exchange("eval")
            if self._are_present(averages):
                self._put_back(kept, groups)
                return
            self._put(averages)
        self._exchange("train")

    @torch.no_grad()
    def eval(self) -> None:
        """Give the model the averaged weights: to evaluate it, and to save it."""
        kept = self._weights_of(self._groups_in("train"))
        self._exchange("eval")
        for p, (w, offset) in kept.items():
            self.state[p][KEPT] = w
            if offset is not None:
                self.state[p][KEPT_OFFSET] = offset

    def _groups_in(self, mode: str) -> list[Group]:
        return [group for group in self.param_groups if group["train_mode"] == (mode == "train")]

    def _exchange(self, mode: str) -> None:
        """Change the mode of the latent weights of the groups in the other one, and give the model their prox."""
        base: Any = self.base
        groups = [
            Updated(group, penalty, lambda i: None, {}, self.state, self.weights)
            for group, penalty in zip(self.param_groups, self.penalties, strict=True)
            if penalty is not None and group["lam"] and group["train_mode"] != (mode == "train")
        ]
        latent = [NORMAL_MAP_FORM.latent_(updated) for updated in groups]
        getattr(base, mode)(self)
        for updated, params in zip(groups, latent, strict=True):
            NORMAL_MAP_FORM.settle_(updated, params)

    def _weights_of(self, groups: list[Group]) -> Settled:
        """Return copies of the weights and offsets of the parameters of some groups that were trained."""
        found: Settled = {}
        for p in (p for group in groups for p in group["params"]):
            state = self.state.get(p)
            if state:
                offset = state.get(OFFSET)
                found[p] = p.detach().clone(), None if offset is None else offset.clone()
        return found

    def _taken(self, groups: list[Group]) -> Settled:
        """Return the kept weights of the training, which leave the state; none unless all parameters have them."""
        trained = [p for group in groups for p in group["params"] if self.state.get(p)]
        found = {p: (self.state[p].pop(KEPT, None), self.state[p].pop(KEPT_OFFSET, None)) for p in trained}
        return {} if any(w is None for w, _ in found.values()) else found

    def _put_back(self, kept: Settled, groups: list[Group]) -> None:
        """Give the model the weights of the training, of groups that are in the other mode."""
        self._put(kept)
        for group in groups:
            group["train_mode"] = True

    def _put(self, weights: Settled) -> None:
        for p, (w, offset) in weights.items():
            p.copy_(w)
            if offset is None:
                self.state[p].pop(OFFSET, None)
            else:
                self.state[p][OFFSET] = offset.clone()

    def _are_present(self, weights: Settled) -> bool:
        """Return whether the model has these weights; all processes of a sharded one find the same."""
        params = list(weights)
        different = [int((local(p.detach()) != local(weights[p][0])).sum()) for p in params]
        return not any(totals_over_shards(params, different))
