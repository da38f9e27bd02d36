"""Penalties on activations: the term, its λ from gradients, dead units, and a steered number of active units."""

import copy
import pickle

import pytest
import torch
from torch import nn

import torchlasso as tl


def coder(units: int = 16, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, units), nn.ReLU(), nn.Linear(units, 4))


def rows(step: int = 0, count: int = 32) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(step))


def loss_of(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return (model(x) - x).square().sum(dim=1).mean()


def test_the_term_is_its_formula_and_so_is_its_gradient():
    model, twin, x = coder(), coder(), rows()
    term = tl.ActivationL1(model[1], model[2], lam=0.3)
    (loss_of(model, x) + term()).backward()
    a = twin[1](twin[0](x))
    expected = 0.3 * (a * twin[2].weight.norm(dim=0)).sum() / len(x)
    torch.testing.assert_close(term.value, expected)
    (loss_of(twin, x) + expected).backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    assert term.l0 == (a != 0).sum().item() / len(x)


def test_without_readers_units_count_as_they_are():
    model, x = coder(), rows()
    term = tl.ActivationL1([model[1]], lam=0.5)
    model(x)
    torch.testing.assert_close(term(), 0.5 * model[:2](x).sum() / len(x))


def test_several_modules_and_tokens():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    x = torch.randn(3, 7, 4)  # examples, tokens, features: each token is an example
    term = tl.ActivationL1([model[1], model[3]], [model[2], None], lam=1.0)
    model(x)
    with torch.no_grad():
        first, second = model[:2](x), model[:4](x)
    expected = ((first * model[2].weight.norm(dim=0)).sum() + second.abs().sum()) / 21
    torch.testing.assert_close(term(), expected)
    assert term.activity().units == 11
    assert term.l0 == pytest.approx(((first != 0).sum() + (second != 0).sum()).item() / 21)


def test_the_units_of_a_convolution_are_its_channels():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 1, 3))
    with torch.no_grad():
        model[0].weight[4], model[0].bias[4] = 0.0, -1.0
    x = torch.randn(3, 2, 8, 7)
    term = tl.ActivationL1(model[1], lam=0.5, dim=1, window=90, revive=False)
    with torch.no_grad():
        a = model[:2](x)
    assert a.shape == (3, 6, 6, 5)
    model(x)
    torch.testing.assert_close(term(), 0.5 * a.sum() / 90)
    assert term.l0 == pytest.approx((a != 0).sum().item() / 90)
    assert term.dead()[0].tolist() == [False] * 4 + [True, False]
    assert str(term.activity()).endswith("of 6 units active per example, 1 dead (17 %), λ 0.5")
    chosen = tl.ActivationL1(model[1], dim=1)
    (model(x).square().mean() + chosen()).backward()
    assert chosen.lam > 0
    wrong = tl.ActivationL1(model[1], dim=4)
    model(x)
    with pytest.raises(ValueError, match=r"an output of shape \(3, 6, 6, 5\) has no dimension 4"):
        wrong()
    with pytest.raises(TypeError, match="ActivationL1: dim must be a whole number; got 'channels'"):
        tl.ActivationL1(model[1], dim="channels")


def test_scaling_a_unit_against_its_reader_changes_nothing():
    """What a network does under a plain L1 on activations, so that λ has no effect."""
    model, x = coder(), rows()
    term = tl.ActivationL1(model[1], model[2], lam=1.0)
    model(x)
    before = term()
    with torch.no_grad():
        model[0].weight[3] *= 0.25
        model[0].bias[3] *= 0.25
        model[2].weight[:, 3] *= 4
    model(x)
    torch.testing.assert_close(term(), before)


@pytest.mark.parametrize("factor", [2.0**-10, 2.0**10])
def test_lambda_follows_the_scale_of_the_loss(factor):
    """With the loss times a power of two, all of training is the same to the bit, and λ is times it."""

    def trained(factor: float) -> tuple[nn.Module, float]:
        model = coder()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, eps=0.0)
        term = tl.ActivationL1(model[1], model[2])
        control = tl.TargetL0(term, 3, 31)  # it is not over, so that it is not missed
        for step in range(30):
            optimizer.zero_grad()
            (factor * loss_of(model, rows(step)) + term()).backward()
            optimizer.step()
            control.step()
        assert term.lam is not None
        return model, term.lam

    (model, lam), (other, scaled) = trained(1.0), trained(factor)
    assert scaled == pytest.approx(factor * lam, rel=1e-9)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_the_number_of_active_units_is_met_at_any_scale(scale):
    model = coder(units=32)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 5 * (1 - step / 600)))
    term = tl.ActivationL1(model[1], model[2])
    control = tl.TargetL0(term, 6, 600)
    found = []
    for step in range(600):
        optimizer.zero_grad()
        (loss_of(model, x := scale * rows(step, 128)) + term()).backward()
        optimizer.step()
        scheduler.step()
        control.step()
        found.append(term.l0)
    assert x.shape == (128, 4)
    assert sum(found[-50:]) / 50 == pytest.approx(6, rel=0.05)


