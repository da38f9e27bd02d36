"""Every model of the registry: shapes, sizes, errors. Tests over ``models.names()`` cover new ones too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from torchlasso import models

SHAPES = [(1, 4, 4), (1, 8, 8), (1, 15, 17), (1, 16, 16), (1, 28, 28), (3, 32, 32), (2, 9, 30)]


TEXT = (6, 50)  # words of a text, words of the vocabulary


OF_TEXTS = [name for name in models.names() if models.reads_texts(name)]
OF_IMAGES = [name for name in models.names() if name not in OF_TEXTS]


def texts(rows: int) -> torch.Tensor:
    return torch.randint(1, TEXT[1], (rows, TEXT[0]), generator=torch.Generator().manual_seed(0))


def built(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Build a model for ten outputs, and inputs for it."""
    if name in OF_TEXTS:
        return models.build(name, TEXT, 10), texts(64)
    return models.build(name, (1, 8, 8), 10), torch.randn(4, 1, 8, 8)


def count(model: nn.Module) -> int:
    return sum(w.numel() for w in model.parameters())


@pytest.mark.parametrize("outputs", [1, 7])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", OF_IMAGES)
def test_images_of_any_size_give_one_row_of_outputs_each(name: str, shape: tuple[int, ...], outputs: int) -> None:
    model = models.build(name, shape, outputs)
    assert model(torch.zeros(2, *shape)).shape == (2, outputs)


@pytest.mark.parametrize("name", ["mlp", "lenet-300-100"])
def test_dense_models_read_tables(name: str) -> None:
    assert models.build(name, (13,), 3)(torch.zeros(2, 13)).shape == (2, 3)


@pytest.mark.parametrize("name", ["cnn", "lenet-5", "resnet-20"])
def test_convolutional_models_refuse_tables(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name!r} needs images.*shape \(13,\); for a table, use 'mlp'"):
        models.build(name, (13,), 3)


@pytest.mark.parametrize("name", models.names())
def test_a_seed_fixes_the_initial_weights(name: str) -> None:
    torch.manual_seed(3)
    first = built(name)[0].state_dict()
    second = built(name)[0].state_dict()
    torch.manual_seed(3)
    again = built(name)[0].state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.weight"], second["head.weight"])


@pytest.mark.parametrize("name", models.names())
def test_every_weight_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    model, x = built(name)
    model(x).square().sum().backward()
    assert all(w.grad is not None and w.grad.any() for w in model.parameters())


@pytest.mark.parametrize("name", OF_TEXTS)
@pytest.mark.parametrize("padding", [1, 3])
def test_the_outputs_for_a_text_do_not_depend_on_its_padding(name: str, padding: int) -> None:
    model, x = built(name)
    model.eval()
    short = x[:, :3]
    padded = nn.functional.pad(short, (0, padding))
    assert torch.allclose(model(short), model(padded), atol=1e-6)
    assert torch.allclose(model(padded)[:1], model(short[:1]), atol=1e-6)


@pytest.mark.parametrize("name", OF_TEXTS)
def test_a_word_with_the_embedding_zero_is_like_an_unknown_one(name: str) -> None:
    model, x = built(name)
    model.eval()
    with torch.no_grad():
        model.get_parameter("embedding.weight")[7:] = 0.0
    outputs = model(x)
    assert torch.equal(outputs, model(torch.where(x < 7, x, 0)))
    assert bool(outputs.isfinite().all())  # of texts without any word that is read, too
    assert not torch.equal(outputs, model(torch.zeros_like(x)))


@pytest.mark.parametrize("name", OF_TEXTS)
def test_models_of_texts_refuse_images_and_tables(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name!r} needs texts, \(length, words\).*use 'mlp'"):
        models.build(name, (13,), 3)
    with pytest.raises(ValueError, match="dropout must be at least 0 and below 1; got 1"):
        models.build(name, TEXT, 3, dropout=1)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_models_of_images_and_tables_name_one_for_texts(name: str) -> None:
    with pytest.raises(ValueError, match="for texts, use 'text-cnn'"):
        models.build(name, TEXT, 3)


def test_a_transformer_needs_whole_heads() -> None:
    with pytest.raises(ValueError, match="dim must be a multiple of heads; got 10 and 4"):
        models.build("transformer", TEXT, 3, dim=10)


@pytest.mark.parametrize(
    ("name", "shape", "outputs", "parameters"),
    [
        ("cnn", (1, 28, 28), 10, 421_642),
        ("cnn", (1, 8, 8), 10, 53_002),
        ("lenet-300-100", (1, 28, 28), 10, 266_610),
        ("lenet-5", (1, 28, 28), 10, 431_080),
        ("lenet-5", (1, 8, 8), 10, 131_080),
        ("mlp", (1, 8, 8), 10, 85_002),
        ("resnet-20", (3, 32, 32), 10, 272_474),
        ("resnet-20", (3, 32, 32), 100, 278_324),
        ("text-cnn", (50, 1000), 8, 284_308),
        ("transformer", (50, 1000), 8, 400_776),
    ],
)
def test_parameter_counts(name: str, shape: tuple[int, ...], outputs: int, parameters: int) -> None:
    assert count(models.build(name, shape, outputs)) == parameters


