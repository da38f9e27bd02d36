"""Tensors whose weights start unusually large or move slowly: λ of a target in the latent form is larger there."""

import io
from typing import Any

import pytest
import torch
from sklearn import datasets
from torch import nn

import torchlasso as tl
from torchlasso.control import steering
from torchlasso.control.tensor_scales import starts_large

WORDS, SIZE, STEPS = 500, 32, 150
LAYERS = [
    nn.Linear(300, 20),
    nn.Linear(64, 1),
    nn.Conv1d(20, 30, 5),
    nn.Conv2d(20, 30, 3),
    nn.Conv2d(32, 32, 3, groups=32),
    nn.Conv3d(4, 8, 3),
    nn.ConvTranspose2d(20, 30, 3),
    nn.LSTM(20, 40, num_layers=2),
    nn.GRU(20, 40),
    nn.MultiheadAttention(32, 4),
    nn.TransformerEncoderLayer(32, 4, 64),
]
INITIALISATIONS = {
    "kaiming_normal_": nn.init.kaiming_normal_,
    "kaiming_normal_ of outputs": lambda w: nn.init.kaiming_normal_(w, mode="fan_out"),
    "kaiming_uniform_": nn.init.kaiming_uniform_,
    "xavier_normal_": lambda w: nn.init.xavier_normal_(w, gain=5 / 3),
    "orthogonal_": lambda w: nn.init.orthogonal_(w, gain=2**0.5),
    "trunc_normal_": lambda w: nn.init.trunc_normal_(w, std=0.02),
    "zeros_": nn.init.zeros_,
}


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_the_usual_layers_do_not_start_large(layer):
    weights = [w for w in layer.parameters() if w.dim() > 1]
    assert weights
    assert not any(map(starts_large, weights))


@pytest.mark.parametrize("shape", [(32, 512), (512, 32), (64, 3, 7, 7), (128, 512, 1, 1), (512, 1, 3, 3)], ids=str)
@pytest.mark.parametrize("name", INITIALISATIONS)
def test_the_usual_initialisations_do_not_start_large(name, shape):
    torch.manual_seed(0)
    assert not starts_large(INITIALISATIONS[name](torch.empty(shape)))


@pytest.mark.parametrize(
    "shape", [(2000, 16), (1, 197, 64), (1, 1, 64), (17, 64), (36, 9, 12), (64, 64, 3, 3)], ids=str
)
def test_parameters_from_randn_start_large(shape):
    torch.manual_seed(0)
    assert starts_large(torch.randn(shape))
    assert starts_large(3 * torch.rand(shape) - 1.5)
    assert not starts_large(torch.randn(shape) * (torch.rand(shape) < 0.5))  # a trained one with zeros
    assert not starts_large(torch.ones(shape))  # factors, which start at 1


@pytest.mark.parametrize("shape", [(5,), (0, 3), (3, 4), (1, 3, 3)], ids=str)
def test_vectors_and_few_numbers_do_not_start_large(shape):
    torch.manual_seed(0)
    assert not starts_large(10 * torch.randn(shape))


def test_weights_without_values_yet_do_not_start_large():
    assert not starts_large(torch.ones(30, 40, device="meta"))


