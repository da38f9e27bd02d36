"""Models of columns that are scaled to mean 0 and variance 1 on the training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from torchlasso.estimators.models import Fitted, LinearModel, ModelPath, TableModel
from torchlasso.estimators.points import Numbers, PathPoint


@dataclass(frozen=True)
class ColumnScales:
    """The means and the standard deviations of columns.

    Attributes:
        centre: the means, (features,).
        spread: the standard deviations, (features,); 1 for a constant column.
    """

    centre: Numbers
    spread: Numbers

    @classmethod
    def of(cls, x: Numbers, weights: Numbers) -> ColumnScales:
        """Return those of rows with weights, (n,): a row of weight 2 is as two rows.

        Examples:
            >>> ColumnScales.of(np.array([[1.0, 5.0], [3.0, 5.0]]), np.ones(2))
            ColumnScales(centre=array([2., 5.]), spread=array([1., 1.]))
        """
        shares = weights / weights.sum()
        centre = shares @ x
        spread = np.sqrt(shares @ np.square(x - centre))
        small = spread <= 1e-10 * np.abs(centre)  # of constant columns, only the rounding is left
        return cls(centre.astype(x.dtype), np.where(small, 1.0, spread).astype(x.dtype))

    def scaled(self, x: Numbers) -> Numbers:
        """Return rows with scaled columns."""
        return np.asarray((x - self.centre) / self.spread)


@dataclass(frozen=True)
class StandardizedModel:
    """A model of scaled columns that takes columns as they are."""

    model: TableModel
    scales: ColumnScales

    @property
    def linear(self) -> LinearModel | None:
        """The same model as a matrix, if it is linear."""
        inner = self.model.linear
        if inner is None:
            return None
        coef = inner.coef / self.scales.spread[:, None]
        return LinearModel(coef, inner.intercept - self.scales.centre @ coef)

    def outputs(self, x: Numbers) -> Numbers:
        """Return the outputs for rows, (n, outputs)."""
        return self.model.outputs(self.scales.scaled(x))


@dataclass(frozen=True)
class StandardizedPath:
    """The path of models of scaled columns, as models of the columns as they are.

    Args:
        path: the models of the scaled columns.
        scales: the scales of the columns.
    """

    path: ModelPath
    scales: ColumnScales

    def at(self, lam: float) -> Fitted:
        """Return the model for one λ."""
        return self._outside(self.path.at(lam))

    def with_features(self, count: int, lam: float) -> Fitted:
        """Return a model that reads so many features."""
        return self._outside(self.path.with_features(count, lam))

    def along(self, lams: Sequence[float]) -> list[Fitted]:
        """Return the models for rising λ."""
        return [self._outside(each) for each in self.path.along(lams)]

    def relaxed(self, found: Fitted) -> Fitted:
        """Return a model trained on from another one, without the penalty."""
        return self._outside(self.path.relaxed(self._inside(found)))

    def rising(self, first: Fitted, points: int) -> list[PathPoint]:
        """Return points for rising λ."""
        return self.path.rising(self._inside(first), points)

    def null_lam(self, level: float, seed: int) -> float:
        """Return the λ of pure noise."""
        return self.path.null_lam(level, seed)

    def grid(self, number: int) -> list[float]:
        """Return rising values of λ."""
        return self.path.grid(number)

    def _outside(self, found: Fitted) -> Fitted:
        return found._replace(model=StandardizedModel(found.model, self.scales))

    @staticmethod
    def _inside(found: Fitted) -> Fitted:
        return found._replace(model=found.model.model)  # type: ignore[attr-defined]  # it is of this path