def test_a_narrower_resnet() -> None:
    model = models.build("resnet-20", (3, 32, 32), 10, width=3)
    channels = [w.shape[0] for name, w in model.named_parameters() if name.endswith("conv2.weight")]
    assert channels == [3] * 3 + [6] * 3 + [12] * 3
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_lenet_5_pads_only_where_it_must() -> None:
    def padding(side: int) -> object:
        return models.build("lenet-5", (1, side, side), 10).get_submodule("conv1").padding

    assert [padding(side) for side in (8, 15, 16, 28)] == [(2, 2), (2, 2), (0, 0), (0, 0)]


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_the_options_of_mlp(depth: int) -> None:
    model = models.build("mlp", (6,), 2, depth=depth, width=5)
    widths = [module.out_features for module in model.modules() if isinstance(module, nn.Linear)]
    assert widths == [5] * depth + [2]


@pytest.mark.parametrize(
    ("name", "shape", "outputs", "options", "message"),
    [
        ("lenet5", (1, 8, 8), 10, {}, "unknown model 'lenet5'; did you mean 'lenet-5'? There are: cnn, "),
        ("cnn", (1, 3, 28), 10, {}, "'cnn' needs images of at least 4x4 pixels, but these have 3x28"),
        ("lenet-5", (1, 3, 3), 10, {}, "'lenet-5' needs images of at least 4x4 pixels"),
        ("resnet-20", (3, 2, 2), 10, {}, "'resnet-20' needs images of at least 4x4 pixels"),
        (
            "cnn",
            (28, 28),
            10,
            {},
            "needs images, (channels, height, width), but the input has the shape (28,",
        ),
        ("mlp", (28, 28), 10, {}, "but the input has the shape (28, 28)"),
        ("mlp", (), 10, {}, "but the input has the shape ()"),
        ("mlp", (0,), 10, {}, "every size in input_shape (0,) must be a whole number of at least 1"),
        ("cnn", (1, 8, 8), 0, {}, "outputs must be a whole number of at least 1; got 0"),
        ("cnn", (1, 8, 8), 2.0, {}, "outputs must be a whole number of at least 1; got 2.0"),
        ("cnn", (1, 8, 8), 10, {"depth": 1}, "model 'cnn' takes no options; got 'depth'"),
        (
            "mlp",
            (3,),
            10,
            {"dept": 1},
            "model 'mlp': unknown option 'dept'; did you mean 'depth'? There are: depth, width",
        ),
        ("mlp", (3,), 10, {"depth": -1}, "depth must be a whole number of at least 0; got -1"),
        ("mlp", (3,), 10, {"depth": True}, "depth must be a whole number of at least 0; got True"),
        ("resnet-20", (3, 8, 8), 10, {"width": 0}, "width must be a whole number of at least 1; got 0"),
        ("mlp", (3,), 10, {"width": 0}, "width must be a whole number of at least 1; got 0"),
        ("mlp", (3,), 10, {"width": "big"}, "width must be a whole number of at least 1; got 'big'"),
    ],
)
def test_mistakes_are_named_in_one_line(
    name: str, shape: tuple[int, ...], outputs: int, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        models.build(name, shape, outputs, **options)
    assert "\n" not in str(caught.value)


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match=r"'cnn' is registered already, by torchlasso\.models\.cnn"):
        models.register("cnn")(nn.Linear)


CUSTOM = """
from torch import nn

def build(input_shape, outputs, *, bias=True):
    return nn.Linear(input_shape[0], outputs, bias=bias)

def anything(input_shape, outputs, **options):
    return nn.Linear(input_shape[0], options["rows"])

def demanding(input_shape, outputs, *, rows):
    return nn.Linear(input_shape[0], rows)

def wrong(input_shape, outputs):
    return "a model"

def alone():
    return nn.Linear(4, 3)
"""


@pytest.fixture
def custom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "models_zoo_custom.py").write_text(CUSTOM)
    monkeypatch.syspath_prepend(tmp_path)
    return "models_zoo_custom"


def test_a_model_can_be_a_function(custom: str) -> None:
    model = models.build(f"{custom}:build", (4,), 3, bias=False)
    assert {name: tuple(w.shape) for name, w in model.named_parameters()} == {"weight": (3, 4)}
    assert models.build(f"{custom}:anything", (4,), 3, rows=2)(torch.zeros(1, 4)).shape == (1, 2)


def test_mistakes_of_functions_are_named(custom: str) -> None:
    with pytest.raises(ValueError, match=r"must return a torch\.nn\.Module; it returned str"):
        models.build(f"{custom}:wrong", (4,), 3)
    with pytest.raises(ValueError, match="unknown option 'biass'; did you mean 'bias'"):
        models.build(f"{custom}:build", (4,), 3, biass=False)
    with pytest.raises(ValueError, match="missing a required argument: 'rows'"):
        models.build(f"{custom}:demanding", (4,), 3)
    with pytest.raises(ValueError, match="has no function 'nothing'"):
        models.build(f"{custom}:nothing", (4,), 3)
    with pytest.raises(ValueError, match=r"it has to be def alone\(input_shape, outputs\)"):
        models.build(f"{custom}:alone", (4,), 3)
    with pytest.raises(ValueError, match="give the module, not its file: no_such_file:build"):
        models.build("no_such_file.py:build", (4,), 3)
