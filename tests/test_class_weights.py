"""The weights of classes in a loss, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from torch import nn

import torchlasso as tl
from torchlasso.training.class_weights import WeightedCrossEntropy


def rows(n: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), n, replacement=True, generator=generator)
    x = torch.randn(n, 4, generator=generator)
    x[:, :3] += nn.functional.one_hot(y, 3)
    return x, y


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    _, y = rows()
    weights = WeightedCrossEntropy.balanced(y, 3)
    assert weights.tolist() == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=y.numpy()))
    assert float(weights[y].mean()) == pytest.approx(1)
    with_one_more = WeightedCrossEntropy.balanced(y, 4)
    assert with_one_more.tolist() == [*weights.tolist(), 0.0]


def test_the_loss_is_that_of_weighted_rows() -> None:
    outputs, y = rows()[0][:, :3], rows()[1]
    loss = WeightedCrossEntropy(WeightedCrossEntropy.balanced(y, 3))(outputs, y)
    likely = outputs.double().softmax(dim=1).numpy()
    assert loss.item() == pytest.approx(
        log_loss(y.numpy(), likely, sample_weight=compute_sample_weight("balanced", y.numpy())), rel=1e-5
    )


def test_the_loss_of_all_rows_is_the_mean_of_those_of_its_parts() -> None:
    """So that processes, and batches of an evaluation, add up."""
    outputs, y = rows()[0][:, :3], rows()[1]
    loss = WeightedCrossEntropy(WeightedCrossEntropy.balanced(y, 3), label_smoothing=0.1)
    parts = [loss(outputs[part], y[part]) * len(part) for part in torch.arange(len(y)).split(50)]
    assert loss(outputs, y).item() == pytest.approx(sum(parts).item() / len(y), rel=1e-6)


@pytest.mark.slow
def test_a_linear_model_reaches_the_solution_of_scikit_learn() -> None:
    x, y = rows()
    y = (y > 0).long()
    lam = 0.03
    theirs = LogisticRegression(
        l1_ratio=1, C=1 / (lam * len(y)), class_weight="balanced", solver="saga", max_iter=10_000, tol=1e-8
    )
    theirs.fit(x.numpy(), y.numpy())
    model, loss = nn.Linear(4, 1), WeightedCrossEntropy(WeightedCrossEntropy.balanced(y, 2))
    nn.init.zeros_(model.weight)
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=lam), lr=0.05)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1500)
    for _ in range(1500):
        optimizer.zero_grad()
        logit = model(x)
        loss(torch.cat([torch.zeros_like(logit), logit], dim=1), y).backward()
        optimizer.step()
        scheduler.step()
    assert model.weight[0].tolist() == pytest.approx(theirs.coef_[0].tolist(), abs=2e-3)
    assert ((model.weight[0] == 0) == (torch.from_numpy(theirs.coef_[0]).abs() < 1e-6)).all()