def test_dead_units_are_counted_and_come_back():
    model = coder(units=4)
    term = tl.ActivationL1(model[1], model[2], lam=0.1, window=64, revive=False)
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(4))
        model[0].bias.copy_(torch.tensor([1e3, 1e3, 1e3, -1e3]))
    assert not term.dead()[0].numel()
    for silent in (32, 64, 96):
        model(rows())
        term()
        assert term.dead()[0].tolist() == [False, False, False, silent >= 64]
        assert term.activity() == tl.Activity(0.1, 3.0, 4, int(silent >= 64))
    assert str(term.activity()) == "3 of 4 units active per example, 1 dead (25 %), λ 0.1"
    with torch.no_grad():
        model[0].bias[3] = 1e3
    model(rows())
    term()
    assert term.activity().dead == 0


def test_dead_units_are_drawn_back():
    model, x = coder(units=4), rows()
    with torch.no_grad():
        model[0].bias[3] = -2.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    term = tl.ActivationL1(model[1], model[2], lam=0.5, window=64)
    was_dead = False
    for _ in range(100):
        optimizer.zero_grad()
        (loss_of(model, x) + term()).backward()
        dead = bool(term.dead()[0][3])
        was_dead = was_dead or dead
        assert not dead or model[0].bias.grad[3] < 0
        assert dead or was_dead or not model[0].bias.grad[3]
        optimizer.step()
    assert was_dead
    assert not dead


def test_evaluation_and_copies_record_nothing():
    model = coder()
    term = tl.ActivationL1(model[1], model[2], lam=0.1)
    model.eval()
    model(rows())
    model.train()
    with torch.no_grad():
        model(rows())
    copy.deepcopy(model)(rows())
    pickle.loads(pickle.dumps(model))(rows())
    with pytest.raises(ValueError, match="no output was recorded"):
        term()
    assert set(model.state_dict()) == set(coder().state_dict())
    term.close()
    model(rows())
    with pytest.raises(ValueError, match="no output was recorded"):
        term()


def test_a_state_goes_on_where_it_was():
    model = coder()
    term = tl.ActivationL1(model[1], model[2], window=100)
    control = tl.TargetL0(term, 2, 50)
    for step in range(5):
        (loss_of(model, rows(step)) + term()).backward()
        control.step()
    twin = copy.deepcopy(model)
    other = tl.ActivationL1(twin[1], twin[2], window=100)
    second = tl.TargetL0(other, 2, 50)
    other.load_state_dict(copy.deepcopy(term.state_dict()))
    second.load_state_dict(control.state_dict())
    for which, one, own in ((model, term, control), (twin, other, second)):
        (loss_of(which, rows(9)) + one()).backward()
        own.step()
    assert (term.lam, term.activity(), control.done) == (other.lam, other.activity(), second.done)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([], None), ValueError, "give at least one module"),
        ((["relu"], None), TypeError, "modules must be a module"),
        (([nn.ReLU()], [nn.Linear(2, 2)] * 2), ValueError, "got 1 modules and 2 readers"),
        ((nn.ReLU(), nn.ReLU()), TypeError, "readers must be the nn.Linear"),
    ],
)
def test_wrong_modules_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        tl.ActivationL1(*arguments)


def test_wrong_numbers_are_refused():
    term = tl.ActivationL1(nn.ReLU())
    with pytest.raises(ValueError, match="l0 must be a number of active units above 0; got 0"):
        tl.TargetL0(term, 0, 10)
    with pytest.raises(ValueError, match="lam must be a finite number of at least 0"):
        tl.ActivationL1(nn.ReLU(), lam=-1.0)


def test_a_module_that_overwrites_its_input_is_refused_where_the_input_is_needed():
    with pytest.raises(ValueError, match="inplace=True overwrites its input, which revive=True needs: make it with"):
        tl.ActivationL1(nn.ReLU(inplace=True))
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True))
    term = tl.ActivationL1(model[1], lam=1.0, revive=False)
    a = model(rows())
    torch.testing.assert_close(term(), a.sum() / len(a))


def test_a_reader_of_another_width_is_refused():
    model = coder()
    term = tl.ActivationL1(model[1], nn.Linear(6, 2), lam=1.0)
    model(rows())
    with pytest.raises(ValueError, match=r"a module gives 16 units, and its reader reads 6: give the nn\.Linear"):
        term()


def test_one_module_at_places_of_several_widths_is_refused():
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 6), relu)
    term = tl.ActivationL1(relu, lam=1.0)
    model(rows())
    with pytest.raises(ValueError, match="a module gave 4 units, and now 6: give each place"):
        term()


@pytest.mark.parametrize("activation", [nn.GELU(), nn.LeakyReLU()], ids=str)
def test_a_number_that_cannot_be_met_is_missed_with_a_reason_and_a_bounded_strength(activation):
    model = coder()
    model[1] = activation
    term = tl.ActivationL1(model[1], model[2], lam=0.1)
    control = tl.TargetL0(term, 3, 400)
    for step in range(400):
        model(rows(step % 2))
        term()
        if step < 399:
            control.step()
    with pytest.warns(tl.TargetMissed, match=r"16 of 16 units are active per example instead of 3; no unit is ever"):
        control.step()
    assert term.lam == pytest.approx(1e3)


def test_more_active_units_than_there_are_are_refused():
    model = coder()
    with pytest.raises(ValueError, match=r"l0=100 active units of 16 are not possible: give at most 16"):
        tl.TargetL0(tl.ActivationL1(model[1], model[2]), 100, 10)
    term = tl.ActivationL1(model[1], lam=0.1)
    control = tl.TargetL0(term, 100, 10)  # without a reader their number is not known yet
    model(rows())
    term()
    with pytest.raises(ValueError, match="l0=100 active units of 16"):
        control.step()
