"""Weights that no batch has reached yet survive the first steps, and inputs that are always zero still lose theirs."""

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.pairwise import pairwise
from torchlasso.optim.metrics import known_metrics as optimizers

ADAPTIVE = [base for base in optimizers() if base is not torch.optim.SGD]
EACH = pytest.mark.parametrize("base", ADAPTIVE)


class Experts(nn.Module):
    """Experts in one tensor, as current language models keep them; a token goes to one of them."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 6, 4) / 2)

    def forward(self, x, expert):
        return x @ self.weight[expert].T


def change(now: torch.Tensor, before: torch.Tensor) -> float:
    return ((now - before).norm() / before.norm()).item()


@pairwise(base=ADAPTIVE, lam=[1e-4, 1e-6], over=[tl.Elements(), tl.Rows()])
def test_rows_of_an_embedding_that_no_batch_has_drawn(base, lam, over):
    torch.manual_seed(0)
    table, head = nn.Embedding(300, 8), nn.Linear(8, 2)
    before = table.weight.detach().clone()
    groups = tl.param_groups(nn.Sequential(table, head), tl.L1(over=over), lam=lam)
    optimizer = tl.proximal(base)(groups, lr=1e-3)
    drawn = torch.zeros(300, dtype=torch.bool)
    for _ in range(20):
        ids = torch.randint(0, 300, (8,))
        drawn[ids] = True
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(table(ids)), ids % 2).backward()
        optimizer.step()
    assert 100 < drawn.sum() < 200
    assert (table.weight != 0).any(dim=1).all()
    assert change(table.weight.detach()[~drawn], before[~drawn]) < 0.005


@EACH
def test_experts_without_tokens(base):
    torch.manual_seed(0)
    model = Experts()
    before = model.weight.detach().clone()
    optimizer = tl.proximal(base)([model.weight], lr=1e-3, penalty=tl.L1(), lam=1e-4)
    for _ in range(20):
        optimizer.zero_grad()
        (model(torch.randn(16, 4), 3) - 1).square().mean().backward()
        optimizer.step()
    others = [i for i in range(8) if i != 3]
    assert change(model.weight.detach()[others], before[others]) < 0.005
    assert change(model.weight.detach()[3], before[3]) > 0.002


def test_a_pretrained_network_with_inactive_units_keeps_its_outputs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 40), nn.ReLU(), nn.Linear(40, 1))
    with torch.no_grad():  # half of the units are on for each sign of the first input
        model[0].weight[:, 0] = torch.where(torch.arange(40) < 20, 3.0, -3.0)
    x = torch.randn(64, 4)
    x[:, 0] = x[:, 0].abs() + 2
    mirrored = x * torch.tensor([-1.0, 1, 1, 1])
    target, known = model(x).detach() + 0.1, model(mirrored).detach()
    off = model[0].weight[20:].detach().clone()
    optimizer = tl.ProxAdamW(tl.param_groups(model, tl.L1(), lam=1e-5), lr=1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        (model(x) - target).square().mean().backward()
        optimizer.step()
    assert (model[0].weight[20:] - off).abs().max() < 0.01  # four steps of lr in all, and AdamW's decay
    # only the bias and the other units change the outputs; with half of the weights wiped they would be quite different
    assert (model(mirrored) - known).abs().max() < 0.3 * known.abs().max()


@EACH
def test_inputs_that_are_always_zero_lose_their_weights_in_time(base):
    w = nn.Parameter(torch.full((2, 4), 0.05))
    lr = 0.05 if base is torch.optim.Adafactor else 1e-3  # in proportion to the weights
    optimizer = tl.proximal(base)([w], lr=lr, penalty=tl.L1(), lam=1e-4)
    grad = torch.tensor([[1.0, -1.0, 0.0, 1e-12]]).expand(2, 4)
    for step in range(1000):
        w.grad = grad * (-1) ** step
        optimizer.step()
    assert (w[:, 2:] == 0).all()


@pytest.mark.parametrize("base", [base for base in ADAPTIVE if base is not torch.optim.Adafactor])
def test_the_first_steps_are_small_and_grow(base):  # Adafactor's fall with the weights
    w = nn.Parameter(torch.ones(3))
    options = {"weight_decay": 0.0} if base is torch.optim.AdamW else {}
    optimizer = tl.proximal(base)([w], lr=0.1, penalty=tl.L1(), lam=1e-2, **options)
    before, moves = w.detach().clone(), []
    for _ in range(20):
        w.grad = torch.tensor([1.0, -1.0, 0.0])
        optimizer.step()
        moves.append((before - w.detach())[2].item())
        before = w.detach().clone()
    # RAdam starts with momentum steps, whose threshold is lr·λ for all weights
    assert all(0 <= move <= max(0.2 * t / (100 + t), 0.1 * 1e-2 * 1.01) for t, move in enumerate(moves, 1))
    assert moves[-1] > moves[9] > 0


@pytest.mark.parametrize("name", ["foreach", "fused", "reference"])
@pytest.mark.parametrize("over", [tl.Elements(), tl.Rows()], ids=str)
def test_every_way_to_compute_a_step_spares_them_alike(name, over):
    options = {"foreach": {"foreach": True}, "fused": {"fused": True}, "reference": {"foreach": False}}
    results = []
    for kind in (name, "reference"):
        torch.manual_seed(0)
        w = nn.Parameter(torch.randn(40, 8, dtype=torch.float64))
        optimizer = tl.ProxAdam([w], lr=1e-2, penalty=tl.L1(over=over), lam=1e-3, **options[kind])
        for _ in range(6):
            w.grad = torch.randn(40, 8, dtype=torch.float64)
            w.grad[10:] = 0.0
            w.grad[:, 5] = 0.0
            optimizer.step()
        results.append(w.detach())
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)
    torch.manual_seed(0)
    assert change(results[0][10:], torch.randn(40, 8, dtype=torch.float64)[10:]) < 0.005


@pytest.mark.parametrize("base", [torch.optim.Adam, torch.optim.Adagrad, torch.optim.RMSprop])
def test_a_resumed_run_agrees_with_an_uninterrupted_one(base):
    def train(w, optimizer, steps):
        for step in steps:
            w.grad = torch.zeros(6)
            w.grad[step % 3] = 1.0
            optimizer.step()

    def start():
        w = nn.Parameter(torch.ones(6))
        return w, tl.proximal(base)([w], lr=1e-2, penalty=tl.L1(), lam=1e-2)

    whole, other = start(), start()
    train(*whole, range(10))
    train(*other, range(5))
    w, optimizer = start()
    with torch.no_grad():
        w.copy_(other[0])
    optimizer.load_state_dict(other[1].state_dict())
    train(w, optimizer, range(5, 10))
    assert torch.equal(w, whole[0])
