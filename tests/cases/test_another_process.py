"""A compacted model comes back in another process: into a fresh model of the full size, whatever it is made of."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl
from tests.support import programs
from tests.support.compacted import (
    MODELS,
    ROWS,
    check_same,
    compacted,
    compiled,
    filled,
    layers,
    trained,
)
from torchlasso.compaction.resizing import NOTE, recording_sizes
from torchlasso.storage import read


@pytest.mark.parametrize("name", MODELS)
def test_it_loads_into_a_fresh_model_of_the_full_size(name: str, path: Path):
    full, small = compacted(name)
    went = sum(w.numel() for w in full.parameters()) - sum(w.numel() for w in small.parameters())
    assert bool(went) == (name not in ("nothing", *(n for n in MODELS if "heads in a" in n and n not in HEADS_GO)))
    tl.save(small, path)
    other = MODELS[name].build()
    kept = dict(other.named_parameters())
    tl.load(path, into=other)
    check_same(other, small, MODELS[name].inputs)
    assert all(w is kept[key] for key, w in other.named_parameters())  # so that an optimizer still has them
    again = MODELS[name].build()
    tl.save(other, path.with_name("again"))
    tl.load(path.with_name("again"), into=again)
    assert path.with_name("again").read_bytes() == path.read_bytes()
    check_same(again, small, MODELS[name].inputs)


HEADS_GO = ("heads in a number", "heads in a tuple", "heads in a list", "heads in a dict", "heads in a object")


@pytest.mark.parametrize("wrap", [nn.Sequential, lambda small: nn.ModuleDict({"0": small, "more": nn.Linear(2, 2)})])
def test_it_may_be_a_part_of_another_model(small: nn.Module, path: Path, wrap: Callable[[nn.Module], nn.Module]):
    tl.save(wrap(copy.deepcopy(small)), path)
    other = wrap(layers())
    tl.load(path, into=other)
    check_same(other[0 if isinstance(other, nn.Sequential) else "0"], small, ROWS)


def test_a_part_of_it_may_be_saved_alone(small: nn.Module, path: Path):
    tl.save(small[0], path)
    other = nn.Linear(6, 8)
    tl.load(path, into=other)
    assert torch.equal(other(ROWS), small[0](ROWS))


CARRIED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "copied": copy.deepcopy,
    "moved": lambda small: copy.deepcopy(small).to("cpu", torch.float64).float(),
    "pickled": lambda small: torch.load(io.BytesIO(pickled(small)), weights_only=False),
    "compiled": lambda small: compiled(copy.deepcopy(small)),
    "parallel": lambda small: nn.DataParallel(copy.deepcopy(small)),
    "trained": lambda small: trained(copy.deepcopy(small)),
}


def pickled(model: nn.Module) -> bytes:
    file = io.BytesIO()
    torch.save(model, file)
    return file.getvalue()


@pytest.mark.parametrize("carry", CARRIED.values(), ids=CARRIED)
def test_it_keeps_its_full_sizes(small: nn.Module, path: Path, carry: Callable[[nn.Module], nn.Module]):
    carried = carry(small)
    tl.save(carried, path)
    other = layers()
    tl.load(path, into=other)
    assert list(read(path)) == sorted(small.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), carried.parameters(), strict=True))
    assert str(other) == str(small)


def test_it_loads_in_a_second_process(small: nn.Module, path: Path):
    tl.save(small, path)
    torch.save(small(ROWS), path.with_suffix(".outputs"))
    code = f"""
