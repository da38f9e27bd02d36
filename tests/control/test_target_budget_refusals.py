"""Budgets, models and samples that TargetBudget refuses, each in one line."""

import pytest
import torch
from torch import nn

import torchlasso as tl


class Unrun(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return self.used(x)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 2))

    def forward(self, x):
        return x @ self.weight


class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 2)

    def forward(self, x):
        return self.lstm(x)[0]


SAMPLE = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
BAD = {
    "none": ({}, "give one of flops, parameters, bytes, latency; got none"),
    "several": ({"flops": 0.5, "bytes": 0.5}, "give one of flops, parameters, bytes, latency; got flops, bytes"),
    "zero": ({"flops": 0}, "flops must be a finite number above 0; got 0"),
    "negative": ({"bytes": -1.0}, r"bytes must be a finite number above 0; got -1\.0"),
    "not a number": ({"parameters": float("nan")}, "parameters must be a finite number above 0; got nan"),
    "above the dense": ({"flops": 1e6}, r"flops=1e\+06 leaves nothing to save: the dense model has 12"),
    "all": ({"parameters": 8}, "parameters=8 leaves nothing to save: the dense model has 8"),
    "seconds": ({"latency": 1.5}, r"latency is a share of the dense model's, below 1; got 1\.5"),
    "steps": ({"flops": 0.5, "steps": 0}, "steps must be a whole number of at least 1"),
    "other model": ({"flops": 0.5, "model": nn.Linear(3, 2)}, "1 of the optimizer's 1 penalised parameters are not of"),
    "shape": ({"flops": 0.5, "example_inputs": SAMPLE[:, :2]}, "the forward pass on example_inputs failed: mat1 and"),
    "alike": ({"flops": 0.5, "example_inputs": torch.ones(8, 3)}, "example_inputs must be a batch of varied samples"),
    "one sample": ({"flops": 0.5, "example_inputs": SAMPLE[:1]}, "example_inputs must be a batch of varied samples"),
    "no tensor": ({"flops": 0.5, "example_inputs": ({},)}, "example_inputs must be a batch .* tuple of tensors"),
}


@pytest.mark.parametrize("cause", BAD)
def test_bad_input_is_refused_in_one_line(cause):
    changes, message = BAD[cause]
    model = nn.Linear(3, 2)
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=tl.Rows()), lam=0.1), lr=0.1)
    options = {"model": model, "example_inputs": SAMPLE, "steps": 10, **changes}
    with pytest.raises(ValueError, match=rf"^TargetBudget: {message}") as refusal:
        tl.TargetBudget(optimizer, **options)
    assert len(str(refusal.value).splitlines()) == 1
    assert optimizer.param_groups[0]["lam"] == 0.1


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (Unrun(), SAMPLE, "idle.weight is penalised, but the forward pass on example_inputs does not run its module; "),
        (Own(), SAMPLE, "weight is penalised, but its Own does not turn channels into channels, as a Linear does; "),
        (
            nn.Embedding(9, 3),
            torch.arange(9),
            "nothing that is penalised is the weight of a layer$",
        ),
        (
            Last(),
            SAMPLE[:, None],
            r"lstm\.weight_ih_l0 is penalised, but its LSTM .*, or TargetCount\(units=\.\.\.\) for units$",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_weight_that_is_not_seen_is_refused(model, x, message):
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=tl.Rows()), lam=0.1), lr=0.1)
    with pytest.raises(ValueError, match=f"^TargetBudget: {message}"):
        tl.TargetBudget(optimizer, model, x, flops=0.5, steps=10)


def test_a_budget_that_no_penalty_can_reach_is_refused():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=tl.Rows()), lam=0.1), lr=0.1)
    with pytest.raises(ValueError, match=r"parameters=0.3 cannot be reached: 0.3333 of it has no channels"):
        tl.TargetBudget(optimizer, model, SAMPLE, parameters=0.3, steps=10)


@pytest.mark.parametrize("cost", ["flops", "parameters", "bytes", "latency"])
@pytest.mark.parametrize("over", [tl.FanIn(0.3), tl.NM(1, 2)], ids=["FanIn", "NM"])
def test_blocks_that_leave_weights_of_every_output_are_refused(over, cost):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=over), lam=0.1), lr=0.1)
    name = type(over).__name__
    with pytest.raises(ValueError, match=rf"^TargetBudget: the penalties are over {name}.* no λ removes outputs; use"):
        tl.TargetBudget(optimizer, model, SAMPLE, steps=10, **{cost: 0.5})


def test_such_blocks_beside_whole_units_are_accepted():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    both = [tl.Rule("0.*", tl.L1(over=tl.Rows())), tl.Rule("2.*", tl.L1(over=tl.FanIn(0.3)))]
    optimizer = tl.ProxAdam(tl.param_groups(model, both, lam=0.1), lr=0.1)
    assert tl.TargetBudget(optimizer, model, SAMPLE, flops=0.9, steps=10).left == [1.0]


def test_biases_alone_are_refused():
    model = nn.Linear(3, 2)
    groups = tl.param_groups(model, tl.Rule("bias", tl.L1(), everything=True), lam=0.1)
    with pytest.raises(ValueError, match="nothing that is penalised is the weight of a layer"):
        tl.TargetBudget(tl.ProxAdam(groups, lr=0.1), model, SAMPLE, flops=0.5, steps=10)


def test_outputs_without_a_gradient_are_refused():
    model = nn.Sequential(nn.Linear(3, 2), nn.Softmax(dim=1))
    model.register_forward_hook(lambda module, args, output: output.argmax(dim=1))
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=tl.Rows()), lam=0.1), lr=0.1)
    with pytest.raises(ValueError, match="the model's outputs have no gradient"):
        tl.TargetBudget(optimizer, model, SAMPLE, flops=0.5, steps=10)


def test_a_plain_optimizer_is_refused():
    model = nn.Linear(3, 2)
    with pytest.raises(TypeError, match="TargetBudget controls the λ of a proximal optimizer"):
        tl.TargetBudget(torch.optim.Adam(model.parameters()), model, SAMPLE, flops=0.5, steps=10)


def test_a_layer_that_the_model_had_not_when_the_controller_was_made_is_refused():
    model, x = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(16, 3)
    rule = tl.Rule("*.weight", tl.L1(over=tl.Rows()))
    optimizer = tl.ProxSGD(tl.param_groups(model[:2], rule, lam=0.1), lr=0.1)
    control = tl.TargetBudget(optimizer, model, x, flops=0.5, steps=100)
    model.insert(2, nn.Linear(8, 8))
    optimizer.add_param_group({"params": [model[2].weight], "penalty": tl.L1(over=tl.Rows()), "lam": 0.1})
    with pytest.raises(
        ValueError, match=r"^TargetBudget: the model has grown by 2\.weight, whose cost is not counted: make"
    ):
        control.step()
