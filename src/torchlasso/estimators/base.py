"""Everything that the estimators share: their parameters, and their training on checked rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from scipy.sparse import csr_array, issparse
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils._missing import is_pandas_na, is_scalar_nan
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from torchlasso._core.arguments import check_whole, is_number
from torchlasso._core.specs import unknown
from torchlasso.estimators.convergence import warn_if_early
from torchlasso.estimators.feature_groups import FeatureGroups, groups_of_features
from torchlasso.estimators.held_out import held_out_part
from torchlasso.estimators.linear_path import LinearPath
from torchlasso.estimators.models import Fitted, LinearModel, ModelPath
from torchlasso.estimators.network import SkipNetwork
from torchlasso.estimators.network_path import NetworkPath, TableRows, TrainingLength
from torchlasso.estimators.points import Numbers, importances
from torchlasso.estimators.smooth import TrainingLoss
from torchlasso.estimators.sparse_rows import linear_rows
from torchlasso.estimators.standardized import ColumnScales, StandardizedPath, TargetScale
from torchlasso.penalties import MCP, SCAD, ElasticNet, Penalty
from torchlasso.penalties.blocks import Blocks

Self = TypeVar("Self", bound="SparseEstimator")
Factory = Callable[[int, int], nn.Module]  # (features, outputs) ↦ a network
PENALTIES: Mapping[str, Callable[..., Penalty]] = {"auto": MCP, "mcp": MCP, "scad": SCAD, "l1": ElasticNet}
DTYPES = [np.float64, np.float32]
LARGEST = 10**9  # the most numbers of a sparse matrix that is made dense: 8 gigabytes


class Table(NamedTuple):
    """Checked rows of a table.

    Attributes:
        x: the features, (n, p); sparse where a linear model takes them so.
        y: their targets, as they were given.
        targets: their targets, as the losses take them.
        groups: the group of each row, (n,), or None: rows of one group are never divided.
    """

    x: Numbers
    y: Numbers
    targets: TrainingLoss
    groups: Numbers | None

    @property
    def answers(self) -> int:
        """The number of targets to learn: rows of one group with the same target are one, such as those of a person."""
        if self.groups is None:
            return len(self.y)
        targets = np.unique(self.y, axis=0 if self.y.ndim > 1 else None, return_inverse=True)[1].reshape(-1)
        return len(np.unique(np.stack([self.groups, targets], axis=1), axis=0))

    def some(self, rows: Numbers) -> Table:
        """Return some rows, given by their numbers."""
        groups = None if self.groups is None else self.groups[rows]
        return Table(self.x[rows], self.y[rows], self.targets.some(torch.from_numpy(rows)), groups)


# scikit-learn reads the parameters from the signature of the constructor, which a dataclass writes for each class.
@dataclass(eq=False, repr=False)
class SparseEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A model of a table that reads few of its features.

    minimise over the model f:  mean loss + Σ_g φ(‖w_g‖)

    with w_g the weights that read the features of group g, and φ a penalty with λ·√|g|.
    """

    _: KW_ONLY
    hidden: Sequence[int] = (64,)
    module: Factory | None = None
    penalty: str = "auto"
    l1_ratio: float = 1.0
    feature_groups: Mapping[str, Any] | Sequence[Sequence[Any]] | None = None
    keep: Sequence[Any] = ()
    fit_intercept: bool = True
    positive: bool = False
    standardize: bool | str = "auto"
    relaxed: bool = False
    points: int = 10
    epochs: int = 200
    batch_size: int = 200
    lr: float = 1e-2
    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: int = 50
    tol: float = 1e-9
    random_state: Any = None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    @property
    def feature_importances_(self) -> Numbers:
        """The largest λ at which each feature is read: the features in the order in which they leave the model."""
        check_is_fitted(self)
        return importances(self.path_)

    @property
    def support_(self) -> Numbers:
        """A mask of the features that the model reads."""
        check_is_fitted(self)
        return self.path_[0].live.copy()

    @property
    def _linear(self) -> LinearModel:
        """The model without hidden layers; one with them has no coefficients."""
        check_is_fitted(self)
        found: LinearModel | None = self._model.linear
        if found is None:
            raise AttributeError(f"a {type(self).__name__} with hidden layers has no coef_ and intercept_")
        return found

    @property
    def is_linear(self) -> bool:
        """True if the model has no hidden layers."""
        return self.module is None and not len(self.hidden)

    @property
    def standardizes(self) -> bool:
        """True if columns are scaled before a model sees them."""
        return self.module is None and not self.is_linear if self.standardize == "auto" else bool(self.standardize)

    def as_rows(self, x: Any) -> Any:
        """Return a matrix as it is computed with: a sparse one stays so for a linear model of columns as they are."""
        return csr_array(x) if issparse(x) and self.is_linear and not self.standardizes else as_dense(x)

    def _check(self) -> None:
        """Raise ``ValueError`` or ``TypeError`` for a parameter that is of no use."""
        for name in ("lr", "tol", "l1_ratio"):
            check_number(name, getattr(self, name), above=True)
        if self.l1_ratio > 1:
            raise ValueError(f"l1_ratio must be above 0 and at most 1; got {self.l1_ratio!r}")
        if not isinstance(self.standardize, bool | np.bool_) and self.standardize != "auto":
            raise ValueError(f'standardize must be True, False or "auto"; got {self.standardize!r}')
        if self.penalty not in PENALTIES:
            raise unknown("penalty", str(self.penalty), PENALTIES)
        if self.l1_ratio < 1 and self.penalty != "l1" and (self.module is not None or len(self.hidden)):
            raise ValueError(f'l1_ratio below 1 needs penalty="l1" with hidden layers; got penalty={self.penalty!r}')
        for name in ("points", "epochs", "batch_size", "n_iter_no_change"):
            check_whole(name, getattr(self, name))
        check_number("validation_fraction", self.validation_fraction, above=True)
        if self.validation_fraction >= 1:
            raise ValueError(f"validation_fraction must be below 1; got {self.validation_fraction!r}")
        if isinstance(self.hidden, str) or not isinstance(self.hidden, Sequence | np.ndarray):
            raise TypeError(f"hidden must be a list of the widths of hidden layers; got {self.hidden!r}")
        for width in self.hidden:
            check_whole("a width of hidden", width)
        if self.positive and (self.module is not None or len(self.hidden)):
            raise ValueError("positive=True is for linear models: give hidden=()")

    def _train(self: Self, table: Table) -> Self:
        """Train the model on checked rows."""
        names = getattr(self, "feature_names_in_", None)
        groups = groups_of_features(self.feature_groups, self.keep, table.x.shape[1], names)
        seed = int(check_random_state(self.random_state).randint(2**31))
        path, found = self._chosen(table, groups, seed)
        found = path.relaxed(found) if self.relaxed else found
        warn_if_early(found, self.epochs, stacklevel=3)
        self.lam_, self._model = found.point.lam, found.model
        self.path_ = path.rising(found, self.points)
        return self

    @abstractmethod
    def _table(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Table:
        """Return the checked rows; the arguments are those of ``fit``."""

    @abstractmethod
    def _chosen(self, table: Table, groups: FeatureGroups, seed: int) -> tuple[ModelPath, Fitted]:
        """Return the model for the λ of the estimator, and the path that goes on from it."""

    @abstractmethod
    def _strata(self, table: Table) -> Numbers | None:
        """Return the kind of each row, (n,), of which every part of the rows is to have its share, if there are any."""

    def _path(self, table: Table, groups: FeatureGroups, seed: int, starts_convex: bool = False) -> ModelPath:
        """Return the models of a table for any λ; rows of weight 0 are left out.

        Args:
            table: the training rows.
            groups: the groups of the features.
            seed: of the weights, the order of the rows and their parts.
            starts_convex: see :class:`~torchlasso.estimators.network_path.NetworkPath`.
        """
        counts = table.targets.weights.numpy() > 0
        table = table if counts.all() else table.some(np.flatnonzero(counts))
        columns, (table, scale) = None, self._with_scaled_targets(table)
        if self.standardizes:
            columns = ColumnScales.of(table.x, table.targets.weights.numpy())
            table = table._replace(x=columns.scaled(table.x))
        # of a constant, a linear model says all that there is, and exactly
        is_linear = self.is_linear or (scale is not None and not scale.spread)
        path = self._linear_path(table, groups) if is_linear else self._networks(table, groups, seed, starts_convex)
        return path if columns is None and scale is None else StandardizedPath(path, columns, scale)

    def _with_scaled_targets(self, table: Table) -> tuple[Table, TargetScale | None]:
        """Return the table as a model learns it, and the scale of its targets: that of numbers under a network."""
        return table, None

    def _linear_path(self, table: Table, groups: FeatureGroups) -> LinearPath:
        """Return the linear models of rows with weights above 0, the table as it is."""
        rows, targets = linear_rows(table.x), table.targets.to(torch.float64)
        return LinearPath(rows, targets, groups, self.l1_ratio, self.fit_intercept, self.tol, self.positive)

    def _networks(self, table: Table, groups: FeatureGroups, seed: int, starts_convex: bool = False) -> NetworkPath:
        """Return the networks of rows with weights above 0, the table as it is."""
        share = self.validation_fraction
        training, held_out = self._parts(table, seed, share) if self.early_stopping else (table, None)
        length = TrainingLength(self.epochs, self.batch_size, self.lr, seed, self.n_iter_no_change)
        validation = None if held_out is None else _rows(held_out)
        return NetworkPath(
            lambda features: self._network(features, table.targets),
            _rows(training),
            groups,
            self._penalty,
            length,
            validation,
            screens=self.module is None,  # another network may have a place for each feature
            starts_convex=starts_convex or table.answers < groups.features,
        )

    def _penalty(self, over: Blocks) -> Penalty:
        """Return the penalty of a network over its inputs."""
        options = {"l1_ratio": self.l1_ratio} if self.penalty == "l1" else {}
        return PENALTIES[self.penalty](over=over, **options)

    def _parts(self, table: Table, seed: int, share: float) -> tuple[Table, Table]:
        """Divide the rows, in whole groups, into those for training and a share for validation."""
        training, held_out = held_out_part(self._strata(table), table.groups, len(table.y), share, seed)
        return table.some(training), table.some(held_out)

    def _network(self, features: int, targets: TrainingLoss) -> nn.Module:
        """Make the network, with random weights."""
        if self.module is None:
            hidden = [int(width) for width in self.hidden]
            return SkipNetwork(features, hidden, targets.outputs, not targets.ignores_shifts)
        network = self.module(features, targets.outputs)
        if not isinstance(network, nn.Module):
            raise TypeError(f"module must return a torch.nn.Module for (features, outputs); got {network!r}")
        return network

    def _outputs(self, X: Any) -> Numbers:
        """Return the outputs for rows, (n, outputs)."""
        check_is_fitted(self)
        return self._model.outputs(self.as_rows(validate_data(self, X, accept_sparse="csr", dtype=DTYPES, reset=False)))


def _rows(table: Table) -> TableRows:
    x = torch.from_numpy(np.array(table.x))  # a copy: the rows may be read-only
    return TableRows(x, table.targets.to(x.dtype))


def as_dense(x: Any) -> Numbers:
    """Return a matrix, sparse or not, as a dense one.

    Raises:
        ValueError: a sparse matrix is too large for it.
    """
    if issparse(x) and x.shape[0] * x.shape[1] > LARGEST:
        raise ValueError(
            f"X is sparse, {x.shape[0]:,} × {x.shape[1]:,}, and is computed with as a dense matrix, which would have "
            f"{x.shape[0] * x.shape[1]:,} numbers; at most {LARGEST:,} are possible. Leave columns out before, such as "
            "by SelectKBest, take fewer rows, or a linear model (hidden=()) without standardize"
        )
    return np.asarray(x.toarray() if issparse(x) else x)


def scaled_weights(weights: Numbers) -> Tensor:
    """Return the weights of rows, scaled to a mean of 1.

    Raises:
        ValueError: all rows have the weight 0.
    """
    if not weights.any():
        raise ValueError("sample_weight must be above 0 for some rows; it is zero for all")
    return torch.from_numpy(np.asarray(weights / weights.mean(), dtype=np.float64))


def row_groups(groups: Any, rows: int) -> Numbers | None:
    """Return the number of the group of each row, from 0 on.

    Raises:
        ValueError: there is not one group for each row.
    """
    if groups is None:
        return None
    found = np.asarray(groups)
    if found.shape != (rows,):
        raise ValueError(f"groups must have the group of each of the {rows} rows; got the shape {found.shape}")
    for row, group in enumerate(found if found.dtype.kind in ("f", "O") else ()):
        if group is None or is_pandas_na(group) or is_scalar_nan(group):
            raise ValueError(f"groups must have the group of each of the {rows} rows; row {row} has {group}")
    try:
        return np.asarray(np.unique(found, return_inverse=True)[1])
    except TypeError as error:
        raise ValueError(f"groups must be of one kind, such as numbers or text: {error}") from error


def check_number(name: str, value: Any, above: bool = False) -> None:
    """Raise ``ValueError`` unless a value is a number of at least 0, or ``above`` it."""
    if not is_number(value) or value < 0 or (above and value == 0):
        raise ValueError(f"{name} must be a number {'above' if above else 'of at least'} 0; got {value!r}")
