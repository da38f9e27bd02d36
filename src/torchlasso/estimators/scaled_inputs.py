"""Inputs of a linear model on a common scale, and the weights of the model on either scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from torchlasso.estimators.input_groups import InputGroups
from torchlasso.estimators.smooth import SmoothLoss
from torchlasso.estimators.sparse_rows import LinearRows


@dataclass(frozen=True)
class ScaledInputs:
    """Some groups of the inputs: centred, and each group scaled, which changes the minimum in a known way.

    Attributes:
        rows: their rows in B, (k,).
        x: the inputs, (n, k), and a column of ones for the intercept.
        groups: their groups on this scale, and one without a penalty for the intercept.
        centre: the means of the inputs, (k,).
        sizes: the factors of the groups, and 1 for the one of the intercept.
        intercept: whether there is one.
        loss: the loss of the outputs.
    """

    rows: Tensor
    x: Tensor
    groups: InputGroups
    centre: Tensor
    sizes: Tensor
    intercept: bool
    loss: SmoothLoss

    @classmethod
    def of(
        cls,
        x: LinearRows,
        groups: InputGroups,
        some: Tensor,
        loss: SmoothLoss,
        intercept: bool,
        is_centred: bool,
    ) -> ScaledInputs:
        """Scale the inputs of some groups, given by a mask."""
        rows, own = groups.only(some)
        inputs = x[:, rows]
        centre = inputs.mean(dim=0) if is_centred else inputs.new_zeros(len(rows))
        inputs = inputs - centre
        sizes = own.norms(inputs.square().mean(dim=0).sqrt()[:, None])
        sizes = sizes.where(sizes > 0, 1.0)
        inputs = inputs / sizes[own.numbers]
        own = replace(own, l1=own.l1 / sizes, l2=own.l2 / sizes.square())
        if intercept:
            inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1)
            own, sizes = own.with_free(), torch.cat([sizes, sizes.new_ones(1)])
        return cls(rows, inputs, own, centre, sizes, intercept, loss)

    @cached_property
    def curvature(self) -> Tensor:
        """The second derivatives of a quadratic loss of one output by the weights, (k or k + 1, k or k + 1)."""
        return self.loss.curvature(self.x.new_zeros(len(self.x), 1)).between(self.x)

    def inside(self, coef: Tensor, intercept: Tensor) -> Tensor:
        """Return the weights on this scale, (k or k + 1, q), for B and b."""
        own = coef[self.rows]
        inside = own * self.sizes[self.groups.numbers[: len(own)], None]
        return torch.cat([inside, (intercept + self.centre @ own)[None]]) if self.intercept else inside

    def outside(self, coef: Tensor, inputs: int) -> tuple[Tensor, Tensor | None]:
        """Return B, (inputs, q), and b for weights on this scale; None for b if there is none."""
        found, k = coef.new_zeros(inputs, coef.shape[1]), len(self.rows)
        found[self.rows] = coef[:k] / self.sizes[self.groups.numbers[:k], None]
        return found, coef[-1] - self.centre @ found[self.rows] if self.intercept else None
