"""The sensitivities of networks to their features, for one network or for many that are trained as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from torchlasso.estimators.base import SparseEstimator, Table
from torchlasso.estimators.feature_groups import FeatureGroups, groups_of_features
from torchlasso.estimators.losses import Targets
from torchlasso.estimators.models import NetworkModel
from torchlasso.estimators.network import SkipNetwork
from torchlasso.estimators.points import Numbers
from torchlasso.estimators.screening import distinct_rows, promising_columns
from torchlasso.optim import ProxAdam
from torchlasso.penalties.blocks import Rows

STACK, NUMBERS = 50, 50_000_000  # the most networks at once, and the most numbers in twice their rows


def sensitivities(network: nn.Module, x: Tensor, shares: Tensor | None = None) -> Tensor:
    """Return the root mean square over rows of ∂f/∂x_j, added up over outputs: (features,).

    A feature whose weights are zero has the sensitivity 0.

    Args:
        network: (…, n, features) ↦ (…, n, outputs), each row by itself; with several networks, their sensitivities are
            (networks, features).
        x: the rows.
        shares: the weight of each row in the mean, (…, n), with sum 1; None for the same.

    Examples:
        >>> network = nn.Linear(2, 1)
        >>> network.weight.data = torch.tensor([[3.0, 0.0]])
        >>> sensitivities(network, torch.randn(5, 2))
        tensor([3., 0.])
    """
    x = x.detach().clone().requires_grad_()
    outputs = network(x)
    slopes = [
        torch.autograd.grad(outputs[..., k].sum(), x, retain_graph=True)[0].square() for k in range(outputs.shape[-1])
    ]
    shares = torch.full(x.shape[:-1], 1 / x.shape[-2]).to(x) if shares is None else shares
    return (torch.stack(slopes).sum(dim=0) * shares[..., None]).sum(dim=-2).sqrt()


@dataclass(frozen=True)
class SingleNetworks:
    """The networks of halves of a table, trained one by one.

    Attributes:
        estimator: the estimator of the networks.
        groups: the groups of the features.
        lam: λ.
    """

    estimator: SparseEstimator
    groups: FeatureGroups
    lam: float

    def __call__(self, tables: Sequence[Table], seeds: Sequence[int]) -> Numbers:
        """Return the importance of each group in each table: the root mean square of its features' sensitivities."""
        return np.array([self._importances(table, seed) for table, seed in zip(tables, seeds, strict=True)])

    def _importances(self, table: Table, seed: int) -> Numbers:
        path = self.estimator._networks(table, self.groups, seed)
        model: NetworkModel = path.at(self.lam).model  # type: ignore[assignment]  # it has hidden layers
        x, found = torch.from_numpy(model.seen(table.x)), np.zeros(table.x.shape[1])
        every = slice(None) if model.columns is None else model.columns
        found[every] = sensitivities(model.network, x, _shares(table).to(x.dtype)).numpy()
        return np.array([np.sqrt(np.square(found[list(group)]).mean()) for group in self.groups.members])


class StackedNetworks(nn.Module):
    """Networks with a linear skip and one hidden layer, each with rows of its own: (networks, n, features) at once.

    Args:
        networks: networks of the same size; their weights are copied.
    """

    def __init__(self, networks: Sequence[SkipNetwork]) -> None:
        super().__init__()
        reads, biases, last, constants = zip(*map(_weights, networks), strict=True)
        self.shape, self.width = (len(networks), *reads[0].shape), last[0].shape[0]
        # a row for each feature of each network, with all weights that read it
        self.reads = nn.Parameter(torch.cat(reads))
        self.bias, self.last = nn.Parameter(torch.stack(biases)), nn.Parameter(torch.stack(last))
        self.constant = nn.Parameter(torch.stack(constants))

    def forward(self, x: Tensor) -> Tensor:
        read = x @ self.reads.view(self.shape)
        hidden = (read[..., : self.width] + self.bias).relu()
        found: Tensor = read[..., self.width :] + hidden @ self.last + self.constant
        return found


