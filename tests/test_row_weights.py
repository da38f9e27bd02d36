"""Weights of rows: a row of weight 2 is two rows, and one of weight 0 is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl
from torchlasso.runs.choices import row_losses
from torchlasso.training.class_weights import WeightedCrossEntropy
from torchlasso.training.evaluation import full_gradient
from torchlasso.training.losses import LOSSES
from torchlasso.training.plan import Plan
from torchlasso.training.regularisation import Regularisation
from torchlasso.training.row_weights import CoxWeights, RowWeights
from torchlasso.training.survival import SurvivalTargets, cox
from torchlasso.training.trainer import Trainer

COUNTS = torch.arange(24) % 3  # 0, 1 or 2 of each row


def problem(kind: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 5, generator=generator)
    return x, (x[:, 0] > 0).long() if kind == "cross-entropy" else x[:, :2] + 0.1


def trainer_of(rows: tuple[Tensor, Tensor], loss: str, regularisation: Regularisation, **plan: Any) -> Trainer:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    optimizer = tl.ProxSGD(tl.param_groups(model, tl.L1(), lam=0.003), lr=0.1)
    rows = rows[0].double(), rows[1] if rows[1].dtype == torch.long else rows[1].double()
    trainer = Trainer(model, optimizer, LOSSES[loss], rows, Plan(6, len(rows[0]), **plan))
    trainer.regularisation = regularisation
    return trainer


def weighted(loss: str) -> Regularisation:
    weights = COUNTS.double()
    return Regularisation(weights=RowWeights(weights / weights.mean(), row_losses(LOSSES[loss])))


@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
def test_a_weight_is_a_number_of_rows(loss: str) -> None:
    x, y = problem(loss)
    ours = trainer_of((x, y), loss, weighted(loss))
    repeated = trainer_of((x.repeat_interleave(COUNTS, 0), y.repeat_interleave(COUNTS, 0)), loss, Regularisation())
    in_parts = trainer_of((x, y), loss, weighted(loss), parts=4)
    plain = trainer_of((x, y), loss, Regularisation())
    for trainer in (ours, repeated, in_parts, plain):
        for _ in range(6):
            trainer.run_epoch()
    found, wanted, parts, other = (
        nn.utils.parameters_to_vector(t.model.parameters()) for t in (ours, repeated, in_parts, plain)
    )
    assert torch.allclose(found, wanted, atol=1e-12)
    assert torch.allclose(parts, wanted, atol=1e-12)
    assert not torch.allclose(other, wanted, atol=1e-3)
    for trainer in (ours, repeated):
        full_gradient(trainer.model, LOSSES[loss], trainer.x, trainer.y, trainer.regularisation)
    for p, q in zip(ours.model.parameters(), repeated.model.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert torch.allclose(p.grad, q.grad, atol=1e-12)


def survival(ties: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(24, 1, generator=generator, dtype=torch.float64)
    time = torch.randperm(24, generator=generator) // (3 if ties else 1)
    return outputs, torch.stack([time.double(), (torch.rand(24, generator=generator) < 0.6).double()], dim=1)


def test_the_weight_of_a_row_in_the_loss_of_cox_is_a_number_of_rows() -> None:
    """In Breslow's form; without events of the same time it is Efron's. Rows that left are that in both forms."""
    outputs, y = survival()
    weights, rows = COUNTS.double(), torch.arange(24)
    found = CoxWeights(weights / weights.mean())(outputs, y, rows)
    time, event = y.repeat_interleave(COUNTS, 0).T
    repeated = SurvivalTargets(time, event > 0, torch.ones(len(time), dtype=torch.float64), "breslow")
    torch.testing.assert_close(found, repeated.value(outputs.repeat_interleave(COUNTS, 0)))
    outputs, y = survival(ties=True)
    counts = torch.where(y[:, 1] > 0, 1, COUNTS)
    found = len(counts) * CoxWeights(counts.double())(outputs, y, rows)
    repeated_rows = outputs.repeat_interleave(counts, 0), y.repeat_interleave(counts, 0)
    torch.testing.assert_close(found, int(counts.sum()) * cox(*repeated_rows))
    torch.testing.assert_close(CoxWeights(torch.ones(24))(outputs, y, rows), cox(outputs, y), rtol=0, atol=0)


def test_a_batch_whose_rows_have_no_weight_has_no_gradient() -> None:
    outputs, y = survival()
    outputs.requires_grad_()
    for weights in (torch.zeros(24), (y[:, 1] == 0).float(), torch.where(y[:, 0] < 20, 1.0, 0.0)):
        [slope] = torch.autograd.grad(CoxWeights(weights)(outputs, y, torch.arange(24)), [outputs])
        assert slope.isfinite().all()
        assert (slope == 0).all() == (not (weights * y[:, 1]).any())


def test_weights_of_rows_and_of_classes_are_multiplied() -> None:
    torch.manual_seed(0)
    outputs, y = torch.randn(4, 2), torch.tensor([0, 0, 0, 1])
    classes = WeightedCrossEntropy(WeightedCrossEntropy.balanced(y, 2), 0.1)
    weights = torch.tensor([0.0, 1.0, 1.0, 2.0])
    each = nn.functional.cross_entropy(outputs, y, reduction="none", label_smoothing=0.1)
    expected = (weights * torch.tensor([2 / 3, 2 / 3, 2 / 3, 2.0]) * each).mean()
    assert torch.allclose(RowWeights(weights, row_losses(classes))(outputs, y, torch.arange(4)), expected)
