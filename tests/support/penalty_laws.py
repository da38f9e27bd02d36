"""Penalties, blocks and weights for the laws that every penalty keeps."""

from collections.abc import Iterable

import pytest
import torch

from tests.support.pairwise import pairwise
from torchlasso.penalties import Separable, blocks, registry
from torchlasso.penalties.blocks import (
    NM,
    Blocks,
    Chunks,
    FanIn,
    Filters,
    Heads,
    InputChannels,
    Rows,
)

SHAPE = (6, 4, 3)
VARIANTS = [
    Rows(),
    Rows(weighted=False),
    Filters(),
    Filters(transposed=True, groups=2),
    InputChannels(),
    InputChannels(groups=3),
    Heads(n=3),
    Heads(n=2, dim=1),
    Heads(n=2, parts=3),
    Chunks(n=5),
    NM(2, 4),
    NM(1, 4, dim=0),
    FanIn(0.3),
    FanIn(0.3, dim=1),
]
# every other kind with its defaults
BLOCKS = [*(cls() for cls in blocks.registry().values() if cls not in set(map(type, VARIANTS))), *VARIANTS]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4, torch.bfloat16: 3e-2}


def has_rows(over: Blocks) -> bool:
    """Return whether a block is a set of weights."""
    try:
        over.rows(torch.zeros(SHAPE))
    except ValueError:
        return False
    return True


def suits(name: str, over: Blocks, *_: object) -> bool:
    return name != "sparse-group" or (has_rows(over) and over.symmetric)


def metric_suits(name: str, over: Blocks) -> bool:
    """Return whether there is a sound prox under per-coordinate steps."""
    return over.single or (has_rows(over) and name not in ("log-sum", "l-half"))


def law(**more: Iterable[object]) -> pytest.MarkDecorator:
    """Every penalty over every kind of blocks, and each of them with every other argument."""
    return pairwise(suits, name=registry(), over=BLOCKS, **more)


CONVEX = pairwise(
    suits,
    name=[name for name, penalty in registry().items() if penalty.convex],
    over=[over for over in BLOCKS if not over.spares],
)
SEPARABLE = [name for name, penalty in registry().items() if issubclass(penalty, Separable)]


def make(name: str, over: Blocks):
    return registry()[name](over=over)


def weights(seed: int, dtype=torch.float64, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(SHAPE, generator=generator, dtype=torch.float64)).to(dtype)


def objective(penalty, u, z, lam, step):
    u, z, step = u.double(), z.double(), torch.as_tensor(step, dtype=torch.float64)
    gap = ((u - z).square() / (2 * step)).sum()
    return (gap + penalty.value(u, lam)).item()


def metric(seed: int, low: float = -3, high: float = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 + seed)
    return 10 ** (low + (high - low) * torch.rand(SHAPE, generator=generator, dtype=torch.float64))