@dataclass(frozen=True)
class NetworkStack:
    """The networks of halves of a table, trained as one: :class:`SingleNetworks` is slower, and does the same.

    It is for one hidden layer, and for features that are each a group of their own. The rows of a batch are drawn in
    another order, so that the results differ unless a batch has all rows.

    Attributes:
        estimator: the estimator of the networks.
        lam: λ.
    """

    estimator: SparseEstimator
    lam: float

    def __call__(self, tables: Sequence[Table], seeds: Sequence[int]) -> Numbers:
        """Return the importance of each feature in each table: its sensitivity."""
        features = tables[0].x.shape[1]
        n = min(distinct_rows(torch.from_numpy(table.x), features) for table in tables)
        if features <= n:
            with torch.random.fork_rng():
                return self._trained(tables, seeds)
        found = np.zeros((len(tables), features))
        groups = groups_of_features(None, (), features, None)
        seen = [promising_columns(torch.from_numpy(table.x), table.targets, groups, n) for table in tables]
        narrow = [table._replace(x=table.x[:, columns]) for table, columns in zip(tables, seen, strict=True)]
        with torch.random.fork_rng():
            importances = self._trained(narrow, seeds)
        for own, columns, values in zip(found, seen, importances, strict=True):
            own[columns] = values
        return found

    def _trained(self, tables: Sequence[Table], seeds: Sequence[int]) -> Numbers:
        rows = max(len(table.x) for table in tables)
        x = torch.stack([_padded(torch.from_numpy(table.x), rows) for table in tables])
        packed = torch.stack([_padded(table.targets.packed, rows) for table in tables]).to(x.dtype)
        shares = torch.stack([_padded(_shares(table)[:, None], rows) for table in tables])[..., 0]
        packed[..., -1] *= rows / packed[..., -1].sum(dim=1, keepdim=True)  # padding has the weight 0
        network, loss = self._network(tables[0], seeds).to(x.dtype), tables[0].targets.packed_loss
        optimizer = ProxAdam(self._groups(network), lr=self.estimator.lr)
        size = min(rows, self.estimator.batch_size)
        batches = max(1, rows // size)
        scheduler = CosineAnnealingLR(optimizer, self.estimator.epochs * batches)
        torch.manual_seed(seeds[0])
        for _ in range(self.estimator.epochs):
            order = torch.randperm(rows)
            for batch in range(batches):
                own = order[batch * size : (batch + 1) * size] if batches > 1 else slice(None)
                outputs, targets = network(x[:, own]), packed[:, own]
                optimizer.zero_grad()
                mean = loss(outputs.flatten(0, 1), targets.flatten(0, 1))
                (len(tables) * mean).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                scheduler.step()
        return sensitivities(network, x, shares.to(x.dtype)).numpy()

    def _network(self, table: Table, seeds: Sequence[int]) -> StackedNetworks:
        made = []
        for seed in seeds:
            torch.manual_seed(seed)
            made.append(self.estimator._network(table.x.shape[1], table.targets))
        return StackedNetworks(made)  # type: ignore[arg-type]  # the estimator has no module of its own

    def _groups(self, network: StackedNetworks) -> list[dict[str, object]]:
        """Return the groups that ``param_groups`` makes for one network with ``Inputs``."""
        penalty = self.estimator._penalty(Rows(weighted=False))
        return [
            {"params": [network.reads], "penalty": penalty, "lam": self.lam},
            {"params": [network.last], "penalty": None, "lam": 0.0, "weight_decay": self.lam},
            {"params": [network.bias, network.constant], "penalty": None, "lam": 0.0},
        ]


def networks_of(estimator: Any, groups: FeatureGroups, table: Table) -> tuple[SingleNetworks | NetworkStack, int]:
    """Return the faster way to train the networks of an estimator on halves of a table, and how many to train at once.

    Raises:
        ValueError: λ is not a number, or features are counted.
    """
    if isinstance(estimator.lam, str) or estimator.features is not None:
        raise ValueError(
            "stability selection with hidden layers needs an estimator with a number as lam, and without features; "
            f"got lam={estimator.lam!r}, features={estimator.features!r}"
        )
    is_plain = not estimator.module and len(estimator.hidden) == 1 and not estimator.early_stopping
    single = len(groups.members) == groups.features and not groups.kept
    if not is_plain or not single or not isinstance(table.targets, Targets):
        return SingleNetworks(estimator, groups, float(estimator.lam)), 1
    size = len(table.x) * min(table.x.shape)  # a network sees at most as many features as rows
    return NetworkStack(estimator, float(estimator.lam)), max(1, min(STACK, NUMBERS // size))


def _weights(network: SkipNetwork) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the weights that read features, (features, hidden + outputs), the biases, and the weights after them."""
    values = {name: value.detach() for name, value in network.named_parameters()}
    reads = torch.cat([values["layers.0.weight"], values["skip.weight"]]).mT
    return reads, values["layers.0.bias"][None], values["layers.2.weight"].mT, values["layers.2.bias"][None]


def _shares(table: Table) -> Tensor:
    """Return the weight of each row in a mean over the rows, (n,)."""
    return table.targets.weights / table.targets.weights.sum()


def _padded(values: Tensor, rows: int) -> Tensor:
    """Append rows of zeros."""
    return torch.cat([values, values.new_zeros(rows - len(values), values.shape[1])])
