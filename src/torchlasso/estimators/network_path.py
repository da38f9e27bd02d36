"""The training of estimators with a network: a group lasso over its inputs, and then a rising λ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import t as student_t
from torch import Tensor, nn

from torchlasso._core.running import seed_torch
from torchlasso.control import TargetCount
from torchlasso.estimators.convergence import Course, regularisers
from torchlasso.estimators.feature_groups import FeatureGroups
from torchlasso.estimators.linear_path import LinearPath
from torchlasso.estimators.models import Fitted, NetworkModel
from torchlasso.estimators.network import feature_blocks
from torchlasso.estimators.points import Numbers, PathPoint
from torchlasso.estimators.screening import distinct_rows, promising_columns
from torchlasso.estimators.smooth import TrainingLoss
from torchlasso.graph import Inputs
from torchlasso.optim import ProxAdam
from torchlasso.penalties import ElasticNet, Penalty
from torchlasso.selection import param_groups
from torchlasso.training.evaluation import outputs_of
from torchlasso.training.plan import Plan
from torchlasso.training.trainer import Trainer

GROWTH = 1.5  # λ of a point of the path relative to the one before
SHORT = 0.1  # the share of the epochs in which a point of the path after the first is trained
REFIT = 0.5  # the share of the epochs in which a number of features is trained on without the penalty
# A network can learn the noise by heart, always with more features than rows. A penalty that is not convex leaves large
# weights alone: while λ is small also those that learned noise, and they stay. So there the network is first trained
# under L1, for this share of the epochs and to so many times the number of features, and then under its own penalty
# (Zou and Li 2008; Mazumder, Friedman and Hastie 2011).
CONVEX, WIDER = 0.5, 2

STARTS, HALVINGS = 5, 3  # random orders of the targets in the search for the λ of noise, and of a factor of 2 in λ


@dataclass(frozen=True)
class TrainingLength:
    """The length of the training of a network.

    Attributes:
        epochs: of the network for λ; at most so many with validation rows.
        batch_size, lr: of its steps; the rate falls along a cosine.
        seed: of the first weights, and of the order of the rows.
        patience: the epochs without a smaller objective on validation rows after which training ends.
    """

    epochs: int
    batch_size: int
    lr: float
    seed: int
    patience: int = 10


@dataclass(frozen=True)
class TableRows:
    """Rows of a table and their targets."""

    x: Tensor
    targets: TrainingLoss


class NetworkPath:
    """A network for one table, trained for one λ, and then for rising ones.

    Args:
        make: (features) ↦ a network with random weights.
        rows: the training rows.
        groups: the groups of the features.
        penalty: makes the penalty over the features.
        training: the length of the training.
        validation: rows whose objective ends the training early.
        screens: whether the network sees only as many features as there are different rows, if there are more, see
            :func:`~torchlasso.estimators.screening.promising_columns`. All others count as features that it leaves out.
        starts_convex: whether a network under a penalty that is not convex is first trained under L1. With more
            features than different rows it always is.

    Raises:
        ValueError: the network cannot be exported, or a feature reaches its outputs past all weights.
    """

    def __init__(
        self,
        make: Callable[[int], nn.Module],
        rows: TableRows,
        groups: FeatureGroups,
        penalty: Callable[[Inputs], Penalty],
        training: TrainingLength,
        validation: TableRows | None = None,
        screens: bool = False,
        starts_convex: bool = False,
    ) -> None:
        self.make, self.rows, self.groups, self.penalty_over = make, rows, groups, penalty
        self.training, self.validation, self.screens = training, validation, screens
        self.known = distinct_rows(rows.x, groups.features)
        self.starts_convex = starts_convex or groups.features > self.known
        self._see(self.known)

    def _see(self, most: int) -> None:
        """Make a network that sees about so many features, if they are screened."""
        self.columns: Numbers | None = None
        x, groups = self.rows.x, self.groups
        if self.screens and most < groups.features:
            self.columns = promising_columns(x, self.rows.targets, groups, most)
            groups = groups.only(self.columns)
        self.seen, self.x = groups, self._seen(x)
        with torch.random.fork_rng():
            seed_torch(self.training.seed)
            self.network = self.make(groups.features).to(x.dtype)
        weights = groups.strengths[groups.numbers].clip(1.0)  # those of kept features count for nothing
        named, kept = [list(group) for group in groups.named.values()], sorted(groups.kept)
        self.inputs = feature_blocks(self.network, self.x[:2], named, weights.tolist(), kept)
        self.penalty = self.penalty_over(self.inputs)

    def _seen(self, x: Tensor) -> Tensor:
        return x if self.columns is None else x[:, self.columns]

    def at(self, lam: float) -> Fitted:
        """Return the network trained for λ, from its current weights."""
        epochs = self.training.epochs
        if not self._starts_convex:
            return self._trained(lam, epochs)
        self._trained(lam, self._first, under=ElasticNet(over=self.inputs))
        return self._trained(lam, max(1, epochs - self._first))

    def with_features(self, count: int, lam: float) -> Fitted:
        """Return a network of so many features, trained on without the penalty; a group counts once.

        Raises:
            ValueError: there are not so many features, or not so many that vary, or more are kept.
        """
        kept, every = int(self.groups.is_kept.sum()), len(self.groups.members)
        if not kept < count <= every:
            raise ValueError(
                f"features must be above the number of kept ones, {kept}, and at most that of all, {every}; got {count}"
            )
        varying = self.groups.count((self.rows.x != self.rows.x[0]).any(dim=0).numpy())
        if count > varying:
            raise ValueError(f"features must be at most the number of those that vary, {varying}; got {count}")
        if count >= len(self.seen.members):
            self._see(2 * count * max(map(len, self.groups.members)))
        if count == every:
            return self._trained(0.0, self.training.epochs)
        epochs, groups = self.training.epochs, count - kept
        if not self._starts_convex:
            found = self._trained(lam, epochs, groups)
        else:
            wider = min(WIDER * groups, len(self.seen.members) - kept - 1)
            first = self._trained(lam, self._first, wider, under=ElasticNet(over=self.inputs))
            found = self._trained(first.point.lam, max(1, epochs - self._first), groups, warmup=0.0)
        refitted = self._trained(0.0, max(1, round(REFIT * self.training.epochs)), held=True)
        point = replace(refitted.point, lam=found.point.lam)
        return refitted._replace(point=point, ended_early=refitted.ended_early or found.ended_early)

    def along(self, lams: Sequence[float]) -> list[Fitted]:
        """Return the networks for rising λ, each trained from the one before."""
        found = [self.at(lams[0])]
        for lam in lams[1:]:
            if found[-1].point.features <= len(self.groups.kept):
                break
            found.append(self._trained(lam, self._short)._replace(ended_early=found[0].ended_early))
        return found

    def relaxed(self, found: Fitted) -> Fitted:
        """Return a network of the same features, trained on without the penalty; leave this one as it is."""
        weights = deepcopy(self.network.state_dict())
        self.network.load_state_dict(found.model.network.state_dict())  # type: ignore[attr-defined]  # of this path
        after = self._trained(0.0, self._short, held=True)
        self.network.load_state_dict(weights)
        return found._replace(point=replace(found.point, loss=after.point.loss), model=after.model)

    def rising(self, first: Fitted, points: int) -> list[PathPoint]:
        """Train on for rising λ until no feature lives, and return all points; leave the network as it is."""
        path, weights = [first.point], deepcopy(self.network.state_dict())
        while len(path) < points and path[-1].features > len(self.groups.kept) and first.point.lam:
            path.append(self._trained(path[-1].lam * GROWTH, self._short).point)
        self.network.load_state_dict(weights)
        return path

    def grid(self, number: int) -> list[float]:
        """Return rising values of λ up to the least one at which a linear model reads nothing that is not kept."""
        return self._linear(self.rows.x, self.groups).grid(number)

    def null_lam(self, level: float, seed: int) -> float:
        """Return the λ at which networks for random orders of the targets read no feature with this probability.

        The least λ for which nothing is read is found for a few random orders, each time from new weights. Its
        logarithm is taken as normal, and the quantile is that of a prediction: Student's t.
        """
        near, order, found = (
            self._linear(self.rows.x, self.groups).null_lam(level, seed),
            np.random.default_rng(seed),
            [],
        )
        for _ in range(STARTS):
            rows = torch.from_numpy(order.permutation(len(self.rows.x)))
            permuted = TableRows(self.rows.x, self.rows.targets.some(rows))
            length = replace(self.training, seed=int(order.integers(2**31)))

            def reads_nothing(lam: float, rows: TableRows = permuted, length: TrainingLength = length) -> bool:
                path = NetworkPath(self.make, rows, self.groups, self.penalty_over, length, screens=self.screens)
                return path.at(lam).point.features <= len(self.groups.kept)

            low, high = near / 2, near
            while not reads_nothing(high):
                low, high = high, 2 * high
            for _ in range(HALVINGS):
                lam = (low * high) ** 0.5
                low, high = (low, lam) if reads_nothing(lam) else (lam, high)
            found.append(np.log(high))
        quantile = student_t.ppf(level, STARTS - 1) * (1 + 1 / STARTS) ** 0.5  # of one more order, given these few
        return float(np.exp(np.mean(found) + quantile * np.std(found, ddof=1)))

    @property
    def _starts_convex(self) -> bool:
        return not self.penalty.convex and self.starts_convex

    @property
    def _first(self) -> int:
        return max(1, round(CONVEX * self.training.epochs))

    @property
    def _short(self) -> int:
        return max(1, round(SHORT * self.training.epochs))

    def _linear(self, x: Tensor, groups: FeatureGroups) -> LinearPath:
        """Return the linear models of a table with the same targets, whose λ has the same scale."""
        targets = self.rows.targets.to(torch.float64)
        has_constant = not targets.ignores_shifts
        return LinearPath(x.to(torch.float64), targets, groups, 1.0, intercept=has_constant, tolerance=1e-6)

    def _trained(
        self,
        lam: float,
        epochs: int,
        blocks: int | None = None,
        *,
        under: Penalty | None = None,
        warmup: float = 0.5,
        held: bool = False,
    ) -> Fitted:
        """Train the network on, under its own penalty or another one, and return a copy.

        Args:
            lam: λ; with ``blocks`` the one that a search begins with.
            epochs: the length of the training.
            blocks: the number of groups to read.
            under: another penalty.
            warmup: of the search, see :class:`~torchlasso.control.TargetCount`.
            held: whether features that are not read stay so, the others without a penalty.
        """
        network, rows = self.network, self.rows
        optimizer = ProxAdam(param_groups(network, under or self.penalty, lam=lam), lr=self.training.lr)
        plan = Plan(epochs, self.training.batch_size, self.training.seed)
        trainer = Trainer(network, optimizer, rows.targets.packed_loss, (self.x, rows.targets.packed), plan)
        if held:
            optimizer.hold()
        if blocks is not None:
            trainer.controls.append(TargetCount(optimizer, blocks, steps=trainer.steps, warmup=warmup))
        held_out = None if self.validation is None else replace(self.validation, x=self._seen(self.validation.x))
        stopping = None if held_out is None or blocks is not None else _Stopping(held_out, network)
        constant = float(rows.targets.value(self.x.new_zeros(len(self.x), rows.targets.outputs)))
        longest = self.training.lr * trainer.steps / 2  # along a cosine
        course = Course(network, optimizer, constant, longest, searches=blocks is not None)
        found, ended_early = lam, ""
        with torch.random.fork_rng():
            for _ in range(epochs):
                course.after_epoch(trainer.run_epoch())
                found = max(group["lam"] for group in optimizer.penalised_groups()) or found  # 0 while zeros are held
                if stopping is not None and stopping.idle_after(optimizer) == self.training.patience:
                    break
            else:
                sign = course.ended_early
                ended_early = sign and f"after {trainer.steps:,} steps: {sign}"
        if stopping is not None:
            network.load_state_dict(stopping.best)
        loss = float(rows.targets.value(outputs_of(network, self.x)))
        live = np.zeros(self.groups.features, dtype=bool)
        live[slice(None) if self.columns is None else self.columns] = self.inputs.live(network).numpy()
        model = NetworkModel(deepcopy(network).eval(), self.columns)
        return Fitted(PathPoint(found, live, loss), model, ended_early)


class _Stopping:
    """The least objective on validation rows so far, and its weights."""

    def __init__(self, rows: TableRows, network: nn.Module) -> None:
        self.rows, self.network = rows, network
        self.least, self.idle, self.best = float("inf"), 0, deepcopy(network.state_dict())

    @torch.no_grad()
    def idle_after(self, optimizer: ProxAdam) -> int:
        """Return the number of epochs since the least objective.

        The penalties belong to it: the loss alone is often least while a network still reads all features.
        """
        value = float(self.rows.targets.value(outputs_of(self.network, self.rows.x))) + regularisers(optimizer)
        if value < self.least:
            self.least, self.idle, self.best = value, 0, deepcopy(self.network.state_dict())
        else:
            self.idle += 1
        return self.idle
