"""The training of estimators with a network: a group lasso over its inputs, and then a rising λ."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

from torch import Tensor, nn

from torchlasso.control import TargetCount
from torchlasso.estimators.feature_groups import FeatureGroups
from torchlasso.estimators.losses import Targets
from torchlasso.estimators.points import PathPoint
from torchlasso.graph import Inputs
from torchlasso.optim import ProxAdam
from torchlasso.penalties import ElasticNet
from torchlasso.selection import param_groups
from torchlasso.training.trainer import Plan, Trainer, outputs_of

GROWTH = 1.5  # λ of a point of the path relative to the one before
SHORT = 0.1  # the share of the epochs in which a point of the path after the first is trained

REFIT = 0.5  # the share of the epochs in which a number of features is trained on without the penalty


@dataclass(frozen=True)
class TrainingLength:
    """The length of the training of a network.

    Attributes:
        epochs: of the network for λ.
        batch_size, lr: of its steps; the rate falls along a cosine.
        seed: of the order of the rows.
    """

    epochs: int
    batch_size: int
    lr: float
    seed: int


class NetworkPath:
    """A network for one table, trained for one λ, and then for rising ones.

    Args:
        network: trained in place, from its current weights.
        x: the features, (n, p).
        targets: the targets of its rows.
        groups: the groups of the features.
        l1_ratio: the share of L1 in the elastic net.
        training: the length of the training.

    Raises:
        ValueError: the network cannot be exported, or a feature reaches its outputs past all weights.
    """

    def __init__(
        self,
        network: nn.Module,
        x: Tensor,
        targets: Targets,
        groups: FeatureGroups,
        l1_ratio: float,
        training: TrainingLength,
    ) -> None:
        self.network, self.x, self.targets, self.training = network, x, targets, training
        weights = groups.strengths[groups.numbers].clip(1.0)  # those of kept features count for nothing
        named, kept = [list(group) for group in groups.named.values()], sorted(groups.kept)
        self.inputs = Inputs(network, x[:2], groups=named, weights=weights.tolist(), keep=kept)
        self.penalty, self.kept = ElasticNet(l1_ratio=l1_ratio, over=self.inputs), len(kept)

    def first(self, lam: float, blocks: int | None) -> PathPoint:
        """Train for λ; or for a number of blocks, whose λ is found, and then without the penalty on what is left."""
        found = self._trained(lam, self.training.epochs, blocks)
        if blocks is None:
            return found
        refitted = self._trained(0.0, max(1, round(REFIT * self.training.epochs)), held=True)
        return replace(refitted, lam=found.lam)

    def rising(self, first: PathPoint, points: int) -> list[PathPoint]:
        """Train on for rising λ until no feature lives, and return all points; leave the network as it is."""
        path, weights = [first], deepcopy(self.network.state_dict())
        epochs = max(1, round(SHORT * self.training.epochs))
        while len(path) < points and path[-1].features > self.kept and first.lam:
            path.append(self._trained(path[-1].lam * GROWTH, epochs))
        self.network.load_state_dict(weights)
        return path

    def _trained(self, lam: float, epochs: int, blocks: int | None = None, held: bool = False) -> PathPoint:
        optimizer = ProxAdam(param_groups(self.network, self.penalty, lam=lam), lr=self.training.lr)
        plan = Plan(epochs, self.training.batch_size, self.training.seed)
        rows = (self.x, self.targets.packed)
        trainer = Trainer(self.network, optimizer, self.targets.packed_loss, rows, plan)
        if held:
            optimizer.hold()
        if blocks is not None:
            trainer.controls.append(TargetCount(optimizer, blocks, steps=trainer.steps))
        found = lam
        for _ in range(epochs):
            trainer.run_epoch()
            found = max(group["lam"] for group in optimizer.penalised_groups()) or found  # 0 while zeros are held
        loss = float(self.targets.value(outputs_of(self.network, self.x)))
        return PathPoint(found, self.inputs.live(self.network).numpy(), loss)