class Texts(nn.Module):
    """The mean of embedded words, and two layers behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE)
        self.layers = nn.Sequential(nn.Linear(SIZE, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(self.embedding(x).mean(dim=1))


def texts(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts of ten words, most of them rare, whose class is that of the words below 20: even or odd."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (count,), generator=generator)
    x = torch.randint(20, WORDS, (count, 10), generator=generator)
    x[:, :4] = 2 * torch.randint(10, (count, 4), generator=generator) + y[:, None]
    return x, y


def optimizer_of(model: nn.Module, lam: float = 0.05) -> tl.ProxAdam:
    return tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=lam), lr=5e-3, form="latent")


def controls_of(optimizer: tl.ProxAdam, reweighted: bool = True) -> list[tl.LambdaController]:
    held = tl.Hold(optimizer, STEPS, 0.25)
    target = tl.TargetSparsity(optimizer, 0.97, steps=held.start)
    return [target, *([tl.Reweighted(optimizer, theta=0.2)] if reweighted else []), held]


def train(model, optimizer, controls, steps) -> None:
    x, y = texts(1000, 1)
    for step in steps:
        rows = torch.arange(50 * step, 50 * step + 50) % len(x)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        for control in controls:
            control.step()


def error_of(model: nn.Module) -> float:
    x, y = texts(1000, 2)
    return (model(x).argmax(dim=1) != y).float().mean().item()


@pytest.mark.parametrize("reweighted", [True, False])
def test_the_layers_behind_an_embedding_stay(reweighted):
    torch.manual_seed(0)
    model = Texts()
    optimizer = optimizer_of(model)
    train(model, optimizer, controls_of(optimizer, reweighted), range(STEPS))
    left = {name: p.count_nonzero().item() / p.numel() for name, p in model.named_parameters() if p.dim() > 1}
    assert error_of(model) < 0.1
    assert left["layers.0.weight"] > left["embedding.weight"]
    assert sum(p.count_nonzero().item() for p in model.parameters() if p.dim() > 1) == pytest.approx(
        0.03 * 18_176, abs=2
    )


def test_a_resume_keeps_the_sizes():
    torch.manual_seed(0)
    model = Texts()
    optimizer = optimizer_of(model)
    controls = controls_of(optimizer)
    assert not any(name in repr(optimizer) for name in ("sizes", "scales", "large"))  # numbers of each parameter
    train(model, optimizer, controls, range(60))
    file = io.BytesIO()
    torch.save([each.state_dict() for each in (model, optimizer, *controls)], file)
    train(model, optimizer, controls, range(60, STEPS))

    file.seek(0)
    torch.manual_seed(1)
    other = Texts()
    with torch.no_grad():
        other.embedding.weight.mul_(7)  # sizes are those of the start, whatever the weights are before a resume
    again = optimizer_of(other)
    controls = controls_of(again)
    for each, state in zip((other, again, *controls), torch.load(file), strict=True):
        each.load_state_dict(state)
    train(other, again, controls, range(60, STEPS))
    assert all(map(torch.equal, model.parameters(), other.parameters()))


def test_a_second_target_and_new_groups():
    model = Texts()
    optimizer = tl.ProxAdam([model.layers[0].weight], penalty=tl.L1(), lam=0.05, lr=5e-3, form="latent")
    controls_of(optimizer)
    control = tl.TargetSparsity(optimizer, 0.9, steps=STEPS)
    optimizer.add_param_group({"params": [model.embedding.weight], "penalty": tl.L1(), "lam": 0.05})
    optimizer.step()
    control.step()
    grown = 0.05 * 5e-3 * STEPS
    size = (model.embedding.weight.std().item() + grown) / (model.layers[0].weight.std().item() + grown)
    # nothing says that it is a table, but its numbers are unusual
    assert [group["lam_scales"] for group in optimizer.param_groups] == [[1.0], [pytest.approx(size, rel=0.01)]]


@pytest.mark.parametrize("std", [1.0, 0.14, 0.01])
def test_tables_are_relative_to_the_other_weights(std):
    torch.manual_seed(0)
    model = Texts()
    nn.init.normal_(model.embedding.weight, std=std)
    groups = tl.param_groups(model, [tl.Rule("embedding.*", tl.L1()), tl.Rule("*", tl.L1())], lam=0.05)
    assert [group.get("large") for group in groups] == [[True], None, None]
    optimizer = tl.ProxAdam(groups, lr=5e-3, form="latent")
    target, *_ = controls_of(optimizer)
    grown = 0.05 * 5e-3 * target.steps
    others = torch.cat([model.layers[i].weight.detach().flatten() for i in (0, 2)]).square().mean().sqrt().item()
    table = model.embedding.weight.detach().square().mean().sqrt().item()
    size = max(1.0, (table + grown) / (others + grown))
    assert optimizer.param_groups[0]["lam_scales"] == [pytest.approx(size)]
    assert optimizer.param_groups[1]["lam_scales"] == [1.0, 1.0]
    assert optimizer.weights[model.embedding.weight].theta == pytest.approx(0.2 * size)


@pytest.mark.parametrize(("left", "scaled"), [(0.5, False), (0.1, True)])
def test_few_large_weights_leave_room_for_the_others(left, scaled):
    """Such as the frequencies of Fourier features, which are large because they have to be."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 100), nn.Linear(100, 30))
    nn.init.normal_(model[0].weight, std=3.0)
    optimizer = optimizer_of(model)
    tl.TargetSparsity(optimizer, 1 - left, steps=STEPS)
    first, second = optimizer.param_groups[0]["lam_scales"]
    assert (first > 3) == scaled
    assert second == 1.0


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_magnitudes_are_relative_to_the_other_weights(norm):
    """Each has the norm of a row, and starts as many times above a weight as the square root of the row's length."""
    model = nn.Sequential(norm(nn.Linear(100, 200)), nn.ReLU(), nn.Linear(200, 2))
    optimizer = optimizer_of(model)
    controls_of(optimizer)
    group = optimizer.param_groups[0]
    assert group["large"] == [True, False]
    assert group["lam_scales"][0] > 3
    assert group["lam_scales"][1] == 1.0


def test_a_table_alone_is_relative_to_nothing():
    table = nn.EmbeddingBag(200, 8)
    optimizer = tl.ProxAdam(tl.param_groups(table, tl.L1(), lam=0.05), form="latent")
    tl.TargetSparsity(optimizer, 0.9, steps=STEPS)
    assert optimizer.param_groups[0]["lam_scales"] == [1.0]


