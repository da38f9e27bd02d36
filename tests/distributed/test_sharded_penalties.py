"""Every penalty over every kind of blocks agrees on sharded and on whole tensors, on every process."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode

import torchlasso as tl
from tests.support.cluster import Cluster
from torchlasso.distributed.sharding import local, shared_like
from torchlasso.penalties import Penalty, registry

CLUSTER = Cluster()
# One process has more rows than the other, and then all of them.
SHARDINGS = {
    (3, 6): [Shard(0), Shard(1), Replicate()],
    (5, 3, 2): [Shard(0), Shard(1)],
    (1, 6): [Shard(0)],
}
BLOCKS = [
    tl.Elements(),
    tl.Rows(),
    tl.Columns(),
    tl.Filters(),
    tl.Filters(transposed=True),
    tl.Filters(transposed=True, groups=3),
    tl.InputChannels(),
    tl.InputChannels(groups=3),
    tl.InputChannels(transposed=True),
    tl.Heads(n=3),
    tl.Heads(n=2, dim=1),
    tl.Chunks(n=3),
    tl.Chunks(n=7),
    tl.SingularValues(),
    tl.NM(2, 4),
    tl.NM(1, 2, dim=0),
    tl.FanIn(0.3),
]
# A separable penalty is a function of magnitudes, and its blocks alone say which weights make up one: all blocks with a
# penalty that is convex, one that is not and one that is not separable, such that any two of penalty, blocks and
# sharding meet; with the others, blocks cut in each way.
ALL_BLOCKS = ("l1", "mcp", "sparse-group")
FEW_BLOCKS = [tl.Elements(), tl.Rows(), tl.Columns(), tl.Chunks(n=3), tl.SingularValues()]
LAM = 0.3


def suits(penalty: Penalty, w: torch.Tensor, step: float | torch.Tensor) -> bool:
    try:
        penalty.prox(w, LAM, step)
    except ValueError:
        return False
    return True


def same(sharded: torch.Tensor, plain: torch.Tensor, what: str) -> None:
    assert not isinstance(sharded, DTensor), what
    torch.testing.assert_close(sharded, plain, rtol=1e-9, atol=1e-12, msg=lambda text: f"{what}: {text}")


def for_each(check) -> None:
    """Call ``check(w, sharded w, grad, sharded grad, what)`` for every shape and placement."""
    mesh = init_device_mesh("cpu", (2,))
    for shape, placements in SHARDINGS.items():
        torch.manual_seed(0)
        w, grad = torch.randn(2, *shape, dtype=torch.float64)
        w[:, 0] = 0.0
        for placement in placements:
            shards = (distribute_tensor(t, mesh, [placement]) for t in (w, grad))
            check(w, next(shards), grad, next(shards), f"{shape} {placement}")


def compare(name: str) -> None:
    calls = itertools.count()

    def check(w, dw, grad, dgrad, what):
        compared, call = 0, next(calls)
        blocks = BLOCKS[(ALL_BLOCKS.index(name) - call) % 3 :: 3] if name in ALL_BLOCKS else FEW_BLOCKS
        for over in blocks:
            if name == "sparse-group" and over == tl.SingularValues():
                continue
            penalty, metric = registry()[name](over=over), grad.exp()
            about = f"{over} {what}"
            if not suits(penalty, w, 1.0):  # blocks that do not divide this shape
                continue
            compared += 1
            for step, dstep in ((0.7, 0.7), (metric, dgrad.exp())):
                if suits(penalty, w, step):
                    new = penalty.prox(dw, LAM, dstep)
                    assert new.placements == dw.placements, about
                    assert new.to_local().shape == dw.to_local().shape, about
                    same(new.full_tensor(), penalty.prox(w, LAM, step), f"prox {about}")
            same(penalty.subdiff_distance(dw, dgrad, LAM), penalty.subdiff_distance(w, grad, LAM), f"distance {about}")
            same(penalty.support(dw), penalty.support(w), f"support {about}")
            same(penalty.lambda_max(dgrad), penalty.lambda_max(grad), f"lambda_max {about}")
            value, dvalue = (penalty.value(nn.Parameter(t), LAM) for t in (w, dw))
            same(dvalue.detach(), value.detach(), f"value {about}")
        assert compared > 1

    for_each(check)


def compare_gradients(name: str) -> None:
    def check(w, dw, grad, dgrad, what):
        for over in BLOCKS:
            penalty = registry()[name](over=over)
            if not suits(penalty, w, 1.0) or over == tl.SingularValues():
                continue
            plain, sharded = nn.Parameter(w + 1), nn.Parameter(dw + 1)
            (2 * penalty.value(plain, LAM)).backward()
            (2 * penalty.value(sharded, LAM)).backward()
            assert sharded.grad.placements == sharded.placements
            same(sharded.grad.full_tensor(), plain.grad, f"gradient {over} {what}")

    for_each(check)


for each in registry():
    CLUSTER.scenario(f"{each} is as on one process", each)(compare)
for each in ("l1", "mcp", "sparse-group"):
    CLUSTER.scenario(f"{each} has the gradient of one process", each)(compare_gradients)


@CLUSTER.scenario("a λ for each block")
def one_lam_for_each() -> None:
    def check(w, dw, grad, dgrad, what):
        penalty = tl.L1(over=tl.Rows())
        lam = torch.rand(len(w), dtype=w.dtype)
        same(penalty.prox(dw, lam, 0.5).full_tensor(), penalty.prox(w, lam, 0.5), what)
        same(penalty.value(dw, lam), penalty.value(w, lam), what)
        for strength in (grad.abs(), dgrad.abs()):  # the adaptive lasso
            same(tl.L1().prox(dw, strength, 0.5).full_tensor(), tl.L1().prox(w, grad.abs(), 0.5), what)

    torch.manual_seed(3)
    for_each(check)


@CLUSTER.scenario("bfloat16")
def half_precision() -> None:
    def check(w, dw, grad, dgrad, what):
        for over in (tl.Elements(), tl.Rows(), tl.Columns()):
            penalty, half, dhalf = tl.L1(over=over), w.bfloat16(), dw.to(torch.bfloat16)
            new = penalty.prox(dhalf, LAM, 0.5)
            assert new.dtype == torch.bfloat16
            same(new.full_tensor(), penalty.prox(half, LAM, 0.5), what)
            assert penalty.value(dhalf, LAM).dtype == penalty.value(half, LAM).dtype == torch.float32

    for_each(check)


def is_cut(penalty: Penalty, dw: DTensor) -> bool:
    """Return whether a process holds less than whole blocks."""
    dims = penalty.whole_along(dw)
    return not all(placement.is_replicate() or placement.dim in dims for placement in dw.placements)


@CLUSTER.scenario("the weights that a penalty keeps")
def kept() -> None:
    def check(w, dw, grad, dgrad, what):
        most = w.abs().quantile(0.8)
        few, dfew = w.abs() > most, shared_like(dw, local(dw).abs() > most)
        for over in BLOCKS:
            for cls in (tl.L1, tl.SparseGroup):
                penalty = cls(over=over)
                if (cls is tl.SparseGroup and over == tl.SingularValues()) or not suits(penalty, w, 1.0):
                    continue
                with CommDebugMode() as talk:
                    found = penalty.alive(dfew)
                assert found.placements == dw.placements
                assert torch.equal(found.full_tensor(), penalty.alive(few)), f"{penalty} {what}"
                assert cls is tl.SparseGroup or bool(talk.get_total_counts()) == is_cut(penalty, dw)

    for_each(check)


@CLUSTER.scenario("a prox communicates only where the sharding cuts blocks")
def silent() -> None:
    def check(w, dw, grad, dgrad, what):
        for over in BLOCKS:
            for cls in (tl.L1, tl.MCP, tl.SparseGroup):
                penalty = cls(over=over)
                if (cls is tl.SparseGroup and over == tl.SingularValues()) or not suits(penalty, w, 1.0):
                    continue
                with CommDebugMode() as talk:
                    penalty.prox(dw, LAM, 0.5)
                assert bool(talk.get_total_counts()) == is_cut(penalty, dw), f"{penalty} {what}"
        assert not is_cut(tl.L1(), dw)
        assert is_cut(tl.L1(over=tl.Rows()), dw) == (dw.placements == (Shard(1),))
        assert is_cut(tl.L1(over=tl.Columns()), dw) == (dw.placements == (Shard(0),))

    for_each(check)


@CLUSTER.scenario("a user's penalty without support for shards")
def homemade() -> None:
    class Largest(Penalty):
        """λ times the largest weight: no sum over blocks."""

        def value(self, w, lam):
            return lam * w.abs().max()

        def prox(self, w, lam, step):
            return w.clamp(-1, 1) * (w.norm() / (1 + w.norm()))

        def subdiff_distance(self, w, grad, lam):
            return (w - grad).norm()[None]

        def support(self, w):
            return (w != 0).reshape(-1)

        def lambda_max(self, grad):
            return grad.abs().sum()

    def check(w, dw, grad, dgrad, what):
        penalty = Largest()
        assert is_cut(penalty, dw) == (dw.placements != (Replicate(),))
        assert torch.equal(penalty.alive(dw != 0).full_tensor(), w != 0)
        same(penalty.prox(dw, lam=LAM, step=1.0).full_tensor(), penalty.prox(w, LAM, 1.0), what)
        same(penalty.value(dw, lam=LAM), penalty.value(w, LAM), what)
        same(penalty.subdiff_distance(dw, grad=dgrad, lam=LAM), penalty.subdiff_distance(w, grad, LAM), what)
        same(penalty.support(dw), penalty.support(w), what)
        same(penalty.lambda_max(dgrad), penalty.lambda_max(grad), what)

    for_each(check)


@pytest.mark.parametrize("name", CLUSTER.scenarios)
def test_sharded(name, check):
    check(name)
