"""State dicts, copies and memory that others write to: whatever the implementation, nothing is kept out of sight."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.implementations import (
    ALL,
    EACH,
    FEW,
    IMPLEMENTATIONS,
    NAMES,
    OTHER_IMPLEMENTATIONS,
    STEPS,
    assert_alike,
    build_as,
    options_of,
    random_gradients,
    run,
    same,
    snapshot,
    wide,
)
from tests.support.optimizers import CASES, cosine, flat, identical
from tests.support.pairwise import pairwise

HALF, REST = range(STEPS // 2), range(STEPS // 2, STEPS)


def through_a_file(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda what: pickle.loads(pickle.dumps(what))}
WAYS = {"deepcopy": copy.deepcopy, "file": through_a_file, "as it is": lambda state: state}


@pairwise(case=NAMES, implementation=IMPLEMENTATIONS, way=WAYS)
def test_training_resumes_from_a_state_dict_to_the_last_bit(case, implementation, way):
    model = wide()
    optimizer = build_as(implementation, case, model)
    scheduler = cosine(optimizer)
    run(model, optimizer, HALF, scheduler)
    saved = WAYS[way]({"m": model.state_dict(), "o": optimizer.state_dict(), "s": scheduler.state_dict()})
    twin = wide(seed=1)
    fresh = build_as(implementation, case, twin, lam=0.5)
    again = cosine(fresh)
    twin.load_state_dict(saved["m"])
    fresh.load_state_dict(copy.deepcopy(saved["o"]) if way == "as it is" else saved["o"])
    again.load_state_dict(saved["s"])
    run(model, optimizer, REST, scheduler)
    run(twin, fresh, REST, again)
    assert identical(model, twin)
    assert same(optimizer.state_dict(), fresh.state_dict())
    assert (flat(model) == 0).any()


@pairwise(case=NAMES, implementation=IMPLEMENTATIONS, how=COPIES)
def test_a_copy_in_mid_training_continues_alike_and_separately(case, implementation, how):
    model = wide()
    optimizer = build_as(implementation, case, model)
    scheduler = cosine(optimizer)
    run(model, optimizer, HALF, scheduler)
    twin, other, again = COPIES[how]((model, optimizer, scheduler))
    kept = snapshot(other, *twin.parameters())
    run(model, optimizer, REST, scheduler)
    assert same(kept, snapshot(other, *twin.parameters())), "nothing is shared"
    run(twin, other, REST, again)
    assert identical(model, twin)
    assert same(optimizer.state_dict(), other.state_dict())


@EACH
@ALL
def test_loading_in_mid_training_restores_the_earlier_state(case, implementation):
    model = wide()
    optimizer = build_as(implementation, case, model)
    scheduler = cosine(optimizer)
    run(model, optimizer, HALF, scheduler)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), scheduler.state_dict()))
    run(model, optimizer, REST, scheduler)
    first = flat(model)
    for part, state in zip((model, optimizer, scheduler), saved, strict=True):
        part.load_state_dict(state)
    run(model, optimizer, REST, scheduler)
    assert torch.equal(first, flat(model))


@pairwise(case=NAMES, before=IMPLEMENTATIONS, after=IMPLEMENTATIONS)
def test_the_file_of_one_implementation_is_read_by_another(case, before, after):
    model, twin = wide(), wide(seed=1)
    optimizer, other = build_as(before, case, model), build_as(after, case, twin)
    schedulers = cosine(optimizer), cosine(other)
    run(model, optimizer, HALF, schedulers[0])
    twin.load_state_dict(model.state_dict())
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    schedulers[1].load_state_dict(schedulers[0].state_dict())
    for group in other.param_groups:  # the file says how its steps were computed
        group.update({"foreach": None, "fused": None, **IMPLEMENTATIONS[after]})
    run(model, optimizer, REST, schedulers[0])
    run(twin, other, REST, schedulers[1])
    assert_alike(flat(model), flat(twin))
    assert (flat(model) == 0).any()


@EACH
@ALL
def test_an_optimizer_that_has_not_stepped_has_a_state_dict(case, implementation):
    model, twin = wide(), wide()
    optimizer, other = (build_as(implementation, case, m) for m in (model, twin))
    assert optimizer.state_dict()["state"] == {}
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    run(model, optimizer, HALF)
    run(twin, other, HALF)
    assert identical(model, twin)


@EACH
@FEW
def test_a_state_dict_of_another_shape_is_refused_and_changes_nothing(case, implementation):
    model = wide()
    optimizer = build_as(implementation, case, model)
    run(model, optimizer, HALF)
    before = snapshot(optimizer, *model.parameters())
    fewer = copy.deepcopy(optimizer.state_dict())
    del fewer["param_groups"][1]
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict(fewer)
    smaller = copy.deepcopy(optimizer.state_dict())
    smaller["param_groups"][0]["params"].pop()
    with pytest.raises(ValueError, match="doesn't match the size of optimizer's group"):
        optimizer.load_state_dict(smaller)
    assert same(before, snapshot(optimizer, *model.parameters()))


@EACH
@FEW
def test_state_is_cast_to_the_precision_of_the_parameters(case, implementation):
    model = wide()
    optimizer = build_as(implementation, case, model)
    run(model, optimizer, HALF)
    single = copy.deepcopy(model).float()
    other = build_as(implementation, case, single)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for p in single.parameters():
        for name, value in other.state[p].items():
            assert name == "step" or value.dtype == torch.float32
    run(model, optimizer, REST)
    run(single, other, REST)
    torch.testing.assert_close(flat(single).double(), flat(model), rtol=1e-3, atol=1e-4)


# --- what others write between two steps ---


@EACH
@ALL
def test_state_is_updated_in_place(case, implementation):
    model = wide()
    optimizer = build_as(implementation, case, model)
    run(model, optimizer, range(2))
    shallow = optimizer.state_dict()["state"]
    deep = copy.deepcopy(shallow)
    run(model, optimizer, range(2, 4))
    assert same(shallow, optimizer.state_dict()["state"]), "a state dict refers to the tensors, as in torch"
    assert not shallow or not same(shallow, deep)


def replace_weights(model, optimizer) -> None:
    for p in model.parameters():
        p.data = p.data.clone()  # as nn.Module.to does


def write_weights(model, optimizer) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.5)


def write_state(model, optimizer) -> None:
    for p in model.parameters():
        for value in optimizer.state[p].values():
            value.mul_(0.5) if value is not None and value.dim() else None


def replace_state(model, optimizer) -> None:
    for p in model.parameters():
        for name, value in optimizer.state[p].items():
            optimizer.state[p][name] = None if value is None else value * 1.0


def forget_state(model, optimizer) -> None:
    if "betas" in optimizer.defaults:  # the gain of a buffer of SGD would then be unknown
        optimizer.state.clear()
        for group in optimizer.param_groups:
            group["gains"] = [0.0] * len(group["params"])
            group["plain_gains"] = [0.0] * len(group["params"])


CHANGES = [replace_weights, write_weights, write_state, replace_state, forget_state]


@pairwise(case=NAMES, implementation=OTHER_IMPLEMENTATIONS, change=CHANGES)
def test_changes_between_two_steps_apply_to_the_next(case, implementation, change):
    results = []
    for name in ("one by one", implementation):
        model = wide()
        optimizer = build_as(name, case, model)
        scheduler = cosine(optimizer)
        for step in range(STEPS):
            run(model, optimizer, [step], scheduler)
            if step in (0, 1, 9):
                change(model, optimizer)
        results.append(flat(model))
    assert_alike(*results)
    assert (results[0] == 0).any()


@EACH
@FEW
def test_weights_replaced_by_others_of_another_precision_are_stepped(case, implementation):
    w = nn.Parameter(torch.linspace(-1, 1, 9, dtype=torch.float64))
    optimizer = tl.proximal(CASES[case][0])([w], penalty=tl.L1(), lam=0.5, **options_of(case, implementation))
    for dtype in (torch.float64, torch.float32):
        w.grad = None
        w.data = w.data.to(dtype)
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # casts the state
        for seed in range(5):
            random_gradients([w], seed)
            optimizer.step()
    assert w.dtype == torch.float32
    assert w.isfinite().all()
    assert (w == 0).any()


def stepped(groups, cls=tl.ProxAdam, **options) -> tl.Proximal:
    optimizer = cls(groups, lr=0.1, **options)
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    optimizer.step()
    return optimizer


def two_groups() -> list[dict]:
    return [{"params": [torch.ones(2, n, requires_grad=True)], "penalty": tl.L1(), "lam": 0.1} for n in (3, 4)]


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (lambda: stepped(two_groups()[::-1]), r"a parameter of shape \(2, 3\) has the shape \(2, 3\), and its state "),
        (lambda: stepped(two_groups(), form="latent"), "form='latent', and this optimizer has form='proximal'"),
        (lambda: stepped(two_groups(), tl.ProxSGD), "another optimizer, whose groups have no betas, eps"),
    ],
    ids=["other order", "other form", "other optimizer"],
)
def test_a_state_of_other_groups_is_refused_and_changes_nothing(saved, message):
    optimizer = stepped(two_groups())
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=f"^load_state_dict: .*{message}"):
        optimizer.load_state_dict(saved().state_dict())
    assert str(optimizer.state_dict()) == str(before)
