"""The trainer against a loop written by hand, its schedules and batches, and its measurements."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl
from torchlasso.training.evaluation import evaluate, full_gradient, outputs_of
from torchlasso.training.plan import Plan
from torchlasso.training.rows import EVALUATION_BATCH
from torchlasso.training.schedules import rate
from torchlasso.training.trainer import Step, Trainer, sparsity

CROSS_ENTROPY = nn.functional.cross_entropy


def model_of(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))


def rows_of(n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


class Recorder(nn.Module):
    """A linear model of the numbers of its rows, which remembers which rows it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, 1))
        self.seen: list[list[int]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append([int(value) for value in x.flatten()])
        return x @ self.w


def batches_of(n: int, batch_size: int, epochs: int = 1, seed: int = 0) -> list[list[int]]:
    model = Recorder()
    rows = torch.arange(n, dtype=torch.float32)[:, None], torch.zeros(n, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    trainer = Trainer(model, optimizer, nn.functional.mse_loss, rows, Plan(epochs, batch_size, seed))
    for _ in range(epochs):
        trainer.run_epoch()
    assert trainer.batches * epochs == trainer.steps == len(model.seen)
    return model.seen


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("penalised", ["prox", "extra", "neither"])
def test_the_trainer_is_the_loop_written_by_hand(schedule: str, penalised: str) -> None:
    epochs, size, seed, lr = 3, 8, 5, 0.05
    x, y = rows_of(30)

    def parts() -> tuple[nn.Module, torch.optim.Optimizer, list[dict[str, object]]]:
        model = model_of()
        groups = tl.param_groups(model, tl.L1(), lam=0.05)
        plain = [{"params": group["params"]} for group in groups]
        return model, tl.ProxAdam(groups, lr=lr) if penalised == "prox" else torch.optim.Adam(plain, lr=lr), groups

    model, optimizer, groups = parts()
    extra = (lambda *_: tl.penalty(groups)) if penalised == "extra" else None
    trainer = Trainer(model, optimizer, CROSS_ENTROPY, (x, y), Plan(epochs, size, seed, schedule), extra)
    told = [trainer.run_epoch() for _ in range(epochs)]

    by_hand, optimizer, groups = parts()
    step, steps, means = 0, epochs * 4, []
    for epoch in range(epochs):
        by_hand.train()
        torch.manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(30)
        losses = []
        for batch in order.split(size):
            for group in optimizer.param_groups:
                done = step / steps
                share = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[schedule]
                group["lr"] = lr * share
            loss = CROSS_ENTROPY(by_hand(x[batch]), y[batch])
            losses.append(loss.item())
            optimizer.zero_grad()
            (loss + tl.penalty(groups) if penalised == "extra" else loss).backward()
            optimizer.step()
            step += 1
        means.append(sum(losses) / len(losses))
    assert same(model, by_hand)
    assert told == means
    assert sparsity(groups) == sum(int((p == 0).sum()) for p in groups[0]["params"]) / (24 + 18)
    assert (sparsity(groups) > 0) == (penalised == "prox")


@pytest.mark.parametrize(
    ("name", "values"), [("cosine", [1, 0.75, 0.5, 0]), ("linear", [1, 2 / 3, 0.5, 0]), ("constant", [1, 1, 1, 1])]
)
def test_schedules(name: str, values: list[float]) -> None:
    assert [rate(name, step, 6) for step in (0, 2, 3, 6)] == pytest.approx(values, abs=1e-12)


def test_the_rate_ends_with_the_schedule() -> None:
    model = model_of()
    trainer = Trainer(model, sgd(model), CROSS_ENTROPY, rows_of(20), Plan(2, 5, 0, "linear"))
    rates = []
    for _ in range(2):
        trainer.run_epoch(lambda step: rates.append(trainer.optimizer.param_groups[0]["lr"]))
    assert rates == pytest.approx([0.1 * (1 - k / 8) for k in range(1, 9)])


def test_every_group_s_rate_follows_the_schedule() -> None:
    model = model_of()
    optimizer = torch.optim.SGD([{"params": model[0].parameters(), "lr": 1.0}, {"params": model[4].parameters()}], 0.5)
    trainer = Trainer(model, optimizer, CROSS_ENTROPY, rows_of(20), Plan(2, 10, 0, "linear"))
    trainer.run_epoch()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.25])


@pytest.mark.parametrize(
    ("n", "size", "expected"),
    [
        (12, 4, [4, 4, 4]),
        (14, 4, [4, 4, 4, 2]),
        (13, 4, [4, 4, 4]),
        (3, 4, [3]),
        (1, 4, [1]),
        (5, 1, [1] * 5),
        (4, 4, [4]),
    ],
)
def test_the_last_batch_is_smaller_and_a_single_row_is_left_out(n: int, size: int, expected: list[int]) -> None:
    batches = batches_of(n, size)
    assert [len(batch) for batch in batches] == expected
    rows = [row for batch in batches for row in batch]
    assert len(set(rows)) == len(rows) == sum(expected)


