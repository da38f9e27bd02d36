"""The report of accelerated layers, and arguments that are refused."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import torchlasso as tl
from torchlasso.inference import AccelerationReport, LayerAcceleration

Sparsified = Callable[..., nn.Module]


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))


def test_the_report() -> None:
    layers = (
        LayerAcceleration("a", "Linear", (8, 4), 0.95, "csr", {"dense": 2.0, "csr": 0.5}, ""),
        LayerAcceleration("b", "Conv2d", (4, 4, 3, 3), 0.0, "dense", {}, "no weight is zero"),
    )
    report = AccelerationReport(layers, "Compaction: No unit can be removed.", before=3.0, after=1.5)
    assert str(report).splitlines() == [
        "layer  shape    runs as   zeros  dense, ms  csr, ms",
        "a      8×4      csr      95.0 %          2      0.5",
        "b      4×4×3×3  dense     0.0 %          –        –  no weight is zero",
        "",
        "Compaction: No unit can be removed.",
        "One run takes 3 ms before and 1.5 ms after: 2.00 times as fast.",
    ]
    record = json.loads(json.dumps(report.to_dict()))
    assert record["speedup"] == 2.0
    assert record["layers"][0] == {
        "name": "a",
        "kind": "Linear",
        "shape": [8, 4],
        "sparsity": 0.95,
        "execution": "csr",
        "milliseconds": {"dense": 2.0, "csr": 0.5},
        "why": "",
    }
    assert str(AccelerationReport((), "Not compacted.", 1.0, 1.0)).startswith("layer")


@pytest.mark.parametrize("seconds", [0, -1.0, math.nan, math.inf, "1", None, True])
def test_bad_seconds_are_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match="seconds must be a finite number above 0; got"):
        tl.accelerate(mlp(), torch.randn(3, 20), seconds=seconds)


@pytest.mark.parametrize("inputs", [torch.randn(3, 7), (), (torch.randn(3, 20), 1), {"y": 1}])
def test_bad_inputs_are_refused(inputs: Any) -> None:
    with pytest.raises(ValueError, match="model does not run on example_inputs: "):
        tl.accelerate(mlp(), inputs, compact_first=False)


def test_no_inputs_are_refused() -> None:
    with pytest.raises(TypeError, match="example_inputs must be a tensor"):
        tl.accelerate(mlp(), None, compact_first=False)  # type: ignore[arg-type]


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    model = mlp()
    model.lines = (line for line in "ab")
    with pytest.raises(ValueError, match="model cannot be copied: cannot pickle 'generator' object"):
        tl.accelerate(model, torch.randn(3, 20), compact_first=False)


def test_a_model_under_a_pruning_mask_gives_the_same_outputs() -> None:
    model, x = prune.l1_unstructured(nn.Linear(20, 20), "weight", 0.9), torch.randn(3, 20)
    torch.testing.assert_close(tl.accelerate(model, x)(x), model(x))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    model = mlp()
    nn.init.constant_(model[2].weight[3, :2], value)
    with pytest.raises(ValueError, match="model has weights that are not finite, in 2"):
        tl.accelerate(model, torch.randn(3, 20), compact_first=False)


def test_inputs_of_a_wrong_shape_are_refused_in_one_line(
    sparsified: Sparsified, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    net = sparsified(mlp(), 0.5)
    with pytest.raises(ValueError, match=r"^model does not run on example_inputs: mat1 and mat2 shapes") as error:
        tl.accelerate(net, torch.ones(2, 5))
    assert "\n" not in str(error.value)
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]
    assert capfd.readouterr() == ("", "")
