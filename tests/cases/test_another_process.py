"""A compacted model comes back in another process: into a fresh model of the full size, whatever it is made of."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchlasso as tl
from torchlasso.compaction.resizing import NOTE, noting
from torchlasso.storage import read

Zeros = dict[str, int]  # of these parameters, so many of the first rows and their biases; of NAME:1, columns


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "small.safetensors"


def filled(model: nn.Module, zeros: Zeros, seed: int = 0) -> nn.Module:
    """Random values, with dead rows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for w in [*model.parameters(), *model.buffers()]:
            if w.is_floating_point():
                w.copy_(torch.rand(w.shape, generator=generator, dtype=torch.float64) + 0.1)
        for name, count in zeros.items():
            name, _, columns = name.partition(":")
            if columns:
                model.get_parameter(name)[:, :count] = 0
                continue
            for w in (model.get_parameter(name), dict(model.named_parameters()).get(name.replace("weight", "bias"))):
                if w is not None:
                    w[:count] = 0
    return model.eval()


class Heads(nn.Module):
    """Attention that keeps its sizes in numbers, a tuple, a list, a dictionary and an object of its own."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(6, 12) for _ in range(3))
        self.out = nn.Linear(12, 6)
        self.where = where
        self.number = 4
        self.several: Any = {
            "number": None,
            "tuple": (4, 3),
            "list": [4, 3],
            "dict": {"heads": 4, "width": 3},
            "object": SimpleNamespace(heads=4, width=3),
        }[where]

    def heads(self) -> int:
        if self.where == "number":
            return self.number
        if self.where in ("tuple", "list"):
            return self.several[0]
        return self.several["heads"] if self.where == "dict" else self.several.heads

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads(), -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def heads(where: str) -> nn.Module:
    return nn.Sequential(Heads(where), nn.Flatten(), nn.Linear(30, 2))


class Tied(nn.Module):
    """A table that is also the last layer, seen through a narrow one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.mix(self.embed(x))))


class Scaled(nn.Module):
    """A layer, and a buffer for each of its units that is not in the state."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 8)
        self.out = nn.Linear(8, 2)
        self.register_buffer("scale", torch.arange(1.0, 9.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.fc(x)) * self.scale)


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8), nn.GroupNorm(4, 8), nn.PReLU(8),
        nn.ConvTranspose2d(8, 4, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A model of the full size, what is dead in it, and what it reads."""

    build: Callable[[], nn.Module]
    zeros: Zeros
    inputs: Any


ROWS = torch.rand(3, 6, generator=torch.Generator().manual_seed(1))
IMAGES = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))
WORDS = torch.arange(15).reshape(3, 5)
SEQUENCES = torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(1))


def layers() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def encoder() -> nn.Module:
    return nn.Sequential(nn.TransformerEncoderLayer(6, 2, 10, batch_first=True), nn.Linear(6, 2))


def recurrent() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6), Last(), nn.Linear(5, 2))


