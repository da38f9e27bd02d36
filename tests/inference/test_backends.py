"""Whole models by other backends: the call and the outputs of the original, and a choice for each batch size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl
from tests.support.accelerated import Branching
from torchlasso.inference.backends import ModelToRun, backends
from torchlasso.inference.by_batch_size import ByBatchSize

pytestmark = pytest.mark.slow

IMAGES = torch.randn(6, 1, 8, 8)
NEAR = {"bfloat16": 0.02, "int8": 0.1}  # relative to the outputs


class Structured(nn.Module):
    """A model with keyword arguments, and a dictionary, a tuple, None and an unused output."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(4, 5)

    def forward(self, x: Tensor, other: Tensor | None = None) -> dict[str, Any]:
        hidden = self.a(x).relu()
        return {"sum": hidden + (0 if other is None else self.b(other)), "parts": (hidden, None)}


def network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)), IMAGES
    model.train()(x)
    return model.eval(), x


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.usefixtures("one_registry")
@pytest.mark.parametrize("name", list(backends()))
@torch.no_grad()
def test_outputs_at_every_batch_size(name: str) -> None:
    if name == "openvino" and not find_spec("openvino"):
        pytest.skip("openvino is not installed")
    model, x = network()
    made = backends()[name].build(ModelToRun(model, x, torch.cat([x, x + 0.1])))
    assert made is not None
    for inputs in (x, x[:1], *([] if name == "inductor" else [torch.cat([x, x])])):  # it compiles for each
        assert relative(made(inputs), model(inputs)) <= NEAR.get(name, 1e-5)
        assert made(inputs).dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), network()[0].parameters(), strict=True))