import torch, torchlasso as tl
from torch import nn
model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
tl.load({str(path)!r}, into=model)
x = torch.rand(3, 6, generator=torch.Generator().manual_seed(1))
assert torch.equal(model(x), torch.load({str(path.with_suffix(".outputs"))!r}, weights_only=True))
print(model[0].out_features)
"""
    done = programs.run(code=code)
    assert (done.code, done.out, done.err) == (0, "4\n", "")


def test_after_several_compactions_and_in_training(path: Path):
    model = filled(layers(), {"0.weight": 3})
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=1e-3), lr=1e-2)
    model(ROWS).sum().backward()
    optimizer.step()
    with torch.no_grad():
        model[0].weight[:3] = model[0].bias[:3] = 0
    tl.shrink_(model, optimizer, ROWS)
    assert model[0].out_features == 5
    with torch.no_grad():
        model[0].weight[1] = model[0].bias[1] = 0
    once = copy.deepcopy(model)
    twice = tl.compact(model, ROWS)
    tl.save(twice, path)
    for other in (layers(), once, twice):
        tl.load(path, into=other)
        check_same(other, twice, ROWS)
    assert twice[0].out_features == 4
    assert vars(twice[0])[NOTE][("out_features",)] == 8


def test_an_optimizer_made_before_trains_the_smaller_model(small: nn.Module, path: Path):
    tl.save(small, path)
    model = layers()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    trained(model).zero_grad()
    trained(model)  # gradients of the full size are not kept
    tl.load(path, into=model)
    assert model[0].weight.grad is None
    model(ROWS).sum().backward()
    optimizer.step()
    assert not torch.equal(model[0].weight, small[0].weight)


@pytest.mark.parametrize("name", ["linear", "convolutions", "buffer", "tied"])
def test_a_model_without_values_gets_them(name: str, path: Path):
    _, small = compacted(name)
    tl.save(small, path)
    with torch.device("meta"):
        other = MODELS[name].build()
    tl.load(path, into=other)
    check_same(other, small, MODELS[name].inputs)
    full = MODELS[name].build()
    tl.save(full, path)
    with torch.device("meta"):
        other = MODELS[name].build()
    if name != "buffer":
        tl.load(path, into=other)
        assert all(torch.equal(a, b) for a, b in zip(full.parameters(), other.parameters(), strict=True))
    else:
        with pytest.raises(ValueError, match=r"'scale' of into has no values yet, and .* has none for it"):
            tl.load(path, into=other)
        assert all(w.is_meta for w in other.parameters())


@pytest.mark.parametrize(
    "wrap",
    [compiled, nn.DataParallel, lambda model: nn.Sequential(compiled(model[0]), *model[1:])],
    ids=["compiled", "parallel", "compiled in part"],
)
@pytest.mark.parametrize("save_wrapped", [False, True])
def test_wrapped_models_are_loaded_into(small: nn.Module, path: Path, wrap: Callable[[Any], Any], save_wrapped: bool):
    tl.save(wrap(copy.deepcopy(small)) if save_wrapped else small, path)
    model = layers()
    tl.load(path, into=wrap(model))
    check_same(model, small, ROWS)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_names_of_a_wrapper_in_files_of_others_are_understood(path: Path, prefix: str):
    from safetensors.torch import save_file

    model, other = layers(), layers()
    save_file({prefix + name: w for name, w in model.state_dict().items()}, path)
    tl.load(path, into=other)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_a_model_that_is_small_already_is_loaded(small: nn.Module, path: Path):
    tl.save(small, path)
    other = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))  # the process that recorded the sizes
    tl.load(path, into=other)
    check_same(other, small, ROWS)
    tl.load(path, into=small)


def test_a_shared_config_of_the_caller_stays_as_it_is(path: Path):
    """A config that other models may be built from is not changed, and stays a single object in the model."""

    class Configured(nn.Module):
        def __init__(self, config: SimpleNamespace) -> None:
            super().__init__()
            self.config, self.inner = config, nn.Linear(6, config.width)
            self.inner.config, self.out = config, nn.Linear(config.width, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.relu(self.inner(x)))

    small = tl.compact(filled(Configured(SimpleNamespace(width=8)), {"inner.weight": 3}), ROWS)
    with recording_sizes(small):
        small.config.width = 5
    tl.save(small, path)
    config = SimpleNamespace(width=8)
    other = Configured(config)
    tl.load(path, into=other)
    assert (config.width, other.config.width) == (8, 5)
    assert other.config is other.inner.config
