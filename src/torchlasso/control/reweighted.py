"""Reweighting: large blocks are penalised less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from torchlasso._core.arguments import check_kind, check_positive
from torchlasso.distributed.sharding import whole
from torchlasso.optim import Proximal
from torchlasso.optim.controller import LambdaController
from torchlasso.optim.latent_form import factors_of
from torchlasso.penalties import Penalty, Separable
from torchlasso.penalties.reweighting import Reweighting
from torchlasso.selection import SIZES, Group


class Reweighted(LambdaController):
    """The reweighted lasso: λ of each block times (θ/(r+θ))^q, r the block's magnitude after the last step.

    A zero has the whole λ and a large block hardly any, so large blocks are not shrunk as L1 would shrink them. With
    q = 1 and L1 the stationary points are those of the log-sum penalty; each step is still convex (Candès, Wakin and
    Boyd 2008). With a ``reference``, the weights come from its magnitudes instead and stay fixed: the adaptive lasso
    (Zou 2006). Where a target in the latent form makes λ of a tensor larger, since it starts large, θ is as many times
    larger.

    Args:
        optimizer: whose λ is controlled.
        theta: θ > 0, the magnitude at which λ is multiplied by 2^−q.
        q: the power, above 0.
        reference: parameter ↦ the tensor whose magnitudes are used, such as
            ``dict(zip(model.parameters(), trained.parameters()))``; a parameter without an entry is not weighted.

    Raises:
        ValueError: θ or q is not above 0; a penalty has no magnitudes; a reference has another shape.

    Examples:
        >>> import torchlasso as tl
        >>> w = torch.nn.Parameter(torch.tensor([0.0, 0.05, 0.45]))
        >>> optimizer = tl.ProxSGD([w], lr=0.1, penalty=tl.L1(), lam=1.0)
        >>> control = Reweighted(optimizer, theta=0.05)
        >>> optimizer.weights[w]
        tensor([1.0000, 0.5000, 0.1000])
    """

    def __init__(
        self,
        optimizer: Proximal,
        theta: float = 0.05,
        q: float = 1.0,
        reference: Mapping[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__(optimizer)
        check_positive("Reweighted: theta", theta)
        check_positive("Reweighted: q", q)
        if reference is not None:
            check_kind("Reweighted: reference", reference, Mapping, "a mapping from parameters to tensors like them")
        self.theta, self.q, self.reference = theta, q, reference
        self.weighting = Reweighting(theta, q)
        self._known: set[Tensor] = set()
        self._weigh(reference)

    def _control(self) -> None:
        self._weigh(self.reference)

    def _check(self, group: Group, penalty: Penalty) -> None:
        if not isinstance(penalty, Separable):
            raise ValueError(f"Reweighted: {penalty} has no magnitudes to take weights from")
        for p in group["params"]:
            if self.reference is not None and p in self.reference and self.reference[p].shape != p.shape:
                found = tuple(self.reference[p].shape)
                raise ValueError(f"Reweighted: a reference is of shape {found}, its parameter {tuple(p.shape)}")

    @torch.no_grad()
    def _weigh(self, source: Mapping[Tensor, Tensor] | None) -> None:
        groups = self._groups()
        new = [(group, penalty) for group, penalty in groups if not self._known.issuperset(group["params"])]
        for group, penalty in new:
            self._check(group, penalty)
            self._known.update(group["params"])
        for group, penalty in groups if source is None else new:  # the weights of a reference hold once and for all
            over = penalty.over
            sizes = dict(zip(group["params"], group[SIZES], strict=True)) if SIZES in group else {}
            for params in over.together(group["params"]):
                if source is None or all(p in source for p in params):
                    if source is None and group["form"] == "latent":
                        size = sizes.get(params[0], 1.0)
                        rule = self.weighting if size == 1 else replace(self.weighting, theta=self.theta * size)
                        self.optimizer.weights[params[0]] = rule  # computed in the step
                        continue
                    tensors = [p if source is None else source[p].to(p) for p in params]
                    # the weights of joint blocks are kept with their first parameter
                    self.optimizer.weights[params[0]] = factors_of(self.weighting, over, tensors)

    def state_dict(self) -> dict[str, Any]:
        tensors = {p: whole(weights) for p, weights in self.optimizer.weights.items() if isinstance(weights, Tensor)}
        kept = [tensors.get(p) for group, _ in self._groups() for p in group["params"]]
        return {**super().state_dict(), "weights": kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._weigh(self.reference)  # θ follows the sizes, which are in the groups of the optimizer that was loaded
        params = [p for group, _ in self._groups() for p in group["params"]]
        for p, weights in zip(params, state["weights"], strict=True):
            if weights is not None:
                self.optimizer.weights[p] = weights.to(p.device, copy=True)
