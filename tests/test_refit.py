"""Refitting: zeros stay exactly zero under every optimizer, and a lasso solution becomes the least squares solution."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from torchlasso.optim.metrics import known_metrics
from torchlasso.training.refit import freeze_zeros

pytestmark = pytest.mark.slow

Maker = Callable[[Iterable[Any]], Optimizer]

MAKERS: dict[str, Maker] = {
    **{cls.__name__: (lambda params, cls=cls: cls(params, lr=0.01)) for cls in known_metrics()},
    "AdamW with weight decay": lambda params: AdamW(params, lr=0.01, weight_decay=0.5),
    "Adam with weight decay and amsgrad": lambda params: Adam(params, lr=0.01, weight_decay=0.1, amsgrad=True),
    "Adam over all tensors together": lambda params: Adam(params, lr=0.01, foreach=True),
    "Adam in one kernel": lambda params: Adam(params, lr=0.01, fused=True),
    "SGD with momentum": lambda params: SGD(params, lr=0.01, momentum=0.9),
    "SGD with Nesterov's momentum and weight decay": lambda params: SGD(
        params, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1
    ),
}


def sparse_model() -> nn.Sequential:
    """With two thirds of the weights zero, and biases that are not."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))
    for p in weights_of(model):
        with torch.no_grad():
            p[torch.rand_like(p) < 2 / 3] = 0.0
    return model


def weights_of(model: nn.Module) -> list[Tensor]:
    return [p for p in model.parameters() if p.dim() == 2]


def rows_of(n: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 6, generator=generator), torch.randn(n, 3, generator=generator)


def train(model: nn.Module, optimizer: Optimizer, steps: int) -> list[float]:
    x, y = rows_of()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_zeros_stay_exactly_zero_and_the_rest_is_trained(make: Maker) -> None:
    model = sparse_model()
    before = [p.clone() for p in weights_of(model)]
    optimizer = make(model.parameters())
    freeze_zeros(optimizer, weights_of(model))
    losses = train(model, optimizer, 30)
    assert losses[-1] < losses[0]
    for w, old in zip(weights_of(model), before, strict=True):
        zeros = old == 0
        assert 0 < int(zeros.sum()) < w.numel()
        assert int(w[zeros].count_nonzero()) == 0
        assert bool((w != old)[~zeros].any())


def test_without_it_they_do_not_stay() -> None:
    model = sparse_model()
    train(model, Adam(model.parameters(), lr=0.01), 2)
    assert all(bool(w.all()) for w in weights_of(model))


def test_remaining_weights_train_as_if_the_zeros_did_not_exist() -> None:
    """The gradients of the zeros are all that is changed: a smaller model is trained."""
    x, y = rows_of()
    full, small = nn.Linear(6, 3, bias=False), nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        full.weight[:, 2:] = 0.0
        small.weight.copy_(full.weight[:, :2])
    optimizers = [Adam(model.parameters(), lr=0.05) for model in (full, small)]
    freeze_zeros(optimizers[0], [full.weight])
    for _ in range(20):
        for model, optimizer, seen in ((full, optimizers[0], x), (small, optimizers[1], x[:, :2])):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(seen), y).backward()
            optimizer.step()
    assert torch.allclose(full.weight[:, :2], small.weight, rtol=1e-5, atol=1e-6)


def test_a_closure_does_not_move_the_zeros_either() -> None:
    model, (x, y) = sparse_model(), rows_of()
    zeros = [w == 0 for w in weights_of(model)]
    optimizer = SGD(model.parameters(), lr=0.01)
    freeze_zeros(optimizer, weights_of(model))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)  # type: ignore[arg-type]
    for w, mask in zip(weights_of(model), zeros, strict=True):
        assert int(w[mask].count_nonzero()) == 0