def test_trained_layers_that_are_large_have_no_factor():
    """As on a path, whose points start from trained weights."""
    torch.manual_seed(0)
    model = Texts()
    optimizer = optimizer_of(model)
    train(model, optimizer, controls_of(optimizer), range(STEPS))
    with torch.no_grad():
        model.layers[0].weight.mul_(20)
    optimizer = optimizer_of(model)
    controls_of(optimizer)
    assert optimizer.param_groups[0]["lam_scales"][1:] == [1.0, 1.0]


class Positions(nn.Module):
    """Digits as rows of pixels with positions from ``torch.randn``, each read by its own layer, and a layer behind."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(1, 8, 64))
        self.local = nn.Parameter(torch.randn(8, 8, 64))
        self.layers = nn.Sequential(nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.unflatten(1, (8, 8))
        return self.layers(torch.einsum("bpi,pio->bpo", rows, self.local) + self.places)


def test_the_layers_behind_parameters_from_randn_stay(monkeypatch):
    error, last = trained_on_digits(Positions)
    monkeypatch.setattr(steering, "scale_tensors_", lambda groups, steps, share: None)
    error_before, last_before = trained_on_digits(Positions)
    print(error, last, error_before, last_before)
    assert error < 0.2 < error_before
    assert last > 3 * last_before


def layers_at(model: nn.Module, rates: list[float], **options: Any) -> tl.ProxAdam:
    """Make an optimizer with another rate for each linear layer."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    groups = [
        {"params": [layer.weight], "penalty": tl.L1(**options), "lam": 0.05, "lr": rate}
        for layer, rate in zip(layers, rates, strict=True)
    ]
    return tl.ProxAdam([*groups, {"params": [layer.bias for layer in layers], "penalty": None}], lr=5e-3, form="latent")


@pytest.mark.parametrize("scheduled", [False, True])
def test_lam_is_in_inverse_proportion_to_rates(scheduled):
    model = nn.Sequential(nn.Linear(8, 9), nn.Linear(9, 9), nn.Linear(9, 2))
    optimizer = layers_at(model, [5e-4, 2e-3, 5e-3])
    if scheduled:  # and so at a rate of 0
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, step / 10))
    controls_of(optimizer)
    found = [group["lam_scales"] for group in optimizer.param_groups[:3]]
    assert found == [[pytest.approx(10)], [pytest.approx(2.5)], [1.0]]
    assert [optimizer.weights[layer.weight].theta for layer in model] == [0.2] * 3  # rates say nothing of sizes


def test_rates_do_not_matter_for_blocks():
    model = nn.Sequential(nn.Linear(8, 9), nn.Linear(9, 9), nn.Linear(9, 2))
    optimizer = layers_at(model, [5e-4, 2e-3, 5e-3], over=tl.Columns())
    controls_of(optimizer)
    assert [group["lam_scales"] for group in optimizer.param_groups[:3]] == [[1.0]] * 3


def trained_on_digits(build, rates: tuple[float, ...] = ()) -> tuple[float, float]:
    """Return the error at 90 % zeros, and the share of the last layer that is left."""
    digits = datasets.load_digits()
    x, y = torch.tensor(digits.data / 8 - 1, dtype=torch.float32), torch.tensor(digits.target)
    torch.manual_seed(0)
    model = build()
    optimizer = layers_at(model, [*rates]) if rates else optimizer_of(model)
    held = tl.Hold(optimizer, STEPS, 0.25)
    controls = [tl.TargetSparsity(optimizer, 0.9, steps=held.start), held]
    for step in range(STEPS):
        rows = torch.arange(128 * step, 128 * step + 128) % 1400
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        for control in controls:
            control.step()
    wrong = model(x[1400:]).argmax(dim=1) != y[1400:]
    *_, last = (layer.weight for layer in model.modules() if isinstance(layer, nn.Linear))
    return wrong.float().mean().item(), last.count_nonzero().item() / last.numel()


def test_layers_with_higher_rates_stay(monkeypatch):
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))

    rates = (6e-4, 2e-3, 6e-3)  # they fall towards the first layer
    error, last = trained_on_digits(build, rates)
    monkeypatch.setattr(steering, "scale_tensors_", lambda groups, steps, share: None)
    error_before, last_before = trained_on_digits(build, rates)
    print(error, last, error_before, last_before)
    assert error < 0.2 < error_before
    assert last > 3 * last_before


@pytest.mark.parametrize("form", ["proximal", "latent"])
def test_without_a_target_or_in_the_default_form_lam_is_as_given(form):
    model = Texts()
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=0.05), lr=5e-3, form=form)
    tl.Reweighted(optimizer)
    if form == "proximal":
        tl.TargetSparsity(optimizer, 0.9, steps=STEPS)
    assert {scale for group in optimizer.param_groups for scale in group["lam_scales"]} == {1.0}


def test_with_one_lam_for_all_they_go(monkeypatch):
    monkeypatch.setattr(steering, "scale_tensors_", lambda groups, steps, share: None)
    torch.manual_seed(0)
    model = Texts()
    optimizer = optimizer_of(model)
    train(model, optimizer, controls_of(optimizer), range(STEPS))
    assert error_of(model) > 0.2
