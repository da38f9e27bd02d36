"""Gradients as training loops leave them: accumulated, clipped, zeroed, set to None, missing, shared, sparse."""

import copy

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.implementations import (
    ALL,
    EACH,
    FEW,
    FEW_NAMES,
    IMPLEMENTATIONS,
    STEPS,
    assert_alike,
    build_as,
    loss_of,
    options_of,
    random_gradients,
    run,
    same,
    snapshot,
    wide,
)
from tests.support.optimizers import CASES, build_plain, cosine, flat, identical, network
from tests.support.pairwise import pairwise

# --- accumulated and clipped ---


@EACH
@ALL
def test_accumulating_over_micro_batches_is_one_large_batch(case, implementation):
    results = []
    for parts in (1, 4):
        model = wide()
        optimizer = build_as(implementation, case, model)
        scheduler = cosine(optimizer)
        for step in range(STEPS):
            generator = torch.Generator().manual_seed(step)
            x, y = (torch.randn(8, n, generator=generator, dtype=torch.float64) for n in (6, 3))
            optimizer.zero_grad()
            for some_x, some_y in zip(x.chunk(parts), y.chunk(parts), strict=True):
                ((model(some_x) - some_y).square().mean() / parts).backward()
            optimizer.step()
            scheduler.step()
        results.append(flat(model))
    assert_alike(*results)
    assert (results[0] == 0).any()


CLIPS = {
    "norm": lambda params: nn.utils.clip_grad_norm_(params, 0.05),
    "value": lambda params: nn.utils.clip_grad_value_(params, 0.01),
}


@pairwise(case=FEW_NAMES, implementation=IMPLEMENTATIONS, clip=CLIPS)
def test_a_step_takes_the_clipped_gradients(case, implementation, clip):
    clipped, given, unclipped = wide(), wide(), wide()
    optimizers = [build_as(implementation, case, model) for model in (clipped, given, unclipped)]
    for step in range(STEPS):
        for model, optimizer in zip((clipped, given, unclipped), optimizers, strict=True):
            optimizer.zero_grad()
            loss_of(model, step).backward()
            if model is clipped:
                CLIPS[clip](model.parameters())
            if model is given:
                for p, q in zip(given.parameters(), clipped.parameters(), strict=True):
                    p.grad = q.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert identical(clipped, given)
    assert not identical(clipped, unclipped)


@EACH
@FEW
def test_a_step_leaves_the_gradients_as_they_are(case, implementation):
    model = wide()
    optimizer = build_as(implementation, case, model, maximize=True, weight_decay=0.1)
    for step in range(3):
        random_gradients(model.parameters(), step)
        before = [p.grad.clone() for p in model.parameters()]
        optimizer.step()
        assert same(before, [p.grad for p in model.parameters()])


# --- zeroed, new, None ---


@EACH
@ALL
def test_it_does_not_matter_whether_gradients_are_new_tensors_or_the_old_ones(case, implementation):
    new, kept = wide(), wide()
    for model, optimizer in ((m, build_as(implementation, case, m)) for m in (new, kept)):
        scheduler = cosine(optimizer)
        for step in range(STEPS):
            optimizer.zero_grad(set_to_none=model is new)
            loss_of(model, step).backward()
            optimizer.step()
            scheduler.step()
    assert identical(new, kept)
    assert (flat(new) == 0).any()


@EACH
@ALL
def test_zeroed_gradients_move_the_state_as_in_torch(case, implementation):
    ours, theirs = wide(), wide()
    pairs = [
        (ours, build_as(implementation, case, ours, lam=0.0, averaging=False)),
        (theirs, build_plain(case, theirs, foreach=False)),
    ]
    for model, optimizer in pairs:
        run(model, optimizer, range(5))
        for _ in range(3):
            optimizer.zero_grad(set_to_none=False)
            optimizer.step()
    torch.testing.assert_close(flat(ours), flat(theirs), rtol=1e-10, atol=1e-13)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        state, expected = (optimizer.state.get(p, {}) for (_, optimizer), p in zip(pairs, (p, q), strict=True))
        assert state.keys() == expected.keys()
        for name, value in expected.items():
            if value is not None:
                torch.testing.assert_close(state[name], value, rtol=1e-10, atol=1e-13)


@EACH
@ALL
def test_without_gradients_a_step_changes_nothing(case, implementation):
    model = wide()
    optimizer = build_as(implementation, case, model)
    for done in (0, 3):
        run(model, optimizer, range(done))
        optimizer.zero_grad(set_to_none=True)
        before = snapshot(optimizer, *model.parameters())
        optimizer.step()
        assert same(before, snapshot(optimizer, *model.parameters()))