def test_only_the_given_parameters_are_held() -> None:
    """Biases and other weights that are zero are free, and a weight that becomes zero later is, too."""
    w, b = nn.Parameter(torch.tensor([0.0, 0.5])), nn.Parameter(torch.zeros(1))
    optimizer = SGD([w, b], lr=0.5)
    freeze_zeros(optimizer, [w])
    for gradient in ([7.0, 1.0], [7.0, -1.0]):  # the second weight goes to 0 and comes back
        w.grad, b.grad = torch.tensor(gradient), torch.ones(1)
        optimizer.step()
        assert w[0] == 0
        assert w[1] == (0.0 if gradient[1] > 0 else 0.5)
    assert b.item() == -1


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    w, idle = nn.Parameter(torch.tensor([0.0, 1.0])), nn.Parameter(torch.tensor([0.0, 2.0]))
    optimizer = Adam([w, idle], lr=0.1)
    freeze_zeros(optimizer, [w, idle])
    w.grad = torch.ones(2)
    optimizer.step()
    assert w.tolist() == pytest.approx([0.0, 0.9])
    assert idle.tolist() == [0.0, 2.0]


def test_the_handle_ends_it() -> None:
    model = sparse_model()
    zeros = [w == 0 for w in weights_of(model)]
    optimizer = Adam(model.parameters(), lr=0.01)
    handle = freeze_zeros(optimizer, weights_of(model))
    train(model, optimizer, 3)
    handle.remove()
    assert all(int(w[mask].count_nonzero()) == 0 for w, mask in zip(weights_of(model), zeros, strict=True))
    train(model, optimizer, 1)
    assert all(bool((w[mask] != 0).any()) for w, mask in zip(weights_of(model), zeros, strict=True))


def test_the_state_of_the_optimizer_is_as_if_the_zeros_did_not_exist() -> None:
    """A checkpoint holds nothing of the refit, and a loaded one continues to the same weights."""

    def begun() -> tuple[nn.Module, Optimizer]:
        model = sparse_model()
        optimizer = Adam(model.parameters(), lr=0.01)
        freeze_zeros(optimizer, weights_of(model))
        return model, optimizer

    (whole, optimizer), (first, own), (second, loaded) = begun(), begun(), begun()
    train(whole, optimizer, 6)
    train(first, own, 3)
    assert set(own.state_dict()) == {"state", "param_groups"}
    second.load_state_dict(first.state_dict())
    loaded.load_state_dict(own.state_dict())
    train(second, loaded, 3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_an_optimizer_that_has_made_steps_is_refused() -> None:
    model = sparse_model()
    optimizer = Adam(model.parameters(), lr=0.01)
    train(model, optimizer, 1)
    with pytest.raises(ValueError, match=r"has made steps already, .* make a new one"):
        freeze_zeros(optimizer, weights_of(model))


@pytest.mark.parametrize("strength", [0.05, 0.4])
def test_the_refit_of_a_lasso_solution_is_least_squares_on_its_support(strength: float) -> None:
    rng = np.random.default_rng(0)
    X, true = rng.normal(size=(80, 12)), np.r_[2.0, -1.5, 1.0, np.zeros(9)]
    y = X @ true + 0.5 * rng.normal(size=80)
    lasso = Lasso(alpha=strength, fit_intercept=False, tol=1e-10).fit(X, y)
    support = lasso.coef_ != 0
    assert 0 < support.sum() < 12
    model = nn.Linear(12, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(lasso.coef_)[None])
    rate = 1 / (2 * np.linalg.eigvalsh(X.T @ X / 80).max())  # 1/L of the mean squared error
    optimizer = SGD(model.parameters(), lr=rate)
    freeze_zeros(optimizer, [model.weight])
    inputs, targets = torch.from_numpy(X), torch.from_numpy(y)[:, None]
    for _ in range(400):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
    expected = np.zeros(12)
    expected[support] = np.linalg.lstsq(X[:, support], y, rcond=None)[0]
    found = model.weight.detach().numpy()[0]
    assert np.abs(found - expected).max() < 1e-5
    assert (found[~support] == 0).all()
    assert np.abs(found).sum() > np.abs(lasso.coef_).sum()  # no more shrunk
