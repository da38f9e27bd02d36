"""Wrong arguments raise an error at the call: one line with the argument, the expected and the given value."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import torchlasso as tl

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
PENALTIES = (tl.L1, tl.ElasticNet, tl.MCP, tl.SCAD, tl.LogSum, tl.LHalf, tl.SparseGroup)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))


def optimizer() -> tl.Proximal:
    return tl.ProxAdam(tl.param_groups(model(), tl.L1(over=tl.Rows()), lam=1e-3))


def budget(**options) -> tl.TargetBudget:
    net = model()
    rows = tl.ProxAdam(tl.param_groups(net, tl.L1(over=tl.Rows()), lam=1e-3))
    return tl.TargetBudget(rows, net, X, **{"steps": 10, **options})


def groups() -> list[dict]:
    return tl.param_groups(model(), tl.L1(), lam=1e-3)


NUMBER = "must be a number|must be a finite number"
GROUPS = r"groups must come from torchlasso\.param_groups"
WRONG = {
    # selection
    "parameters for a model": (
        lambda: tl.param_groups(model().parameters(), tl.L1(), lam=1e-3),
        r"param_groups: model must be a torch\.nn\.Module; got a generator",
    ),
    "a state for a model": (lambda: tl.param_groups(model().state_dict(), tl.L1(), lam=1), "got an OrderedDict"),
    "a class for a model": (lambda: tl.param_groups(nn.ReLU, tl.L1(), lam=1), "brackets are missing: ReLU()"),
    "a class for a penalty": (
        lambda: tl.param_groups(model(), tl.L1, lam=1),
        "the class L1 .*brackets are missing",
    ),
    **{
        f"lam {lam!r}": (lambda lam=lam: tl.param_groups(model(), tl.L1(), lam=lam), "lam must be a finite number")
        for lam in (-1, math.nan, math.inf, "1e-3", None, True)
    },
    "where is a number": (lambda: tl.Rule(3, tl.L1()), "where must be a name pattern, a module type"),
    "where has a layer": (lambda: tl.Rule((nn.Linear, nn.ReLU()), tl.L1()), "where must be a name pattern"),
    "where is no module": (lambda: tl.Rule(dict, tl.L1()), "where must be a name pattern"),
    "penalty of a rule": (lambda: tl.Rule("*", "l1"), "Rule: penalty must be a Penalty such as .*; got 'l1'"),
    "everything": (lambda: tl.Rule("*", tl.L1(), everything="no"), "everything must be True or False; got 'no'"),
    "penalty of a model": (lambda: tl.penalty(model()), f"penalty: {GROUPS}.*got a Sequential"),
    "penalty of proximal groups": (
        lambda: tl.penalty(optimizer().param_groups),
        "a group has no 'penalty'",
    ),
    "penalty of nothing": (lambda: tl.penalty([]), "must contain a group with a penalty"),
    # blocks and penalties
    **{
        f"{cls.__name__} over {shown}": (
            lambda cls=cls, over=over: cls(over=over),
            rf"{cls.__name__}: over must be blocks such as torchlasso\.Filters\(\); got {shown}",
        )
        for cls in PENALTIES
        for over, shown in (("filters", "'filters'"), (tl.Filters, "the class Filters"), (None, "None"))
    },
    "gamma": (lambda: tl.MCP(gamma="3"), "gamma must be a number; got '3'"),
    "a is missing": (lambda: tl.SCAD(a=None), "a must be a number; got None"),
    "ratio": (lambda: tl.ElasticNet(l1_ratio=True), "l1_ratio must be a number; got True"),
    "ratio of groups": (lambda: tl.SparseGroup(l1_ratio="x"), "l1_ratio must be a number from 0 to 1; got 'x'"),
    "weighted": (lambda: tl.Rows(weighted="no"), "Rows: weighted must be True or False; got 'no'"),
    "a model for weighted": (lambda: tl.Filters(model()), "Filters: weighted must be True or False; got a Sequential"),
    "weighted heads": (lambda: tl.Heads(3, n=2), "Heads: weighted must be True or False; got 3"),
    # optimizers
    "a name for an optimizer": (lambda: tl.proximal("adam"), "proximal: base must be a class .*; got 'adam'"),
    "an optimizer for its class": (lambda: tl.proximal(optimizer()), "base must be a class .*; got a ProxAdam"),
    "metric": (lambda: tl.proximal(torch.optim.LBFGS, metric="x"), "proximal: metric must be"),
    "penalty of an optimizer": (lambda: tl.ProxSGD(model().parameters(), penalty=tl.L1, lam=1), "got the class L1"),
    # reports and certificates
    "report of a list": (lambda: tl.report([1]), r"report: model must be a torch\.nn\.Module; got \[1\]"),
    "groups of a report": (lambda: tl.report(model(), model().parameters()), f"report: {GROUPS}"),
    "an optimizer for groups": (lambda: tl.report(model(), optimizer()), f"report: {GROUPS}.*got a ProxAdam"),
    "inputs of a report": (lambda: tl.report(model(), example_inputs="a"), "report: example_inputs must be a tensor"),
    "stationarity": (lambda: tl.stationarity(model()), f"stationarity: {GROUPS}"),
    "stationarity of proximal groups": (lambda: tl.stationarity(optimizer().param_groups), "a group has no 'penalty'"),
    "lambda_max": (lambda: tl.lambda_max(model().parameters()), f"lambda_max: {GROUPS}"),
    # compaction
    "compact": (lambda: tl.compact([model()], X), r"model must be a torch\.nn\.Module; got a list"),
    "inputs": (lambda: tl.compact(model(), None), "example_inputs must be a tensor, a tuple .*; got None"),
    **{
        f"multiple_of {n!r}": (lambda n=n: tl.compact(model(), X, multiple_of=n), "multiple_of must be a whole number")
        for n in (0, -1, 2.5, "8", True)
    },
    "shrink_ the wrong way round": (lambda: tl.shrink_(optimizer(), model(), X), "shrink_: model must be a torch"),
    "shrink_ without an optimizer": (lambda: tl.shrink_(model(), groups(), X), "shrink_: optimizer must be the opt"),
    "controllers": (
        lambda: tl.shrink_(model(), optimizer(), X, controllers=[optimizer()]),
        "shrink_: controllers must be controllers of λ",
    ),
    "units": (lambda: tl.Units([model()], X), "Units: model must be"),
    "units of a family": (lambda: tl.Units(model(), X, only=3), "Units: only must be a pattern .*; got 3"),
    "accelerate": (lambda: tl.accelerate([model()], X), "accelerate: model must be"),
    # controllers
    "a model for an optimizer": (
        lambda: tl.Reweighted(model()),
        "λ of a proximal optimizer .*got Sequential",
    ),
    "a class for an optimizer": (lambda: tl.TargetSparsity(tl.ProxAdam, 0.5, steps=9), "got the class ProxAdam"),
    **{
        f"steps {n!r}": (
            lambda n=n: tl.Warmup(optimizer(), steps=n),
            "Warmup: steps must be a whole number",
        )
        for n in (0, -1, 10.0, "10", None, True)
    },
    "shape": (lambda: tl.Warmup(optimizer(), steps=9, shape=3), "Warmup: shape must be a function"),
    "theta": (lambda: tl.Reweighted(optimizer(), theta="a"), f"Reweighted: theta {NUMBER}"),
    "q": (lambda: tl.Reweighted(optimizer(), q=math.nan), f"Reweighted: q {NUMBER}"),
    "reference": (lambda: tl.Reweighted(optimizer(), reference=model()), "Reweighted: reference must be a mapping"),
    "per cent": (lambda: tl.TargetSparsity(optimizer(), 95, steps=9), r"got 95; 95 per cent is 0\.95"),
    "a text for a target": (lambda: tl.TargetSparsity(optimizer(), "0.9", steps=9), "got '0.9'"),
    "scope": (lambda: tl.TargetSparsity(optimizer(), 0.5, steps=9, scope=3), "TargetSparsity: scope must be"),
    "warmup": (lambda: tl.TargetSparsity(optimizer(), 0.5, steps=9, warmup="a"), "TargetSparsity: warmup is a share"),
    "tolerance": (lambda: tl.TargetSparsity(optimizer(), 0.5, steps=9, tolerance=-1), "TargetSparsity: tolerance must"),
    "model of a budget": (lambda: tl.TargetBudget(optimizer(), [1], X, flops=0.5, steps=9), "TargetBudget: model must"),
    **{
        f"flops {n!r}": (lambda n=n: budget(flops=n), message)
        for n, message in (
            (1.5, r"flops is a share of the dense model's, below 1, or a whole number above 1; got 1\.5"),
            (1.0, r"flops is a share .*; got 1\.0"),
            (1, "flops is a share .*; got 1$"),
            (
                2,
                r"flops=2 cannot be reached: the dense model has 30, and compact leaves 10 \(0\.3333\) at least, since",
            ),
            (0, f"flops {NUMBER}"),
            (-0.5, f"flops {NUMBER}"),
            (math.nan, f"flops {NUMBER}"),
            (math.inf, f"flops {NUMBER}"),
            ("0.5", f"flops {NUMBER}"),
            (True, f"flops {NUMBER}"),
            (1e12, "leaves nothing to save"),
        )
    },
    # figures
    "layers of a model": (
        lambda: tl.figures.layers(model()),
        "layers: record must be what torchlasso",
    ),
    "axes": (lambda: tl.figures.stability([0.1], 3), "ax must be axes of matplotlib; got 3"),
    "filters of a layer": (lambda: tl.figures.filters(nn.Conv2d(1, 1, 1)), "filters: w must be .*got a Conv2d"),
    "filters of another shape": (lambda: tl.figures.filters(torch.ones(2, 9), shape=(1, 2, 3)), "do not make a weight"),
    "no filters": (lambda: tl.figures.filters(torch.ones(2, 1, 3, 3), most=0), "filters: most must be a whole number"),
    "frontier of numbers": (lambda: tl.figures.frontier([1]), "frontier: series must be a list of"),
    "frontier of one": (
        lambda: tl.figures.frontier(tl.figures.Series("a", [1.0], [1.0])),
        "a list of .*Series",
    ),
    "series": (lambda: tl.figures.Series("a", [1.0, 0.5], [1.0]), "must be equally long; got 2, 1 and 0 of them"),
    "series of texts": (lambda: tl.figures.Series("a", ["1"], [1.0]), "Series: left must be a list of numbers"),
    "inputs of a list": (lambda: tl.figures.inputs([True]), "inputs: read must be a mask .*a tensor"),
    "names of inputs": (lambda: tl.figures.inputs(torch.ones(2) > 0, names=("a",)), "for each of the 2 features"),
    "stability of a number": (lambda: tl.figures.stability(3), "stability: switched must be a list of shares; got 3"),
    "stability of texts": (lambda: tl.figures.stability(["a"]), "stability: switched must be a list of shares"),
    "training of a list": (lambda: tl.figures.training([1]), "training: runs must be a dictionary"),
    "training of numbers": (lambda: tl.figures.training({"a": [3]}), r"training: runs\['a'\] must be a list of dict"),
    "weights of models": (lambda: tl.figures.weights(model(), model()), "weights: before must be weights, a tensor"),
    "save": (lambda: tl.figures.save(model(), "x.png"), "save: axes must be axes that a figure was drawn in"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_message_is_one_line(name):
    call, message = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=message) as error:
        call()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


def test_one_controller_is_as_good_as_a_list_of_one():
    net = model()
    own = tl.ProxAdam(tl.param_groups(net, tl.L1(), lam=1e-3))
    tl.shrink_(net, own, X, controllers=tl.Warmup(own, steps=3))
