"""The closed form for rows whose norm hardly changes: what the root search gives, wherever it says so."""

import pytest
import torch

import torchlasso as tl
from torchlasso.penalties.metric import shrink, shrink_near

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
LAM = 0.37


def rows(dtype: torch.dtype, n: int = 3000, size: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """z, and thresholds over many decades or nearly alike, from far below to far above the weights."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(n, 1, generator=generator, dtype=torch.float64) * 4
    level = torch.randn(n, 1, generator=generator, dtype=torch.float64) * 3 - 4
    z = torch.randn(n, size, generator=generator, dtype=torch.float64)
    threshold = torch.exp(spread * torch.randn(n, size, generator=generator, dtype=torch.float64) + level)
    return z.to(dtype), threshold.to(dtype)


def solve(z: torch.Tensor, threshold: torch.Tensor, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    metric = LAM / threshold
    u, near, _ = shrink_near(z * metric, metric, torch.tensor(LAM, dtype=z.dtype), start)
    return u, near


def error(u: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(u - expected, dim=1) / torch.linalg.vector_norm(expected, dim=1).clamp_min(1e-30)


@pytest.mark.parametrize("off", [0.0, 1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0])
@DTYPES
def test_what_is_called_near_is_the_solution_and_all_else_is_left(dtype, off):
    z, threshold = rows(dtype)
    expected, _ = shrink(z, threshold)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(len(z), generator=generator, dtype=torch.float64).to(dtype)
    start = (torch.linalg.vector_norm(expected, dim=1) * (1 + off * noise)).clamp_min(0)
    u, near = solve(z, threshold, start)
    eps = torch.finfo(dtype).eps
    assert (error(u, expected)[near] <= 16 * eps).all()
    assert torch.equal((u[near] == 0).all(dim=1), (expected[near] == 0).all(dim=1))
    torch.testing.assert_close(u[~near], z[~near], rtol=16 * eps, atol=0.0)
    if off == 0:
        assert near.all()
    else:
        assert near.any()
        assert off < 0.01 or not near.all()


@DTYPES
def test_rows_that_were_zero_stay_zero_or_are_left_to_the_search(dtype):
    z, threshold = rows(dtype)
    expected, _ = shrink(z, threshold)
    u, near = solve(z, threshold, torch.zeros(len(z), dtype=dtype))
    dead = (expected == 0).all(dim=1)
    assert 0 < dead.sum() < len(dead)
    assert torch.equal(near, dead)
    assert not u[near].any()


def test_a_row_that_dies_is_left_to_the_search():
    # one weight: its own norm, and a threshold beyond it
    z, start = torch.tensor([[0.05], [0.05], [0.5]]), torch.tensor([0.06, 0.02, 0.45])
    u, near = solve(z, torch.tensor([[0.1], [0.051], [0.1]]), start)
    assert near.tolist() == [False, False, True]
    torch.testing.assert_close(u, torch.tensor([[0.05], [0.05], [0.4]]))


@DTYPES
def test_what_is_not_a_number_does_not_become_zero(dtype):
    z, threshold = rows(dtype, n=4)
    z[0, 3] = float("nan")
    threshold[1, 5] = float("nan")
    for start in (torch.ones(4, dtype=dtype), torch.zeros(4, dtype=dtype)):
        u, _ = solve(z, threshold, start)
        assert u[0, 3].isnan()
        assert u[1].isnan().any()


@pytest.mark.parametrize("penalty", [tl.L1(), tl.ElasticNet(ratio=0.3)], ids=str)
@DTYPES
def test_penalties_do_by_it_what_they_do_for_all_rows(dtype, penalty):
    z, step = rows(dtype)
    lam = torch.tensor(LAM, dtype=dtype)
    expected = penalty.prox_rows(z, LAM, step)
    start = torch.linalg.vector_norm(expected, dim=1) * 1.0005
    u, near, _ = penalty.prox_near_rows(z / step, 1 / step, lam, start)
    eps = torch.finfo(dtype).eps
    assert near.any()
    assert (error(u, expected)[near] <= 32 * eps).all()
    torch.testing.assert_close(u[~near], z[~near], rtol=32 * eps, atol=0.0)


def test_a_penalty_without_it_says_so():
    with pytest.raises(NotImplementedError):
        tl.MCP().prox_near_rows(torch.ones(1, 1), torch.ones(1, 1), torch.ones(()), torch.ones(1))
