"""A copied model equals a copy by ``copy.deepcopy``: it shares only the requested objects with the model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from torchlasso._core.copying import copied


class Kept(nn.Module):
    """A module that keeps objects of many kinds, among them its parent and an object that two attributes share."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
        self.seen: list[int] = []
        self.options = {"width": 3, "names": ["a"], 0: None}
        self.again = self.options
        self.inner.parents = (self,)  # a tuple, so that it is not registered as a part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        self.options["width"] += 1
        return self.norm(self.inner(x))


def shallow(model: nn.Module) -> nn.Module:
    return copied(model, {id(p): p for p in model.parameters()})


def test_a_run_of_the_copy_leaves_the_model_as_it_was():
    model, x = Kept(), torch.randn(4, 2)
    found = copied(model, {})
    found(x)
    assert (model.seen, model.options["width"]) == ([], 3)
    assert (found.seen, found.options["width"]) == ([4], 4)
    assert not model.norm.running_mean.any()
    assert found.inner.weight is not model.inner.weight
    assert torch.equal(found.inner.weight, model.inner.weight)


def test_parameters_can_be_shared():
    model = Kept()
    assert all(p is q for p, q in zip(shallow(model).parameters(), model.parameters(), strict=True))


def test_objects_that_are_one_stay_one_and_a_part_leads_back_to_the_copy():
    found: Any = copied(Kept(), {})
    assert found.again is found.options
    assert found.inner.parents[0] is found
    assert found.options["names"] is found.again["names"]


def test_hooks_are_copied_and_independent():
    model, calls = nn.Sequential(nn.Linear(2, 2)), []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    found = copied(model, {})
    found[0].register_forward_hook(lambda *_: calls.append(2))
    model(torch.ones(1, 2))
    assert calls == [1]
    found(torch.ones(1, 2))
    assert calls == [1, 1, 2]


def test_a_class_that_copies_itself_does_so():
    class Own(nn.Linear):
        def __deepcopy__(self, memo: dict[int, Any]) -> Own:
            made = Own(self.in_features, self.out_features)
            made.note = "made by itself"
            return made

    found: Any = copied(nn.Sequential(Own(2, 2)), {})
    assert found[0].note == "made by itself"


@pytest.mark.parametrize(
    "build",
    [
        lambda: parametrizations.weight_norm(nn.Linear(3, 2)),
        lambda: parametrizations.spectral_norm(nn.Linear(3, 2)),
        lambda: nn.LSTM(3, 2),
        lambda: nn.TransformerEncoderLayer(4, 2, 8),
        lambda: nn.Sequential(*[nn.Linear(3, 3)] * 2),
    ],
    ids=["weight norm", "spectral norm", "lstm", "transformer", "one layer twice"],
)
def test_the_copy_is_as_deepcopy_makes_it(build: Callable[[], nn.Module]):
    model = build()
    found, wanted = copied(model, {}), copy.deepcopy(model)
    assert str(found) == str(wanted)
    assert [name for name, _ in found.named_parameters()] == [name for name, _ in wanted.named_parameters()]
    for name, value in wanted.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)
    ours = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    assert not ours & {id(tensor) for tensor in (*found.parameters(), *found.buffers())}


class KeptPasses(nn.Module):
    """A module of the user that keeps tensors of its last pass, with their graph."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.register_buffer("mean", torch.zeros(4))
        self.hidden: dict[str, Any] = {}
        self.hidden["self"] = self.hidden

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = self.layer(x)
        self.hidden["states"] = [self.last.tanh()]
        self.mean = 0.9 * self.mean + self.last.mean(dim=0)
        return self.last


def test_tensors_of_the_last_pass_are_copied_without_their_graph() -> None:
    model, x = KeptPasses(), torch.randn(2, 3)
    model(x).sum().backward()
    found: Any = copied(model, {})
    for new, old in ((found.last, model.last), (found.hidden["states"][0], model.hidden["states"][0])):
        assert torch.equal(new, old)
        assert new.grad_fn is None
        assert old.grad_fn is not None
    assert found.hidden["self"] is found.hidden
    found(x)
    assert not torch.equal(found.mean, model.mean)
