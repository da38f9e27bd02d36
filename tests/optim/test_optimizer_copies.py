"""Copies, pickles and state dicts of optimizers in mid-training go on alike."""

import copy
import io
import json
import pickle

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.optimizers import (
    CASES,
    EVERY,
    LAM,
    STEPS,
    backward,
    build,
    build_plain,
    cosine,
    flat,
    identical,
    network,
    train,
)

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda what: pickle.loads(pickle.dumps(what))}


@pytest.mark.parametrize("how", COPIES)
@EVERY
def test_a_copy_made_in_mid_training_continues_alike(case, how):
    model = network()
    optimizer = build(case, model)
    scheduler = cosine(optimizer)
    train(model, optimizer, range(15), scheduler)
    twin, twin_optimizer, twin_scheduler = COPIES[how]((model, optimizer, scheduler))
    at_copy = flat(twin)
    train(model, optimizer, range(15, STEPS), scheduler)
    assert torch.equal(flat(twin), at_copy), "the copy shares no weights"
    assert not identical(model, twin)
    train(twin, twin_optimizer, range(15, STEPS), twin_scheduler)
    assert twin_optimizer.penalties == optimizer.penalties
    assert identical(model, twin)
    assert (flat(model) == 0).any()


@pytest.mark.parametrize("how", COPIES)
@EVERY
def test_a_copy_is_of_the_same_class(case, how):
    optimizer = build(case, network())
    twin = COPIES[how](optimizer)
    assert isinstance(twin, type(optimizer))
    assert isinstance(twin, CASES[case][0])


class UsersAdam(tl.ProxAdam):
    """A class that a user derives."""


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_derived_class_is_of_the_same_class(how):
    optimizer = UsersAdam([nn.Parameter(torch.ones(2))], penalty=tl.L1(), lam=0.1)
    assert isinstance(COPIES[how](optimizer), UsersAdam)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_takes_new_groups_with_the_arguments_of_the_original(how):
    optimizer = tl.ProxSGD([nn.Parameter(torch.ones(2))], lr=1.0, penalty=tl.MCP(), lam=0.25, averaging=False)
    twin = COPIES[how](optimizer)
    twin.add_param_group({"params": [nn.Parameter(torch.ones(3))]})
    assert twin.penalties == [tl.MCP(), tl.MCP()]
    assert twin.param_groups[1]["lam"] == 0.25
    assert twin.param_groups[1]["averaging"] is False
    assert len(optimizer.param_groups) == len(optimizer.penalties) == 1


@EVERY
def test_resuming_from_a_file_is_exact(case):
    model = network()
    optimizer = build(case, model)
    scheduler = cosine(optimizer)
    train(model, optimizer, range(15), scheduler, silent=lambda step: [model[2].weight] if step < 4 else [])
    file = io.BytesIO()
    torch.save({"m": model.state_dict(), "o": optimizer.state_dict(), "s": scheduler.state_dict()}, file)
    train(model, optimizer, range(15, STEPS), scheduler)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = network(seed=1)
    resumed.load_state_dict(saved["m"])
    fresh = build(case, resumed, lam=0.5)
    again = cosine(fresh)
    fresh.load_state_dict(saved["o"])
    again.load_state_dict(saved["s"])
    assert fresh.param_groups[0]["lam"] == LAM, "λ is part of the file"
    train(resumed, fresh, range(15, STEPS), again)
    assert identical(model, resumed)


@EVERY
def test_the_options_of_the_groups_survive_json(case):
    model = network()
    optimizer = build(case, model)
    scheduler = cosine(optimizer)
    train(model, optimizer, range(15), scheduler)
    saved = optimizer.state_dict()
    groups = json.loads(json.dumps(saved["param_groups"]))
    for ours, theirs in zip(groups, saved["param_groups"], strict=True):
        assert ours == {key: list(v) if isinstance(v, tuple) else v for key, v in theirs.items()}
    twin = copy.deepcopy(model)
    fresh = build(case, twin)
    fresh.load_state_dict({"state": copy.deepcopy(saved["state"]), "param_groups": groups})
    backward(model, 15)
    backward(twin, 15)
    optimizer.step()
    fresh.step()
    assert identical(model, twin)


@EVERY
def test_training_resumes_from_the_file_of_the_plain_optimizer(case):
    model = network()
    plain = build_plain(case, model)
    train(model, plain, range(15))
    twin = copy.deepcopy(model)
    optimizer = build(case, twin, lam=0.0, averaging=False)
    optimizer.load_state_dict(copy.deepcopy(plain.state_dict()))
    train(model, plain, range(15, STEPS))
    train(twin, optimizer, range(15, STEPS))
    assert identical(model, twin)


@EVERY
def test_the_file_of_the_plain_optimizer_leaves_lam_and_penalties_as_they_are(case):
    model = network()
    plain = build_plain(case, model)
    train(model, plain, range(5))
    optimizer = build(case, model, lam=0.125, averaging=False)
    optimizer.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert [group["lam"] for group in optimizer.param_groups] == [0.125, 0.0]
    assert [group["averaging"] for group in optimizer.param_groups] == [False, False]
    assert optimizer.penalties == [tl.L1(), None]
    optimizer.param_groups[0]["lam"] = 100.0
    train(model, optimizer, range(5, 15))
    assert not model[0].weight.any()
