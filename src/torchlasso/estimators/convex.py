"""Linear models under L1: the exact minimum of a convex loss of X·B + b plus a group lasso over the inputs.

minimise over B (p × q) and b (q):  ℓ(X·B + b) + λ·Σ_g (α_g·‖B_g‖ + β_g/2·‖B_g‖²)

with B_g the rows of B that belong to group g of the inputs, some of which may have to be at least 0. With one output
and one input in each group it is the elastic net, and for β = 0 the lasso.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from torchlasso.estimators.input_groups import InputGroups
from torchlasso.estimators.scaled import ScaledProblem
from torchlasso.estimators.scaled_inputs import ScaledInputs
from torchlasso.estimators.smooth import SmoothLoss
from torchlasso.estimators.sparse_rows import LinearRows

RIDGE = 1e-3  # of a refit without the penalty, for inputs of variance 1
ROUGH = 0.03  # the precision over a working set, relative to the largest distance of a group from stationarity before
SMALL = 2**22  # the most numbers of a table of few groups whose inputs are all in the working set from the start
FIRST, GROWTH = 100, 2  # the most groups that join the first working set, and the growth of the next ones
# The gradient of an input that may soon be read, relative to λ, and the most of these, relative to a first working set.
LIKELY, FEW = 0.9, 5


@dataclass(frozen=True)
class Solution:
    """A minimum, and how exact it is.

    Attributes:
        coef: B, (p, q).
        intercept: b, (q,).
        distance: the largest distance of −∇ℓ from the subdifferential of the penalty, over the groups.
        is_exact: whether the distance is as small as it was to be.
        gradient: ∇ℓ by B, (p, q), if it is known. It costs a pass over the table, and the next λ begins with it.
    """

    coef: Tensor
    intercept: Tensor
    distance: float = float("inf")
    is_exact: bool = False
    gradient: Tensor | None = None


@dataclass(frozen=True)
class LinearProblem:
    """A linear model with its loss and the groups of its inputs.

    Args:
        x: X, (n, p), of double precision, dense or sparse.
        loss: ℓ.
        groups: the groups of the inputs.
        outputs: q.
        intercept: whether b is fitted; otherwise it is 0.
        tolerance: the largest distance of a solution from stationarity, relative to the largest gradient of a group at
            B = 0.

    Raises:
        ValueError: inputs have to be at least 0, and there are several outputs.

    Examples:
        >>> from torchlasso.estimators.losses import SQUARED, Targets
        >>> x, y = torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([[3.0], [1.0]]).double()
        >>> one = InputGroups(torch.tensor([0]), torch.ones(1).double(), torch.zeros(1).double())
        >>> lasso = LinearProblem(x, Targets(y, torch.ones(2).double(), 1, SQUARED), one, outputs=1)
        >>> lasso.lambda_max
        1.0
        >>> found = lasso.minimum(0.25)
        >>> found.coef, found.intercept  # 1 − λ, and the mean
        (tensor([[0.7500]], dtype=torch.float64), tensor([2.], dtype=torch.float64))
    """

    x: LinearRows
    loss: SmoothLoss
    groups: InputGroups
    outputs: int
    intercept: bool = True
    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        if self.groups.positive is not None and self.outputs > 1:
            raise ValueError(f"positive=True is for a model with one output; this one has {self.outputs}")

    @cached_property
    def lambda_max(self) -> float:
        """The least λ for which all penalised groups are zero."""
        return float(self.lambdas_max(self.slope_at_zero[:, None])[0])

    @property
    def slope_at_zero(self) -> Tensor:
        """The gradient of the loss by the outputs, (n, q), while all penalised groups are zero."""
        return self.loss.slope(self.x @ self._at_zero.coef + self._at_zero.intercept)

    def lambdas_max(self, slopes: Tensor) -> Tensor:
        """Return the least λ for which all penalised groups are zero, for k gradients by the outputs, (n, k, q)."""
        gradients = (self.x.mT @ slopes.flatten(1)).reshape(-1, *slopes.shape[1:])  # (p, k, q)
        squares: Tensor = self.groups.pulls(gradients).square().sum(dim=2)  # (p, k)
        norms = (
            squares.new_zeros(len(self.groups.l1), squares.shape[1]).index_add(0, self.groups.numbers, squares).sqrt()
        )
        penalised = self.groups.l1 > 0
        if not penalised.any():
            return squares.new_zeros(squares.shape[1])
        return (norms[penalised] / self.groups.l1[penalised, None]).amax(dim=0)

    def minimum(self, lam: float, start: Solution | None = None) -> Solution:
        """Return the minimum for one λ.

        Groups join a working set until no other could help. Until then, the minimum over the working set is found only
        roughly.

        Args:
            lam: λ, at least 0.
            start: the solution of this problem for another λ, to begin with.
        """
        found, near = start or self._at_zero, self._near
        working = (self.groups.l1 == 0) | (self.groups.norms(found.coef) > 0)
        if len(working) <= FIRST and self.x.shape[0] * self.x.shape[1] <= SMALL:
            working = self._selectable.clone()  # inputs that are scaled once for all λ
        away, most, rough = self.groups.distances(found.coef, self._gradient(found), lam), FIRST, float("inf")
        while True:
            outside = away.masked_fill(working, 0.0)
            joining = outside.topk(min(most, len(outside))).indices
            working[joining[outside[joining] > near]] = True
            most = max(most, (GROWTH - 1) * int(working.sum()))
            rough = near if torch.equal(working, self._selectable) else max(near, ROUGH * min(rough, float(away.max())))
            found = self._minimum_over(working, lam, found, rough)
            gradient = self._gradient(found)
            away = self.groups.distances(found.coef, gradient, lam)
            if float(away.max()) <= near or (rough == near and not bool((away.masked_fill(working, 0.0) > near).any())):
                distance = float(away.max())
                return replace(found, distance=distance, is_exact=distance <= 2 * near, gradient=gradient)

    def near(self, found: Solution, lam: float) -> tuple[LinearProblem, Tensor] | None:
        """Return the problem of the inputs that solutions for somewhat larger λ are likely to read, and their numbers.

        A search for λ needs no pass over the whole table then; the λ that it finds does. None if these inputs are many.

        Args:
            found: the solution for λ.
            lam: λ.
        """
        pulls = self.groups.norms(self.groups.pulls(self._gradient(found)))
        likely = (pulls >= LIKELY * lam * self.groups.l1) | (self.groups.norms(found.coef) > 0)
        rows, groups = self.groups.only(likely)
        return (replace(self, x=self.x[:, rows], groups=groups), rows) if len(rows) <= FEW * FIRST else None

    def refitted(self, found: Solution, weights: Tensor) -> Solution:
        """Return the minimum over the groups of a solution that are not zero, without their penalty.

        minimise ℓ(X·B + b) + r/2·Σ_g s_g²·‖B_g‖²   over the groups with B_g ≠ 0,   r = 0.001

        with s_g² the variance of the inputs of the group, added up. The ridge keeps the minimum finite where classes
        can be told apart without an error.

        Args:
            found: the solution for some λ.
            weights: of the rows in the variances, (n,).
        """
        live = (self.groups.l1 == 0) | (self.groups.norms(found.coef) > 0)
        shares, rows = weights / weights.sum(), live[self.groups.numbers].nonzero()[:, 0]
        x = self.x[:, rows]
        centre = shares @ x if self.intercept or self.loss.ignores_shifts else 0.0
        spreads = shares.new_zeros(self.x.shape[1], 1).index_copy(0, rows, (shares @ (x - centre).square())[:, None])
        squares = self.groups.norms(spreads.sqrt()).square()
        l2 = (RIDGE * squares).where(self.groups.l1 > 0, 0.0)
        free = replace(self, groups=replace(self.groups, l1=torch.zeros_like(self.groups.l1), l2=l2))
        return free._minimum_over(live, 1.0, found, self._near)

    def _gradient(self, at: Solution) -> Tensor:
        if at.gradient is not None:
            return at.gradient
        return self.x.mT @ self.loss.slope(self.x @ at.coef + at.intercept)

    @cached_property
    def _at_zero(self) -> Solution:
        """The minimum while all penalised groups are zero."""
        zeros = self.groups.l1.new_zeros
        nothing = Solution(zeros(self.x.shape[1], self.outputs), zeros(self.outputs))
        always, scale = self.groups.l1 == 0, float(self.groups.norms(self._gradient(nothing)).max())
        found = self._minimum_over(always, 0.0, nothing, self.tolerance * scale)
        return replace(found, gradient=self._gradient(found))

    @cached_property
    def _near(self) -> float:
        return self.tolerance * float(self.groups.norms(self._gradient(self._at_zero)).max())

    def _minimum_over(self, groups: Tensor, lam: float, start: Solution, near: float) -> Solution:
        """Return the minimum over some groups, given by a mask, while the others are zero."""
        some = self._all_inputs if torch.equal(groups, self._selectable) else self._scaled_inputs(groups)
        coef = ScaledProblem(some, lam).minimum(some.inside(start.coef, start.intercept), near / some.sizes)
        found, intercept = some.outside(coef, len(start.coef))
        return Solution(found, start.intercept if intercept is None else intercept)

    def _scaled_inputs(self, groups: Tensor) -> ScaledInputs:
        is_centred = self.intercept or self.loss.ignores_shifts
        return ScaledInputs.of(self.x, self.groups, groups, self.loss, self.intercept, is_centred)

    @cached_property
    def _all_inputs(self) -> ScaledInputs:
        return self._scaled_inputs(self._selectable)

    @cached_property
    def _selectable(self) -> Tensor:
        """A mask of the groups that some λ lets live."""
        return self.groups.l1.isfinite()