@EACH
@ALL
def test_frozen_and_unused_parameters_are_untouched_and_the_others_do_not_notice(case, implementation):
    together, alone = ([nn.Parameter(torch.full((4,), 0.5, dtype=torch.float64)) for _ in range(4)] for _ in range(2))
    cls, options = tl.proximal(CASES[case][0]), options_of(case, implementation)
    optimizer = cls(together, penalty=tl.L1(), lam=0.1, **options)
    single = cls(alone[:1], penalty=tl.L1(), lam=0.1, **options)
    used, unused, frozen, thawed = together
    thawed.requires_grad_(False)
    schedulers = cosine(optimizer), cosine(single)
    for step in range(20):
        if step == 5:
            frozen.requires_grad_(False)
            before = frozen.detach().clone()
            state = copy.deepcopy(optimizer.state.get(frozen, {}))
        if step == 12:
            thawed.requires_grad_(True)
            assert (thawed == 0.5).all()
        for w, o in ((used, optimizer), (alone[0], single)):
            o.zero_grad()
            loss = (w * torch.linspace(-0.3, 0.2, 4, dtype=torch.float64)).sum()
            if w is used:
                loss = loss + sum(p.square().sum() for p in (frozen, thawed) if p.requires_grad)
            loss.backward()
            o.step()
        for scheduler in schedulers:
            scheduler.step()
    assert (unused == 0.5).all()
    assert unused not in optimizer.state
    assert same(before, frozen.detach())
    assert same(state, copy.deepcopy(optimizer.state.get(frozen, {})))
    assert (thawed != 0.5).all()
    assert_alike(used.detach(), alone[0].detach())


@EACH
@FEW
def test_a_parameter_that_is_frozen_with_its_gradient_is_stepped_as_in_torch(case, implementation):
    ours, theirs = wide(), wide()
    for model, optimizer in (
        (ours, build_as(implementation, case, ours, lam=0.0, averaging=False)),
        (theirs, build_plain(case, theirs, foreach=False)),
    ):
        run(model, optimizer, range(3))
        model[0].weight.requires_grad_(False)
        before = model[0].weight.clone()
        optimizer.step()
        assert not torch.equal(before, model[0].weight)
    torch.testing.assert_close(flat(ours), flat(theirs), rtol=1e-10, atol=1e-13)


@EACH
@ALL
def test_parameters_that_are_added_later_are_stepped_as_by_the_reference(case, implementation):
    results = []
    for name in ("one by one", implementation):
        old, late = (nn.Parameter(torch.linspace(-1, 1, 9, dtype=torch.float64)) for _ in range(2))
        optimizer = tl.proximal(CASES[case][0])([old], penalty=tl.L1(), lam=0.2, **options_of(case, name))
        for step in range(20):
            if step == 8:
                optimizer.add_param_group({"params": [late], "lam": 0.4, "lr": 0.03})
            optimizer.param_groups[0]["lr"] *= 0.9
            random_gradients([old, late], step)
            optimizer.step()
        results.append(torch.cat([old, late]).detach())
    assert_alike(*results)
    assert (results[0][9:] == 0).any()


# --- shared and sparse ---


@EACH
@ALL
def test_tied_weights_have_one_update_and_one_prox(case, implementation):
    torch.manual_seed(0)
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    tied = nn.Sequential(first, nn.Tanh(), second).double()
    second.weight = first.weight
    groups = tl.param_groups(tied, tl.L1(), lam=0.05)
    assert [len(group["params"]) for group in groups if group["params"]] == [1]
    w = nn.Parameter(first.weight.detach().clone())
    options = options_of(case, implementation)
    optimizers = (
        tl.proximal(CASES[case][0])(groups, **options),
        tl.proximal(CASES[case][0])([w], penalty=tl.L1(), lam=0.05, **options),
    )
    for step in range(STEPS):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        for optimizer, y in zip(optimizers, (tied(x), (x @ w.T).tanh() @ w.T), strict=True):
            optimizer.zero_grad()
            (y - x).square().mean().backward()
            optimizer.step()
    assert first.weight is second.weight
    assert_alike(first.weight.detach(), w.detach())
    assert (w == 0).any()


@pytest.mark.parametrize("implementation", ["one by one", "foreach"])
def test_sparse_gradients_are_dense_ones_to_sgd(implementation):
    results = []
    for sparse in (False, True):
        torch.manual_seed(0)
        table = nn.Embedding(7, 3, sparse=sparse).double()
        optimizer = tl.ProxSGD(table.parameters(), penalty=tl.L1(), lam=0.2, **options_of("SGD", implementation))
        for step in range(10):
            optimizer.zero_grad()
            table(torch.tensor([1, step % 5, 1])).square().sum().backward()
            assert table.weight.grad.is_sparse is sparse
            optimizer.step()
        results.append(table.weight.detach())
    assert_alike(*results)
    assert (results[0] == 0).any()


@EACH
@pytest.mark.parametrize("case", ["Adam", "AdamW"])
def test_sparse_gradients_are_refused_by_adam_before_anything_moves(case, implementation):
    table = nn.Embedding(7, 3, sparse=True)
    cls = tl.proximal(CASES[case][0])
    optimizer = cls(table.parameters(), penalty=tl.L1(), lam=1.0, **options_of(case, implementation))
    before = table.weight.detach().clone()
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        optimizer.step()
    assert torch.equal(before, table.weight)


@EACH
@ALL
def test_gradients_of_zero_and_no_penalty_move_nothing(case, implementation):
    model = network()
    optimizer = build_as(implementation, case, model, lam=0.0, weight_decay=0.0)
    before = flat(model)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for _ in range(3):
        optimizer.step()
    assert torch.equal(before, flat(model))
