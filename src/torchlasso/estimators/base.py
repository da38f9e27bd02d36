"""Everything that the estimators for classes and for numbers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from torchlasso._core.arguments import check_whole, is_number
from torchlasso.estimators.feature_groups import FeatureGroups, feature_groups
from torchlasso.estimators.linear_path import LinearPath
from torchlasso.estimators.losses import Targets
from torchlasso.estimators.network import SkipNetwork
from torchlasso.estimators.network_path import NetworkPath, TrainingLength
from torchlasso.estimators.points import Numbers, importances
from torchlasso.training.trainer import outputs_of

Self = TypeVar("Self", bound="SparseEstimator")
Factory = Callable[[int, int], nn.Module]  # (features, outputs) ↦ a network
DTYPES = [np.float64, np.float32]


class _LinearModel(NamedTuple):
    coef: Numbers  # (features, outputs)
    intercept: Numbers  # (outputs,)


class SparseEstimator(BaseEstimator):  # type: ignore[misc]
    """A model of a table that reads few of its features.

    minimise over the model f:  mean loss + λ·Σ_g √|g|·(ρ·‖w_g‖ + (1 − ρ)/2·‖w_g‖²)

    with w_g the weights that read the features of group g.
    """

    def __init__(
        self,
        lam: float = 0.01,
        *,
        features: int | None = None,
        hidden: Sequence[int] = (64,),
        module: Factory | None = None,
        l1_ratio: float = 1.0,
        groups: Mapping[str, Any] | Sequence[Sequence[Any]] | None = None,
        keep: Sequence[Any] = (),
        fit_intercept: bool = True,
        points: int = 10,
        epochs: int = 200,
        batch_size: int = 200,
        lr: float = 1e-2,
        tol: float = 1e-9,
        random_state: Any = None,
    ) -> None:
        self.lam = lam
        self.features = features
        self.hidden = hidden
        self.module = module
        self.l1_ratio = l1_ratio
        self.groups = groups
        self.keep = keep
        self.fit_intercept = fit_intercept
        self.points = points
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.tol = tol
        self.random_state = random_state

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
    def _linear(self) -> _LinearModel:
        """The model without hidden layers; one with them has no coefficients."""
        check_is_fitted(self)
        if not isinstance(self._model, _LinearModel):
            raise AttributeError(f"a {type(self).__name__} with hidden layers has no coef_ and intercept_")
        return self._model

    def _check(self) -> None:
        """Raise ``ValueError`` or ``TypeError`` for a parameter that is no use."""
        for name, is_open in (("lam", False), ("lr", True), ("tol", True), ("l1_ratio", True)):
            value = getattr(self, name)
            if not is_number(value) or value < 0 or (is_open and value == 0):
                raise ValueError(f"{name} must be a number {'above' if is_open else 'of at least'} 0; got {value!r}")
        if self.l1_ratio > 1:
            raise ValueError(f"l1_ratio must be above 0 and at most 1; got {self.l1_ratio!r}")
        for name in ("points", "epochs", "batch_size"):
            check_whole(name, getattr(self, name))
        if isinstance(self.hidden, str) or not isinstance(self.hidden, Sequence | np.ndarray):
            raise TypeError(f"hidden must be a list of the widths of hidden layers; got {self.hidden!r}")
        for width in self.hidden:
            check_whole("a width of hidden", width)
        if self.features is not None:
            check_whole("features", self.features)

    def _train(self: Self, x: Numbers, targets: Targets) -> Self:
        """Train the model on checked features and targets."""
        groups = feature_groups(self.groups, self.keep, x.shape[1], getattr(self, "feature_names_in_", None))
        if self.features is not None:
            most = x.shape[1]
            if self.features > most:
                raise ValueError(f"features must be at most the number of features, {most}; got {self.features}")
        return (
            self._train_network(x, targets, groups)
            if self.module or len(self.hidden)
            else self._solve(x, targets, groups)
        )

    def _solve(self: Self, x: Numbers, targets: Targets, groups: FeatureGroups) -> Self:
        """Find the exact linear model."""
        rows = torch.from_numpy(np.array(x, dtype=np.float64))
        targets = targets.to(torch.float64)
        path = LinearPath(rows, targets, groups, self.l1_ratio, self.fit_intercept, self.tol)
        if self.features is None:
            self.lam_, found = float(self.lam), path.at(self.lam)
        else:
            self.lam_, found = path.with_features(self.features)
        self.path_ = path.rising(self.lam_, found, self.points)
        self._model: _LinearModel | nn.Module = _LinearModel(found.coef.numpy(), found.intercept.numpy())
        return self

    def _train_network(self: Self, x: Numbers, targets: Targets, groups: FeatureGroups) -> Self:
        seed = int(check_random_state(self.random_state).randint(2**31))
        rows = torch.from_numpy(np.array(x))  # a copy: the rows may be read-only
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = self._network(x.shape[1], targets.outputs).to(rows.dtype)
            training = TrainingLength(self.epochs, self.batch_size, self.lr, seed)
            path = NetworkPath(network, rows, targets.to(rows.dtype), groups, self.l1_ratio, training)
            first = path.first(float(self.lam), self._blocks(groups))
            self.lam_, self.path_ = first.lam, path.rising(first, self.points)
        self._model = network.eval()
        return self

    def _network(self, features: int, outputs: int) -> nn.Module:
        """Make the network, with random weights."""
        if self.module is None:
            return SkipNetwork(features, [int(width) for width in self.hidden], outputs)
        network = self.module(features, outputs)
        if not isinstance(network, nn.Module):
            raise TypeError(f"module must return a torch.nn.Module for (features, outputs); got {network!r}")
        return network

    def _blocks(self, groups: FeatureGroups) -> int | None:
        """Return the number of blocks to keep, None for a given λ."""
        if self.features is None:
            return None
        sizes = {len(group) for group in groups.members}
        if sizes != {1}:
            raise ValueError("features counts single features under hidden layers; with groups, give lam instead")
        blocks = self.features - len(groups.kept)
        if blocks < 1 or blocks >= groups.features - len(groups.kept):
            raise ValueError(
                f"features must be above the number of kept ones, {len(groups.kept)}, and below that of all, "
                f"{groups.features}; got {self.features}"
            )
        return blocks

    def _outputs(self, X: Any) -> Numbers:
        """Return the outputs for rows, (n, q)."""
        check_is_fitted(self)
        x = densely(validate_data(self, X, accept_sparse="csr", dtype=DTYPES, reset=False))
        if isinstance(self._model, _LinearModel):
            return np.asarray(x @ self._model.coef + self._model.intercept)
        dtype = next(self._model.parameters()).dtype
        return outputs_of(self._model, torch.from_numpy(np.array(x)).to(dtype)).numpy()


def densely(x: Any) -> Numbers:
    """Return a matrix, sparse or not, as a dense one."""
    return np.asarray(x.toarray() if issparse(x) else x)


def row_weights(weights: Numbers) -> Tensor:
    """Return the weights of rows, scaled to a mean of 1.

    Raises:
        ValueError: all rows have the weight 0.
    """
    if not len(weights):
        raise ValueError("sample_weight must be above 0 for some rows; it is zero for all")
    return torch.from_numpy(np.asarray(weights / weights.mean(), dtype=np.float64))
