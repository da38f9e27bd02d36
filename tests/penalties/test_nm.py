"""n of each m: which weights are spared, against all ways to choose them, and what training ends with."""

import itertools

import pytest
import torch
from torch import nn

import torchlasso as tl
from torchlasso.penalties import registry

SHAPE = (5, 10, 2)  # runs of four and a last one of two
NAMES = [name for name in registry() if name != "sparse-group"]


def random(seed: int, low: float = 0.0, high: float = 0.0) -> torch.Tensor:
    """Standard normal; or powers of ten between two exponents."""
    generator = torch.Generator().manual_seed(seed)
    if low == high:
        return torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    return 10 ** (low + (high - low) * torch.rand(SHAPE, generator=generator, dtype=torch.float64))


def runs(t: torch.Tensor, m: int = 4) -> list[torch.Tensor]:
    return [part[o, :, i] for part in t.split(m, dim=1) for o in range(SHAPE[0]) for i in range(SHAPE[2])]


def by_enumeration(penalty: tl.Separable, z: torch.Tensor, lam: float, step: torch.Tensor, n: int) -> torch.Tensor:
    """Return the least Σ (u − z)²/(2·step) + φ over the penalised weights, for every choice of the spared ones."""
    u = penalty.prox(z, lam, step)
    cost = (u - z).square() / (2 * step) + penalty.phi(u.abs(), lam)
    choices = itertools.combinations(range(len(z)), max(0, len(z) - n))
    return min(cost[list(choice)].sum() for choice in choices)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", ["common", "each its own"])
def test_the_prox_is_the_best_of_all_choices(name: str, n: int, steps: str) -> None:
    penalty, single = registry()[name](over=tl.NM(n, 4)), registry()[name]()
    for seed in range(5):
        z = random(seed)
        step = torch.full(SHAPE, 0.7).double() if steps == "common" else random(seed + 50, -3, 1)
        u = penalty.prox(z, 0.3, 0.7 if steps == "common" else step)
        best = [by_enumeration(single, a, 0.3, b, n) for a, b in zip(runs(z), runs(step), strict=True)]
        found = ((u - z).square() / (2 * step)).sum() + penalty.value(u, 0.3)
        torch.testing.assert_close(found, torch.stack(best).sum())


def test_the_value_counts_all_but_the_largest() -> None:
    w = random(1)
    expected = sum(run.abs().sort(descending=True).values[2:].sum() for run in runs(w))
    torch.testing.assert_close(tl.L1(over=tl.NM(2, 4)).value(w, 0.5), 0.5 * expected)


def test_not_the_largest_but_the_dearest_are_spared() -> None:
    """If steps differ, shrinking a large weight that moves easily can cost less than a smaller one."""
    w, step = torch.tensor([[1.0, 0.9]]), torch.tensor([[10.0, 0.01]])
    assert tl.L1(over=tl.NM(1, 2)).prox(w, 1.0, step).tolist() == [[0.0, pytest.approx(0.9)]]
    assert tl.L1(over=tl.NM(1, 2)).prox(w, 1.0, 0.1).tolist() == [[1.0, pytest.approx(0.8)]]


def test_a_large_strength_leaves_n_of_each_m_as_they_were() -> None:
    w = random(2)
    u = tl.L1(over=tl.NM(2, 4)).prox(w, 1e6, 1.0)
    for before, after in zip(runs(w), runs(u), strict=True):
        kept = before.abs().topk(2).indices
        assert torch.equal(after.nonzero()[:, 0], kept.sort().values)
        assert torch.equal(after[kept], before[kept])


def test_the_certificate_takes_the_best_choice_among_zeros() -> None:
    """The limiting subdifferential where w = 0: [−λ, λ] for all but n of a run, 0 for those."""
    grad = torch.tensor([[0.4, -0.05, 2.0, 0.1]])
    distance = tl.L1(over=tl.NM(2, 4)).subdiff_distance(torch.zeros(1, 4), grad, 0.5)
    torch.testing.assert_close(distance, torch.tensor([[0.0, 0.05, 1.5, 0.1]]))


def test_runs_lie_along_the_inputs_of_a_layer() -> None:
    assert tl.L1(over=tl.NM()).fit(nn.ConvTranspose2d(8, 4, 3), "weight").over == tl.NM(2, 4, dim=0)
    assert tl.L1(over=tl.NM()).fit(nn.Conv2d(8, 4, 3), "weight").over == tl.NM(2, 4, dim=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tl.NM(4, 4), "n must be below m"),
        (lambda: tl.NM(0, 4), "n must be a whole number of at least 1"),
        (lambda: tl.NM(2, 4.0), "m must be a whole number of at least 1"),
        (lambda: tl.L1(over=tl.NM()).prox(torch.ones(4), 1.0, 1.0), "at least 2 dimensions"),
        (lambda: tl.SparseGroup(over=tl.NM()).value(torch.ones(4, 4), 1.0), "has no groups"),
    ],
)
def test_impossible_options_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("optimizer", [tl.ProxAdam, tl.ProxAdamW, tl.ProxSGD], ids=lambda cls: cls.__name__)
def test_training_ends_with_two_of_four(optimizer: type[tl.Proximal]) -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 16)
    truth = torch.zeros(3, 16)
    truth[:, ::4], truth[:, 2::4] = 1.0, -2.0
    y = x @ truth.T + 0.1 * torch.randn(400, 3)
    layer = nn.Linear(16, 3)
    rate = 0.3 if optimizer is tl.ProxSGD else 0.02
    ours = optimizer(tl.param_groups(layer, tl.L1(over=tl.NM(2, 4)), lam=0.5), lr=rate, weight_decay=0.0)
    warmup = tl.Warmup(ours, steps=200)
    for _ in range(400):
        ours.zero_grad()
        (layer(x) - y).square().mean().backward()
        ours.step()
        warmup.step()
    assert torch.equal(layer.weight != 0, truth != 0)
    refit = torch.linalg.lstsq(torch.cat([x[:, truth[0] != 0], torch.ones(400, 1)], dim=1), y).solution
    found = torch.cat([layer.weight[:, truth[0] != 0].T, layer.bias[None]])
    torch.testing.assert_close(found, refit, atol=2e-3, rtol=0)  # kept weights are not shrunk
    assert tl.stationarity([{**g, "lam": 0.5} for g in ours.penalised_groups()]).max < 0.02
