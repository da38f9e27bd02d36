"""Input dropout, augmentation and another loss: their formulas, their place in a training, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl
from torchlasso.distributed import processes
from torchlasso.training import InputDropout, Plan, RandomCrop, RandomFlip, Regularisation, Trainer
from torchlasso.training.evaluation import evaluate, outputs_of
from torchlasso.training.regularisation import ROWS, background_of

CROSS_ENTROPY = nn.functional.cross_entropy
SMOOTHED = partial(CROSS_ENTROPY, label_smoothing=0.2)


def images_of(n: int, channels: int = 2, height: int = 6, width: int = 8) -> Tensor:
    """Images whose pixels all differ, apart from a background of 0.5 + channel in a half of them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n, channels, height, width, generator=generator)
    images[..., : width // 2] = (0.5 + torch.arange(channels)).view(1, -1, 1, 1)
    return images


@pytest.mark.parametrize("n", [1, 7, ROWS, ROWS + 1, 5 * ROWS + 3])
def test_the_background_is_a_common_value_or_the_mean(n: int) -> None:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(n))
    x[:, 1] = 3.0
    x[::3, 2] = -2.0
    x[:, 3] = (torch.arange(n) % 2).float()
    found = background_of(x)
    assert found.shape == (1, 4)
    assert found[0, 0] == pytest.approx(x[:, 0].mean().item(), abs=1e-6) or n < 5
    assert found[0, 1:].tolist() == [3.0, -2.0, 0.0]


def test_the_background_of_images_is_found_by_channel() -> None:
    found = background_of(images_of(9, channels=3))
    assert found.shape == (1, 3, 1, 1)
    assert found.flatten().tolist() == [0.5, 1.5, 2.5]
    few = torch.randn(9, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    few[:, :, 0, 0] = 7.0  # a twenty-fifth
    assert torch.allclose(background_of(few), few.mean(dim=(0, 2, 3), keepdim=True))


@pytest.mark.parametrize("shape", [(50, 40), (50, 3, 8, 5), (50, 3, 40)])
@pytest.mark.parametrize("p", [0.1, 0.6])
def test_an_input_goes_to_the_background_or_is_scaled(shape: tuple[int, ...], p: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)
    dropout = InputDropout(p, torch.full((1, shape[1], *[1] * (len(shape) - 2)), 0.25))
    draws = torch.stack([dropout(x) for _ in range(200)])
    dropped = draws == 0.25
    assert torch.equal(draws[~dropped], (0.25 + (x - 0.25) / (1 - p)).expand_as(draws)[~dropped])
    assert dropped.double().mean().item() == pytest.approx(p, abs=0.01)
    assert (draws.mean(dim=0) - x).abs().mean() < 0.1 * (p / (1 - p)) ** 0.5  # the mean is x
    if len(shape) > 2:  # a pixel in all channels
        assert torch.equal(dropped.all(dim=2), dropped.any(dim=2))


def test_input_dropout_without_a_background_is_dropout() -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 30)
    found = InputDropout(0.3)(x)
    assert torch.equal(found[found != 0], (x / 0.7)[found != 0])
    assert InputDropout.fit(x, 0.3).background.shape == (1, 30)


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan"), "0.2", True])
def test_probabilities_that_are_refused(p: Any) -> None:
    with pytest.raises(ValueError, match="p of the input dropout must be a probability, at least 0 and below 1; got"):
        InputDropout(p)


@pytest.mark.parametrize("padding", [None, 2])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_crop_is_a_window_of_the_padded_image(padding: int | None, channels_last: bool) -> None:
    torch.manual_seed(0)
    x = images_of(60)
    background = torch.tensor([0.5, 1.5]).view(2, 1, 1)
    least = 1 if padding is None else padding  # an eighth of 6 pixels is below one
    padded = background.expand(60, 2, 6 + 2 * least, 8 + 2 * least).clone()
    padded[:, :, least:-least, least:-least] = x
    given = x.to(memory_format=torch.channels_last) if channels_last else x
    crops, found = RandomCrop(given, padding)(given), set()
    for crop, image in zip(crops, padded, strict=True):
        windows = [(i, j) for i in range(2 * least + 1) for j in range(2 * least + 1)]
        places = [(i, j) for i, j in windows if torch.allclose(crop, image[:, i : i + 6, j : j + 8], atol=1e-6)]
        assert places
        found |= set(places[:1])
    assert len(found) >= 8


def test_a_flip_mirrors_half_of_the_images() -> None:
    torch.manual_seed(0)
    x = images_of(400)
    flipped = RandomFlip()(x)
    same = (flipped == x).flatten(1).all(dim=1)
    assert torch.equal(flipped[~same], x[~same].flip(-1))
    assert 160 < int(same.sum()) < 240


