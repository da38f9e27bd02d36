"""The closed form for rows near their norm, on rows of every kind over many decades: errors of rounding and no more."""

import pytest
import torch

import torchlasso as tl
from torchlasso.penalties.diagonal_prox import shrink, shrink_near

N = 500
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
# decades over which the metric is spread within a row
SPREADS = pytest.mark.parametrize("decades", [0.0, 0.1, 2.0, 6.0, 12.0])
SIZES = pytest.mark.parametrize("size", [1, 2, 7, 60])
CASES = {"L1": tl.L1(), "ElasticNet": tl.ElasticNet(l1_ratio=0.3)}
EACH = pytest.mark.parametrize("name", CASES)


def rows(decades: float, size: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """d·z, d and λ of rows from far above their threshold to just below it, and another random number for each row."""
    generator = torch.Generator().manual_seed(size)
    uniform = [torch.rand(N, n, generator=generator, dtype=torch.float64) for n in (size, 1, 1, 1)]
    metric = 10 ** (decades * (uniform[0] - 0.5) + 6 * (uniform[1] - 0.5))
    z = torch.randn(N, size, generator=generator, dtype=torch.float64)
    lam = torch.tensor(0.03, dtype=torch.float64)
    size_of = torch.linalg.vector_norm(metric * z, dim=1, keepdim=True)
    z = z * lam / size_of * 10 ** (6 * uniform[2] - 0.3)
    return (metric * z).to(dtype), metric.to(dtype), lam.to(dtype), 2 * uniform[3][:, 0].to(dtype) - 1


def quotient(scaled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """d·z as a quotient, whose denominators are powers of two so that nothing is rounded."""
    under = 2.0 ** torch.arange(-3, 4, dtype=scaled.dtype)[torch.arange(scaled.shape[1]) % 7]
    return scaled * under, under.expand_as(scaled)


def error(u: torch.Tensor, expected: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """In units of rounding of the largest weight of a row before it is shrunk."""
    size = z.abs().amax(dim=1, keepdim=True) * torch.finfo(u.dtype).eps
    return ((u.double() - expected).abs() / size).amax(dim=1)


def solved(name: str, scaled, metric, lam) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """In float64: z, the solution by the search, and its norm."""
    z, step = scaled.double() / metric.double(), 1 / metric.double()
    u = CASES[name].prox_rows(z, lam.double(), step)
    return z, u, torch.linalg.vector_norm(u, dim=1)


@EACH
@SIZES
@SPREADS
@DTYPES
def test_a_row_is_the_solution_or_is_left_alone(dtype, decades, size, name):
    scaled, metric, lam, random = rows(decades, size, dtype)
    z, expected, norm = solved(name, scaled, metric, lam)
    for off in (0.0, 1e-12, 1e-6, 1e-3, 0.03, 0.3, 3.0):  # of the guess from the norm
        start = (norm * (1 + off * random.double())).clamp_min(0).to(dtype)
        u, near = CASES[name].prox_near_rows(*quotient(scaled), metric, lam, start)
        assert u.dtype == dtype
        assert (error(u, expected, z)[near] < 16).all(), off
        assert (error(u, z, z)[~near] < 16).all(), off
        assert torch.equal((u[near] == 0).all(dim=1), (expected[near] == 0).all(dim=1)), off
        assert off or near.all()


@EACH
@SIZES
@DTYPES
def test_a_row_that_is_alike_in_metric_is_solved_from_afar(dtype, size, name):
    # the norm is linear then, and nothing is cut off
    scaled, metric, lam, random = rows(0.0, size, dtype)
    z, expected, norm = solved(name, scaled, metric, lam)
    start = (norm * (1 + 0.05 * random.double())).to(dtype)
    u, near = CASES[name].prox_near_rows(*quotient(scaled), metric, lam, start)
    assert near[norm > 1e-2 * torch.linalg.vector_norm(z, dim=1)].all()
    assert (error(u, expected, z)[near] < 16).all()


@SIZES
@SPREADS
@DTYPES
def test_a_row_that_was_zero_stays_exactly_zero_up_to_its_threshold(dtype, decades, size):
    scaled, metric, _, _ = rows(decades, size, dtype)
    norm = torch.linalg.vector_norm(scaled.double(), dim=1)
    start = torch.zeros(N, dtype=dtype)
    lam = torch.tensor(0.03, dtype=dtype)
    for share, zero in ((1 - 1e-5, True), (0.5, True), (0.0, True), (1 + 1e-5, False)):
        given = (scaled.double() * (share * lam.double() / norm)[:, None]).to(dtype)
        u, near = shrink_near(*quotient(given), metric, lam, start)
        assert torch.equal(near, torch.full((N,), zero))
        assert zero == (not u.any())


@EACH
@DTYPES
def test_nan_never_becomes_zero(dtype, name):
    scaled, metric, lam, _ = rows(2.0, 7, dtype)
    for value in (float("nan"), float("inf")):
        scaled[:, 3] = value
        for start in (0.0, 1e-3, 1.0, float("nan")):
            u, near = CASES[name].prox_near_rows(*quotient(scaled), metric, lam, torch.full((N,), start, dtype=dtype))
            assert not near.any(), (value, start)
            assert not u[:, 3].isfinite().any(), (value, start)


@DTYPES
def test_nan_never_becomes_zero_by_the_search(dtype):
    scaled, metric, lam, _ = rows(2.0, 7, dtype)
    scaled[:, 3] = float("nan")
    u, _ = shrink(scaled / metric, lam / metric)
    assert u[:, 3].isnan().all()


def test_a_row_that_dies_is_left_to_the_search():
    # one weight: its own norm, and a threshold beyond it
    z, start = torch.tensor([[0.05], [0.05], [0.5]]), torch.tensor([0.06, 0.02, 0.45])
    metric = 1 / torch.tensor([[0.1], [0.051], [0.1]])
    u, near = shrink_near(*quotient(z * metric), metric, torch.tensor(1.0), start)
    assert near.tolist() == [False, False, True]
    torch.testing.assert_close(u, torch.tensor([[0.05], [0.05], [0.4]]))


def test_a_penalty_without_it_says_so():
    with pytest.raises(NotImplementedError):
        tl.MCP().prox_near_rows(*[torch.ones(1, 1)] * 3, torch.ones(()), torch.ones(1))
