"""The sparse points of a warm-started path, as `torchlasso path` trains them: they stay far from guessing."""

import pytest
import torch
from sklearn import datasets
from torch import nn

import torchlasso as tl
from torchlasso import models
from torchlasso.path import Grid, Point, Recipe, follow
from torchlasso.training.plan import Plan

pytestmark = pytest.mark.slow


def digits() -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    """Read 1,200 rows to train with and 597 others, after another permutation than theirs, which is by writer."""
    found = datasets.load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(found.images, dtype=torch.float32)[:, None][order] / 8 - 1
    y = torch.tensor(found.target)[order]
    return (x[:1200], y[:1200]), (x[1200:], y[1200:])


def points_of(model: nn.Module) -> list[Point]:
    train, test = digits()
    recipe = Recipe(
        Grid(6, sparsest=0.987),
        groups=lambda model: tl.param_groups(model, tl.L1(), lam=1.0),
        optimizer=lambda groups: tl.ProxAdam(groups, lr=5e-3, form="latent"),
        loss=nn.functional.cross_entropy,
        dense=Plan(30, batch_size=32, schedule="wsd", warmup=0.05),
        each=Plan(8, batch_size=32, schedule="wsd", warmup=0.05),
        theta=0.05,
        hold=0.25,
        lam=0.05,
        collapse=1.0,
    )
    return list(follow(model, recipe, train, test))


def test_sparse_points_are_far_from_guessing():
    """A λ by the sizes of trained layers, for one, left 16 % errors at 96.8 % zeros."""
    torch.manual_seed(0)
    points = points_of(models.build("lenet-5", (1, 8, 8), 10))
    errors = [point.validation.error for point in points]
    assert [point.sparsity for point in points[1:]] == pytest.approx([0.5, 0.799, 0.919, 0.968, 0.987], abs=2e-3)
    assert max(errors) < 0.1, errors