@pytest.mark.usefixtures("one_registry")
@pytest.mark.parametrize("name", [name for name in backends() if name not in ("folded", "channels-last", "openvino")])
@torch.no_grad()
def test_the_call_and_the_structure_of_the_outputs_stay(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = Structured().eval(), {"x": torch.randn(3, 6), "other": torch.randn(3, 4)}
    made = backends()[name].build(ModelToRun(model, inputs, inputs))
    assert made is not None
    wanted, found = model(**inputs), made(**inputs)
    assert found.keys() == wanted.keys()
    assert found["parts"][1] is None
    assert relative(found["sum"], wanted["sum"]) <= NEAR.get(name, 1e-5)
    assert relative(found["parts"][0], wanted["parts"][0]) <= NEAR.get(name, 1e-5)


@pytest.mark.usefixtures("one_registry")
def test_another_length_than_the_examples_is_refused_in_one_line() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).mean(dim=1)

    x = torch.randn(2, 5, 3)
    made = backends()["onnxruntime"].build(ModelToRun(Mean(), x, x))
    assert made is not None
    with pytest.raises(ValueError, match="the model was exported for inputs of other sizes: "):
        made(torch.randn(2, 6, 3))


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace the times of the backends: one number, or one for each round, for each batch size in turn."""

    def replaced(*runs: Mapping[str, list[float]]) -> None:
        left = list(runs)

        def interleaved(functions: Mapping[str, Any], *_: Any) -> dict[str, list[float]]:
            times = left.pop(0)
            return {name: times.get(name, [9.0, 9.0, 9.0]) for name in functions}

        monkeypatch.setattr("torchlasso.inference.choosing_backend.interleaved", interleaved)

    return replaced


def test_each_batch_size_gets_its_fastest(made_up: Callable[..., None]) -> None:
    model, x = network()
    made_up({"dense": [2.0] * 3, "folded": [1.0] * 3}, {"dense": [2.0] * 3, "channels-last": [1.5] * 3})
    fast, report = tl.accelerate(
        model, x, seconds=0.01, backends=["folded", "channels-last"], batch_sizes=[2, 32], return_report=True
    )
    assert isinstance(fast, ByBatchSize)
    assert [(each.batch, each.name) for each in report.backends if each.chosen] == [
        (2, "folded"),
        (32, "channels-last"),
    ]
    assert (report.before, report.after, report.speedup) == (2000, 1000, 2)
    with torch.no_grad():
        assert relative(fast(x), model(x)) < 1e-5
    assert [fast.nearest(size) for size in (0, 1, 7, 9, 1000)] == [2, 2, 2, 32, 32]
    assert "folded ←" in str(report)
    assert report.to_dict()["backends"][1]["speed"] == 2


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ([1.96] * 3, "dense"),  # a gain of 2 %
        ([1.0, 1.9, 2.5, 2.6], "dense"),  # now faster, now slower
        ([1.9] * 3, "folded"),
    ],
)
def test_noise_is_no_gain(times: list[float], chosen: str, made_up: Callable[..., None]) -> None:
    model, x = network()
    made_up({"dense": [2.0] * len(times), "folded": times})
    fast, report = tl.accelerate(model, x, seconds=0.01, backends="folded", return_report=True)
    assert [each.name for each in report.backends if each.chosen] == [chosen]
    assert (report.after < report.before) == (chosen == "folded")
    assert any(isinstance(module, nn.BatchNorm2d) for module in fast.modules()) == (chosen == "dense")


@pytest.mark.parametrize(
    ("tolerance", "judge", "chosen"),
    [
        (0.05, None, "bfloat16"),
        (1e-6, None, "dense"),
        (0.05, lambda model: float(any(p.dtype == torch.bfloat16 for p in model.parameters())), "dense"),
        (1e-6, lambda model: 0.3, "bfloat16"),
    ],
)
def test_fewer_bits_need_a_tolerance(
    tolerance: float, judge: Callable[[nn.Module], float] | None, chosen: str, made_up: Callable[..., None]
) -> None:
    model, x = network()
    made_up({"dense": [2.0] * 3, "bfloat16": [1.0] * 3})
    _, report = tl.accelerate(
        model, x, seconds=0.01, backends=["bfloat16"], tolerance=tolerance, judge=judge, return_report=True
    )
    dense, narrow = report.backends[0], report.backends[-1]
    assert [each.name for each in report.backends if each.chosen] == [chosen]
    assert narrow.difference is not None
    assert 0 < narrow.difference < 0.02
    assert (dense.error is None) == (judge is None)
    assert bool(narrow.why) == (chosen == "dense")


def test_without_a_tolerance_all_are_the_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one whose outputs differ by more than rounding is not taken, nor one that fails."""

    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 3)

    def fails(given: ModelToRun) -> nn.Module:
        raise RuntimeError("no compiler\nhere")

    from torchlasso.inference import backends as module

    known = {"wrong": module.Backend(lambda given: Wrong()), "failing": module.Backend(fails)}
    known["idle"] = module.Backend(lambda given: None)
    known["narrow"] = module.Backend(lambda given: Wrong(), exact=False)
    monkeypatch.setattr("torchlasso.inference.accelerating.known_backends", lambda: known)
    model, x = network()
    _, report = tl.accelerate(model, x, seconds=0.01, backends="all", return_report=True)
    whys = {each.name: each.why for each in report.backends if each.name not in ("dense", "layers")}
    assert list(whys) == ["wrong", "failing", "idle"]
    assert "its outputs differ by" in whys["wrong"]
    assert whys["failing"] == "no compiler"
    assert whys["idle"] == "nothing in the model that it would change"
    assert not any(each.chosen for each in report.backends if each.name in whys)


def test_a_model_that_cannot_be_exported_says_so_and_keeps_its_layers() -> None:
    _, report = tl.accelerate(
        Branching(), torch.ones(2, 20), seconds=0.01, backends=["onnxruntime"], return_report=True
    )
    (why,) = (each.why for each in report.backends if each.name == "onnxruntime")
    assert why.startswith("the model cannot be exported")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backends": "tpu"}, "backends must be 'all' or names among folded, .*; got 'tpu'"),
        ({"backends": ["int8"]}, "the backend 'int8' changes the outputs: give a tolerance above 0"),
        ({"backends": "all", "tolerance": math.nan}, "tolerance must be a finite number, 0 or more; got nan"),
        ({"batch_sizes": [0]}, "batch_sizes must be whole numbers above 0"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tl.accelerate(nn.Linear(2, 2), torch.randn(2, 2), **options)