class Last(nn.Module):
    """The last state of a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0][:, -1]


MODELS = {
    "linear": Model(layers, {"0.weight": 4}, ROWS),
    "batch norm": Model(normed, {"0.weight": 3, "1.weight": 3}, ROWS),
    "convolutions": Model(convolutions, {"0.weight": 2, "1.weight": 2, "3.weight": 2, "4.weight": 2}, IMAGES),
    "tied": Model(Tied, {"mix.weight": 3, "embed.weight:1": 3}, WORDS),
    "buffer": Model(Scaled, {"fc.weight": 3}, ROWS),
    "encoder": Model(encoder, {"0.linear1.weight": 4}, SEQUENCES),
    "recurrent": Model(recurrent, {"0.weight": 3}, SEQUENCES),
    "nothing": Model(layers, {}, ROWS),
}
for where in ("number", "tuple", "list", "dict", "object"):
    MODELS[f"heads in a {where}"] = Model(lambda where=where: heads(where), {}, SEQUENCES)


def kill_heads(model: nn.Module) -> nn.Module:
    for attention in (module for module in model.modules() if isinstance(module, Heads)):
        with torch.no_grad():
            for layer in (attention.query, attention.key, attention.value):
                layer.weight[3:9] = layer.bias[3:9] = 0
            attention.out.weight[:, 3:9] = 0
    return model


def compacted(model: Model) -> tuple[nn.Module, nn.Module]:
    full = kill_heads(filled(model.build(), model.zeros))
    return full, tl.compact(full, model.inputs)


def numbers(model: nn.Module) -> dict[str, str]:
    kept = [
        (f"{path}.{name}", value)
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if not name.startswith("_")
    ]
    return {
        name: str(value)
        for name, value in kept
        if isinstance(value, int | tuple | SimpleNamespace) or "several" in name
    }


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: w.shape for name, w in [*model.named_parameters(), *model.named_buffers()]}


def check_same(other: nn.Module, small: nn.Module, inputs: Any) -> None:
    """All that a compacted model is: values, sizes, numbers and what it gives."""
    other.eval()
    assert shapes(other) == shapes(small)
    assert numbers(other) == numbers(small)
    assert torch.equal(other(inputs), small(inputs))
    for (name, ours), (_, theirs) in zip(other.state_dict().items(), small.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("name", MODELS)
def test_it_loads_into_a_fresh_model_of_the_full_size(name: str, path: Path):
    full, small = compacted(MODELS[name])
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


@pytest.fixture(scope="module")
def small() -> nn.Module:
    """Of 6 inputs, 4 of 8 neurons and 2 outputs."""
    return compacted(MODELS["linear"])[1]


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


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


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


def trained(model: nn.Module) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(ROWS).sum().backward()
    optimizer.step()
    return model


@pytest.mark.parametrize("carry", CARRIED.values(), ids=CARRIED)
def test_it_remembers_what_it_lost(small: nn.Module, path: Path, carry: Callable[[nn.Module], nn.Module]):
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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("4\n", "")


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
    _, small = compacted(MODELS[name])
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


def test_a_model_between_forward_and_backward_is_refused(small: nn.Module, path: Path):
    tl.save(small, path)
    model = layers()
    before, loss = copy.deepcopy(model), model(ROWS).sum()
    with pytest.raises(ValueError, match=r"'[02]\.weight' is held by something else and cannot become smaller"):
        tl.load(path, into=model)
    check_same(model, before.eval(), ROWS)
    loss.backward()
    tl.load(path, into=model)
    check_same(model, small, ROWS)


def test_a_model_that_is_held_is_refused(small: nn.Module, path: Path):
    import weakref

    tl.save(small, path)
    model = layers()
    before, held = copy.deepcopy(model), weakref.ref(model[2].weight)
    with pytest.raises(ValueError, match=r"'2\.weight' is held by something else and cannot become smaller"):
        tl.load(path, into=model)
    assert held() is model[2].weight
    check_same(model, before.eval(), ROWS)


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 2))


class Counting(nn.Linear):
    """A layer with a number of its own."""

    def __init__(self, inputs: int, outputs: int, number: Any) -> None:
        super().__init__(inputs, outputs)
        self.number = number


MISFITS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "wider": (wide, r"'0\.weight' is float32 of shape \(4, 6\), cut from \(8, 6\), and float32 of shape \(10, 6\)"),
    "narrower": (
        lambda: nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 2)),
        r"'0\.weight' is float32 of shape \(4, 6\), cut from \(8, 6\), and float32 of shape \(3, 6\) in the model",
    ),
    "other outputs": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
        r"'2\.weight' is float32 of shape \(2, 4\), cut from \(2, 8\), and float32 of shape \(3, 8\) in .*'2\.bias'",
    ),
    "more": (lambda: nn.Sequential(*layers(), nn.Linear(2, 2)), r"it lacks '3\.weight', '3\.bias'"),
    "fewer": (lambda: layers()[:2], r"the model lacks '2\.bias', '2\.weight'"),
    "another rank": (
        lambda: nn.Sequential(nn.Conv1d(6, 8, 1), nn.ReLU(), nn.Linear(8, 2)),
        r"'0\.weight' is float32 of shape \(4, 6\), cut from \(8, 6\), and float32 of shape \(8, 6, 1\) in the model",
    ),
    "another dtype": (
        lambda: layers().double(),
        r"'0\.weight' is float32 of shape \(4, 6\), cut from \(8, 6\), and float64",
    ),
    "other numbers": (lambda: numbered(out_features=9), r"'0\.out_features' was 8 and is 9 in the model"),
    "no numbers": (lambda: numbered(out_features=None), r"'0\.out_features' was 8 and is no number in the model"),
}


def numbered(out_features: int | None) -> nn.Module:
    model = layers()
    model[0].out_features = out_features
    return model


@pytest.mark.parametrize(("build", "message"), MISFITS.values(), ids=MISFITS)
def test_another_model_is_refused_and_nothing_changes(
    small: nn.Module, path: Path, build: Callable[[], nn.Module], message: str
):
    tl.save(small, path)
    model = build()
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=message) as caught:
        tl.load(path, into=model)
    assert "\n" not in str(caught.value)
    assert shapes(model) == shapes(before)
    assert numbers(model) == numbers(before)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


def test_a_model_whose_own_code_fails_is_as_it_was(small: nn.Module, path: Path):
    def fail(*_: Any) -> None:
        raise RuntimeError("not today")

    tl.save(small, path)
    model = layers()
    model.register_load_state_dict_post_hook(fail)
    with pytest.raises(RuntimeError, match="not today"):
        tl.load(path, into=model)
    assert str(model) == str(layers())
    assert shapes(model) == shapes(layers())
    assert NOTE not in vars(model[0])


def test_what_is_small_already_is_loaded_as_it_is(small: nn.Module, path: Path):
    tl.save(small, path)
    other = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))  # whoever wrote the sizes down
    tl.load(path, into=other)
    check_same(other, small, ROWS)
    tl.load(path, into=small)


def test_numbers_that_say_something_else_are_not_ignored(path: Path):
    """Two heads of three, or one of six: the same shapes, another function."""
    _, small = compacted(MODELS["heads in a number"])
    tl.save(small, path)
    other = copy.deepcopy(small)
    for module in other.modules():
        vars(module).pop(NOTE, None)
    tl.load(path, into=other)
    other[0].number = 1
    with pytest.raises(ValueError, match=r"'0\.number' was 4 and is 1 in the model"):
        tl.load(path, into=other)


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
    with noting(small):
        small.config.width = 5
    tl.save(small, path)
    config = SimpleNamespace(width=8)
    other = Configured(config)
    tl.load(path, into=other)
    assert (config.width, other.config.width) == (8, 5)
    assert other.config is other.inner.config
