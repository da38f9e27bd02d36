"""The kernels of the fused step: compiled once, for every number and size."""

import gc

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.implementations import FEW, assert_alike, options_of, random_gradients
from tests.support.optimizers import CASES
from torchlasso.optim.fused import inductor, rows

SHAPES = [(0,), (1,), (2,), (15,), (16,), (17,), (3, 5), (1000,), (4, 3, 3, 3)]


def weights(shapes=SHAPES, dtype=torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype)) for s in shapes]


def build(case: str, ws, penalty=None, implementation: str = "fused", **options) -> tl.Proximal:
    given = {"penalty": penalty or tl.L1(), "lam": 0.3, **options_of(case, implementation), **options}
    return tl.proximal(CASES[case][0])(ws, **given)


def train(optimizer, ws, steps=range(10)) -> torch.Tensor:
    for step in steps:
        random_gradients(ws, step)
        optimizer.step()
    return torch.cat([w.detach().reshape(-1) for w in ws])


@pytest.fixture
def compiled(monkeypatch) -> list:
    """Record the kernels that are compiled from now on."""
    seen = []
    for kernel in (inductor.Kernel, rows.RowKernel):

        def counted(self, *args, make=kernel.__init__):
            seen.append(args)
            make(self, *args)

        monkeypatch.setattr(kernel, "__init__", counted)
    return seen


OTHERS = {
    "MCP": (tl.MCP(gamma=3.0), tl.MCP(gamma=5.0)),
    "elastic net over rows": (
        tl.ElasticNet(over=tl.Rows(), l1_ratio=0.5),
        tl.ElasticNet(over=tl.Rows(), l1_ratio=0.25),
    ),
}


# each optimizer and each kind once; the kernels are those of other tests too
@pytest.mark.parametrize(
    ("case", "kind"), [("SGD momentum", "elastic net over rows"), ("Adam", "MCP"), ("AdamW", "MCP")]
)
def test_other_numbers_and_other_shapes_compile_nothing(compiled, case, kind):
    penalty, other = OTHERS[kind]
    ws = weights([(4, 6), (7,)])
    optimizer = build(case, ws, penalty)
    train(optimizer, ws)
    known = len(compiled)
    group = optimizer.param_groups[0]
    changes = {"lr": 0.03, "lam": 0.1, "weight_decay": group["weight_decay"] * 2}
    changes |= {"betas": (0.5, 0.7), "eps": 1e-3} if "Adam" in case else {"momentum": 0.4, "dampening": 0.2}
    for name, value in changes.items():
        group[name] = value
        train(optimizer, ws, range(2))
    optimizer.penalties[0] = other
    train(optimizer, ws, range(2))
    more = weights([(2, 3), (40, 40), (5, 2, 3, 3), (123,)])
    optimizer.add_param_group({"params": more})
    train(optimizer, more, range(2))
    assert len(compiled) == known


@FEW
def test_every_length_is_stepped_as_by_the_reference(case):
    results = []
    for implementation in ("one by one", "fused"):
        ws = weights()
        results.append(train(build(case, ws, implementation=implementation), ws))
    assert_alike(*results)
    assert (results[0] == 0).any()


@pytest.mark.parametrize(("case", "penalty"), [("SGD momentum", tl.L1()), ("Adam", tl.L1(over=tl.Rows()))], ids=str)
def test_threads_make_no_difference(compiled, case, penalty):
    shapes = [(300, 400), (17,), (2, 3)]
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            ws = weights(shapes)
            results.append(train(build(case, ws, penalty, lam=0.02), ws, range(4)))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert_alike(result, results[0])
    assert results[0].any()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["SGD momentum", "AdamW"])  # Adam keeps what AdamW does
def test_nothing_is_kept_that_the_plain_optimizer_does_not_keep(case):
    def kept(make) -> tuple[int, int]:
        ws = weights([(64, 64), (64,)], torch.float32)
        optimizer = make(ws)
        train(optimizer, ws)
        for w in ws:
            w.grad = None
        gc.collect()
        mine = {id(t): t for t in [*ws, *(s for state in optimizer.state.values() for s in state.values())]}
        tensors = [t for t in gc.get_objects() if type(t) in (torch.Tensor, nn.Parameter) and id(t) not in mine]
        return sum(t.nbytes for t in mine.values() if t is not None), sum(t.nbytes for t in tensors)

    kept(lambda ws: build(case, ws))  # what belongs to the kernels themselves, once for a process
    gc.freeze()  # the objects of other tests, of which there are millions, are looked through no more
    try:
        ours = kept(lambda ws: build(case, ws))
        theirs = kept(lambda ws: CASES[case][0](ws, **options_of(case, "fused")))
    finally:
        gc.unfreeze()
    assert ours[0] == theirs[0]
    assert ours[1] <= theirs[1] + 1024
