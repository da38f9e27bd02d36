"""Hooks of every kind run once and at their time, whatever the implementation."""

import copy

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.implementations import EACH, FEW, build_as, options_of, random_gradients, run, wide
from tests.support.optimizers import CASES


def one_weight(case: str, implementation: str, lam: float = 1e4) -> tuple[nn.Parameter, tl.Proximal]:
    w = nn.Parameter(torch.full((3,), 0.5, dtype=torch.float64))
    return w, tl.proximal(CASES[case][0])([w], penalty=tl.L1(), lam=lam, **options_of(case, implementation))


@EACH
@FEW
def test_step_hooks_run_once_before_the_update_and_after_the_prox(case, implementation):
    w, optimizer = one_weight(case, implementation)
    seen = []
    optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append(("before", w.tolist())))
    handle = optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append(("after", w.tolist())))
    for _ in range(2):
        random_gradients([w], 0)
        optimizer.step()
    handle.remove()
    optimizer.step()
    full, zero = [0.5] * 3, [0.0] * 3
    assert seen == [("before", full), ("after", zero), ("before", zero), ("after", zero), ("before", zero)]


@EACH
@FEW
def test_a_hook_before_the_step_may_change_gradients_and_the_closure(case, implementation):
    w, optimizer = one_weight(case, implementation, lam=0.0)
    calls = []
    optimizer.register_step_pre_hook(lambda o, args, kwargs: nn.utils.clip_grad_value_([w], 0.0))
    optimizer.register_step_pre_hook(lambda o, args, kwargs: ((o, lambda: calls.append("new closure")), {}))
    w.grad = torch.ones_like(w)
    optimizer.param_groups[0]["weight_decay"] = 0.0
    optimizer.step(lambda: calls.append("closure"))
    assert calls == ["new closure"]
    assert (w == 0.5).all()


@EACH
@FEW
def test_a_closure_is_evaluated_once_with_gradients_and_its_loss_returned(case, implementation):
    explicit, closed = wide(), wide()
    optimizers = [build_as(implementation, case, model) for model in (explicit, closed)]
    losses = []

    def closure():
        assert torch.is_grad_enabled()
        optimizers[1].zero_grad()
        losses.append((closed(torch.ones(2, 6, dtype=torch.float64)) - 1).square().mean())
        losses[-1].backward()
        return losses[-1]

    for step in range(5):
        optimizers[0].zero_grad()
        (explicit(torch.ones(2, 6, dtype=torch.float64)) - 1).square().mean().backward()
        optimizers[0].step()
        with torch.no_grad():
            assert optimizers[1].step(closure) is losses[-1]
        assert len(losses) == step + 1
    for p, q in zip(explicit.parameters(), closed.parameters(), strict=True):
        assert torch.equal(p, q)


@EACH
@FEW
def test_hooks_around_a_state_dict_see_and_change_it(case, implementation):
    model = wide()
    optimizer = build_as(implementation, case, model)
    run(model, optimizer, range(3))
    seen = []
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("before"))
    optimizer.register_state_dict_post_hook(lambda o, state: seen.append("after"))
    optimizer.register_state_dict_post_hook(lambda o, state: {**state, "more": 1})
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("first"), prepend=True)
    state = optimizer.state_dict()
    assert seen == ["first", "before", "after"]
    assert state["more"] == 1
    assert "lam" in state["param_groups"][0]


@EACH
@FEW
def test_hooks_around_loading_see_and_change_it(case, implementation):
    model = wide()
    optimizer = build_as(implementation, case, model)
    run(model, optimizer, range(3))
    saved = copy.deepcopy(optimizer.state_dict())
    seen = []

    def halve(o, state):
        seen.append("before")
        state = copy.deepcopy(state)
        for group in state["param_groups"]:
            group["lam"] /= 2
        return state

    optimizer.register_load_state_dict_pre_hook(halve)
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append(("after", o.param_groups[0]["lam"])))
    optimizer.register_load_state_dict_pre_hook(lambda o, state: seen.append("first"), prepend=True)
    lam = optimizer.param_groups[0]["lam"]
    optimizer.load_state_dict(saved)
    assert seen == ["first", "before", ("after", lam / 2)]
    assert saved["param_groups"][0]["lam"] == lam


@EACH
@FEW
def test_an_exception_in_the_closure_leaves_everything_as_it_was(case, implementation):
    w, optimizer = one_weight(case, implementation, lam=0.1)
    random_gradients([w], 0)
    optimizer.step()
    before = copy.deepcopy((optimizer.state_dict(), w.tolist()))

    def closure():
        raise KeyError("no batch")

    with pytest.raises(KeyError, match="no batch"):
        optimizer.step(closure)
    assert str(before) == str((optimizer.state_dict(), w.tolist()))


@EACH
@FEW
def test_an_optimizer_for_each_parameter_can_step_in_the_backward_pass(case, implementation):
    # one optimizer for each parameter, stepped as soon as its gradient is there, to save its memory
    together, apart = wide(), wide()
    optimizer = build_as(implementation, case, together)
    run(together, optimizer, range(10))
    cls, options = tl.proximal(CASES[case][0]), options_of(case, implementation)
    lam = optimizer.param_groups[0]["lam"]
    penalised = {id(p) for group in tl.param_groups(apart, tl.L1(), lam=lam)[:1] for p in group["params"]}
    each = {p: cls([p], penalty=tl.L1(), lam=lam if id(p) in penalised else 0.0, **options) for p in apart.parameters()}

    def step_now(p):
        each[p].step()
        each[p].zero_grad()

    for p in apart.parameters():
        p.register_post_accumulate_grad_hook(step_now)
    run(apart, torch.optim.SGD(apart.parameters(), lr=0.1), range(10))  # finds no gradients left
    for p, q in zip(together.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)
        assert torch.equal(p == 0, q == 0)