def test_what_is_not_an_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    table, codes = torch.zeros(4, 3), torch.zeros(4, 3, dtype=torch.long)
    for call, name in ((lambda: RandomCrop(table), "crop"), (lambda: RandomFlip()(table), "flip")):
        with pytest.raises(ValueError, match=rf"'{name}' needs images, \(n, channels, height, width\); .* \(4, 3\)"):
            call()
    pixels = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    calls: list[Callable[[], Any]] = [lambda: RandomCrop(pixels), lambda: RandomFlip()(pixels)]
    calls += [lambda: InputDropout(0.1)(codes), lambda: InputDropout.fit(codes, 0.1)]
    for call in calls:
        with pytest.raises(TypeError, match=r"needs inputs that are floating-point numbers; got torch\.(uint8|int64)"):
            call()
    for padding in (0, 9, 1.5):
        with pytest.raises(ValueError, match="padding of the augmentation 'crop' must be"):
            RandomCrop(torch.zeros(2, 1, 8, 8), padding)

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name, name=name)

    monkeypatch.setattr("torchlasso._core.extras.importlib.import_module", missing)
    for make, name in ((lambda: RandomCrop(torch.zeros(2, 1, 8, 8)), "crop"), (RandomFlip, "flip")):
        with pytest.raises(ValueError, match=rf"'{name}' needs kornia: pip install 'torchlasso\[augment\]'"):
            make()


@pytest.mark.parametrize("returned", [torch.zeros(3, 4), None, [1.0]])
def test_a_transform_that_returns_something_else_is_refused(returned: Any) -> None:
    with pytest.raises(TypeError, match=r"a transform must return a batch like a tensor of shape \(4, 4\)"):
        Regularisation([lambda x: returned]).inputs(torch.zeros(4, 4))


def trainer_of(regularisation: Regularisation, *, size: int = 8) -> Trainer:
    torch.manual_seed(3)
    x, y = images_of(30), torch.arange(30) % 3
    model = nn.Sequential(nn.Flatten(), nn.Linear(96, 6), nn.Dropout(0.3), nn.ReLU(), nn.Linear(6, 3))
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=0.01), lr=0.02)
    trainer = Trainer(model, optimizer, CROSS_ENTROPY, (x, y), Plan(4, size))
    trainer.regularisation = regularisation
    return trainer


def everything() -> Regularisation:
    x = images_of(30)
    return Regularisation([RandomCrop(x), RandomFlip(), InputDropout.fit(x, 0.2)], SMOOTHED)


def test_the_loss_that_is_minimised_is_not_the_one_that_is_reported() -> None:
    """Each step has the gradient of the smoothed loss, and the plain loss is reported."""
    trainer, by_hand = (trainer_of(Regularisation(loss=SMOOTHED), size=30) for _ in range(2))
    reported = trainer.run_epoch()
    by_hand.model.train()
    torch.manual_seed(0)
    order = torch.randperm(30)
    outputs = by_hand.model(by_hand.x[order])
    SMOOTHED(outputs, by_hand.y[order]).backward()
    by_hand.optimizer.step()
    for p, q in zip(trainer.model.parameters(), by_hand.model.parameters(), strict=True):
        assert torch.equal(p, q)
    assert reported == CROSS_ENTROPY(outputs, by_hand.y[order]).item()


def test_rows_are_changed_in_training_only() -> None:
    calls = []

    def counted(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x.mul_(0)  # in place: the rows themselves stay

    trainer = trainer_of(Regularisation([counted]))
    rows = trainer.x.clone()
    evaluate(trainer.model, CROSS_ENTROPY, trainer.x, trainer.y)
    outputs_of(trainer.model, trainer.x)
    assert not calls
    first = trainer.model[1].weight.detach().clone()
    trainer.run_epoch()
    assert calls == [8, 8, 8, 6]
    assert torch.equal(trainer.x, rows)
    assert (trainer.model[1].weight.abs() <= first.abs()).all()  # shrunk, as all inputs were zeros


def test_a_training_with_all_of_it_resumes_to_the_bit() -> None:
    whole, first, second, without = (trainer_of(made) for made in (*(everything() for _ in range(3)), Regularisation()))
    losses = [whole.run_epoch() for _ in range(4)]
    for _ in range(2):
        first.run_epoch()
    torch.rand(7)  # what others draw in between does not matter
    second.load_state_dict(first.state_dict())
    assert [second.run_epoch() for _ in range(2)] == losses[2:]
    for p, q in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(p, q)
    assert [without.run_epoch() for _ in range(4)] != losses


def test_each_process_draws_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    x, regularisation, drawn = images_of(30), everything(), []
    with torch.random.fork_rng():
        for rank in range(2):
            monkeypatch.setattr(processes, "_group", processes._Processes(rank, 2))
            torch.manual_seed(5)
            processes.own_randomness()
            drawn.append(regularisation.inputs(x))
        torch.manual_seed(5)
        assert torch.equal(regularisation.inputs(x), drawn[0])
    assert not torch.equal(*drawn)
