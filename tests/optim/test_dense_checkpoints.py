"""Dense checkpoints: the state of a plain optimizer with other groups, and penalties that come in mid-training."""

import copy

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.optimizers import CASES, EVERY, backward, flat, network


def plain_run(case: str, steps: int = 12) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = network()
    base, options = CASES[case]
    optimizer = base(model.parameters(), **options)
    for step in range(steps):
        backward(model, step)
        optimizer.step()
    return model, optimizer


@EVERY
def test_a_dense_training_goes_on_as_it_would_have(case):
    """At λ = 0 the next steps are those of the plain optimizer, though the groups are others."""
    model, plain = plain_run(case)
    twin = copy.deepcopy(model)
    base, options = CASES[case]
    optimizer = tl.proximal(base)(tl.param_groups(twin, tl.L1(), lam=0.0), **options)
    optimizer.load_plain_state_dict(copy.deepcopy(plain.state_dict()), twin)
    for step in range(12, 18):
        for each, one in ((model, plain), (twin, optimizer)):
            backward(each, step)
            one.step()
    torch.testing.assert_close(flat(twin), flat(model), rtol=1e-6, atol=1e-7)


def test_groups_of_the_plain_optimizer_in_another_order():
    model = network()
    weights = [p for p in model.parameters() if p.dim() > 1]
    biases = [p for p in model.parameters() if p.dim() == 1]
    plain = torch.optim.AdamW([{"params": biases, "weight_decay": 0.0}, {"params": weights}], lr=0.02)
    backward(model, 0)
    plain.step()
    optimizer = tl.ProxAdamW(tl.param_groups(model, tl.L1(), lam=0.1), lr=0.02)
    optimizer.load_plain_state_dict(plain.state_dict(), [*biases, *weights])
    for p in model.parameters():
        assert torch.equal(optimizer.state[p]["exp_avg"], plain.state[p]["exp_avg"])
    assert all(gain == pytest.approx(0.1) for gain in optimizer.param_groups[0]["gains"])
    backward(model, 1)
    optimizer.step()
    with pytest.raises(ValueError, match=r"exp_avg of .* has the shape .*, and the parameter"):
        optimizer.load_plain_state_dict(plain.state_dict(), [biases[1], biases[0], *weights])
    with pytest.raises(ValueError, match="is that of 4 parameters, params has 2 and this optimizer 4"):
        optimizer.load_plain_state_dict(plain.state_dict(), weights)


def test_a_penalty_that_comes_in_mid_training():
    model = network()
    groups = tl.param_groups(model, [tl.Rule("0.*", None), tl.Rule("*", tl.L1())], lam=0.01)
    optimizer = tl.ProxAdam(groups, lr=0.02)
    index = next(i for i, penalty in enumerate(optimizer.penalties) if penalty is None)
    for step in range(10):
        backward(model, step)
        optimizer.step()
    first = next(p for p in optimizer.param_groups[index]["params"] if p.dim() > 1)
    assert first.all()
    age = int(optimizer.state[first]["step"])
    optimizer.set_penalty(index, tl.L1(), 0.3)
    for step in range(10, 60):
        backward(model, step)
        optimizer.step()
    assert (first == 0).sum() > 0
    assert int(optimizer.state[first]["step"]) == age + 50
    optimizer.set_penalty(index, None)
    assert optimizer.penalties[index] is None
    assert optimizer.param_groups[index]["lam"] == 0
    with pytest.raises(ValueError, match="lam must be a finite number of at least 0"):
        optimizer.set_penalty(index, tl.L1(), -1.0)
    with pytest.raises(ValueError, match="no sound prox under a per-coordinate step"):
        optimizer.set_penalty(index, tl.LogSum(over=tl.Rows()), 0.1)
    assert optimizer.penalties[index] is None


def test_a_new_penalty_under_a_controller_has_its_factor():
    w = nn.Parameter(torch.ones(3))
    optimizer = tl.ProxSGD([w], lr=0.1, penalty=tl.L1(), lam=0.4)
    control = tl.Warmup(optimizer, steps=4)
    control.step()
    optimizer.set_penalty(0, tl.ElasticNet(), 0.8)
    assert control.lam == [0.2]
    control.step()
    assert control.lam == [0.4]