def test_a_row_that_is_left_out_is_another_one_in_each_epoch() -> None:
    batches = batches_of(13, 4, epochs=8)
    left = {(set(range(13)) - {row for batch in batches[3 * k : 3 * k + 3] for row in batch}).pop() for k in range(8)}
    assert len(left) > 2


def test_the_order_differs_by_epoch_and_by_seed_and_is_the_same_again() -> None:
    first, again, other = ([row for batch in batches_of(20, 20, 2, seed) for row in batch] for seed in (0, 0, 1))
    assert first == again
    assert first[:20] != first[20:]
    assert len({tuple(part) for part in (first[:20], first[20:], other[:20], other[20:])}) == 4
    assert first[:20] != list(range(20))


def test_observers_see_every_step() -> None:
    model, told = model_of(), []
    trainer = Trainer(model, sgd(model), CROSS_ENTROPY, rows_of(20), Plan(2, 8))
    means = [trainer.run_epoch(told.append), trainer.run_epoch(told.append)]
    assert [(s.epoch, s.step, s.steps) for s in told] == [
        (1, 1, 6),
        (1, 2, 6),
        (1, 3, 6),
        (2, 4, 6),
        (2, 5, 6),
        (2, 6, 6),
    ]
    assert all(isinstance(step, Step) for step in told)
    assert [told[2].loss, told[5].loss] == means


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_the_training_and_its_step_is_named(value: float) -> None:
    model, calls = model_of(), iter(range(1, 100))

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return CROSS_ENTROPY(outputs, y) * (value if next(calls) == 5 else 1.0)

    trainer = Trainer(model, sgd(model), loss, rows_of(20), Plan(3, 8))
    trainer.run_epoch()
    with pytest.raises(FloatingPointError, match=rf"{value} at step 5, in epoch 2"):
        trainer.run_epoch()
    assert trainer.epoch == 1


def test_training_resumes_from_a_state() -> None:
    def trainer() -> Trainer:
        model = model_of()
        optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=0.01), lr=0.05)
        return Trainer(model, optimizer, CROSS_ENTROPY, rows_of(30), Plan(4, 8))

    whole, first, second = trainer(), trainer(), trainer()
    losses = [whole.run_epoch() for _ in range(4)]
    for _ in range(2):
        first.run_epoch()
    torch.rand(7)  # what others draw in between does not matter
    second.load_state_dict(first.state_dict())
    assert (second.epoch, second.seconds) == (2, first.seconds)
    assert second.seconds > 0
    assert [second.run_epoch() for _ in range(2)] == losses[2:]
    assert same(whole.model, second.model)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": -1}, "epochs"),
        ({"epochs": 1, "batch_size": 0}, "batch_size"),
        ({"epochs": 1, "schedule": "cosin"}, "cosin"),
    ],
)
def test_plans_that_are_refused(arguments: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Plan(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [7, EVALUATION_BATCH, 2 * EVALUATION_BATCH + 5])
def test_the_evaluation_of_classes(n: int) -> None:
    model, (x, y) = model_of(), rows_of(n)
    model.train()
    found = evaluate(model, CROSS_ENTROPY, x, y)
    model.eval()
    with torch.no_grad():
        outputs = model(x)
    wrong = sum(int(a != b) for a, b in zip(outputs.argmax(1).tolist(), y.tolist(), strict=True))
    assert found.error == wrong / n
    assert found.accuracy == pytest.approx(1 - wrong / n, abs=1e-15)
    assert found.loss == pytest.approx(CROSS_ENTROPY(outputs, y).item(), rel=1e-6)
    assert 0 < found.error < 1


def test_the_evaluation_of_numbers() -> None:
    model, x = nn.Linear(4, 2), rows_of(9)[0]
    y = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    found = evaluate(model, nn.functional.mse_loss, x, y)
    assert found.error is found.accuracy is None
    assert found.loss == pytest.approx(((model(x) - y) ** 2).mean().item(), rel=1e-6)


def test_an_evaluation_changes_nothing_and_draws_nothing() -> None:
    model, (x, y) = model_of(), rows_of(40)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first = evaluate(model, CROSS_ENTROPY, x, y)
    assert torch.equal(torch.rand(1), expected)
    assert evaluate(model, CROSS_ENTROPY, x, y) == first
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not outputs_of(model, x).requires_grad


@pytest.mark.parametrize("n", [10, 2 * EVALUATION_BATCH + 77])
def test_the_full_gradient_equals_the_gradient_of_one_batch(n: int) -> None:
    model, (x, y) = model_of().double(), rows_of(n)
    x = x.double()
    full_gradient(model, CROSS_ENTROPY, x, y)
    full_gradient(model, CROSS_ENTROPY, x, y)  # a second time adds nothing
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.eval()
    model.zero_grad()
    CROSS_ENTROPY(model(x), y).backward()
    expected = [p.grad for p in model.parameters()]
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-14)
    assert any(g.abs().max() > 1e-3 for g in found)


@pytest.fixture(autouse=True)
def own_randomness() -> Iterator[None]:
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)
