"""The penalty that CONTRIBUTING.md shows is complete: the laws hold for it, and the command line finds it."""

import re
from pathlib import Path

import pytest
import torch

import torchlasso as tl
from torchlasso.penalties import base
from torchlasso.runs import choices


@pytest.fixture
def capped(monkeypatch):
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(from dataclasses.*?)```", text, flags=re.DOTALL)
    monkeypatch.setattr(base._REGISTRY, "_known", dict(base._REGISTRY))
    space: dict = {"__name__": "contributed"}
    exec(compile(code, "CONTRIBUTING.md", "exec", dont_inherit=True), space)
    return space["CappedL1"]


@pytest.mark.parametrize("step", [0.01, 0.5, 3.0, 1e4])
def test_its_prox_is_the_global_minimum(capped, step):
    penalty = capped(theta=0.7)
    r = torch.linspace(0, 4, 201, dtype=torch.float64)
    grid = torch.linspace(0, 4, 4001, dtype=torch.float64)
    cost = (grid - r[:, None]).square() / 2 + step * penalty.phi(grid, 0.6)
    ours = penalty.prox_phi(r, 0.6, step)
    assert ((ours - r).square() / 2 + step * penalty.phi(ours, 0.6) <= cost.min(dim=1).values + 1e-12).all()


def test_everything_else_follows(capped):
    w = torch.tensor([[3.0, 4.0], [0.1, 0.0]])
    penalty = capped(theta=1.0, over=tl.Rows(weighted=False))
    torch.testing.assert_close(penalty.prox(w, 0.5, 1.0), torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    assert penalty.support(penalty.prox(w, 0.5, 1.0)).tolist() == [True, False]
    assert penalty.lambda_max(w).item() == pytest.approx(5.0)
    with pytest.raises(ValueError, match="per-coordinate step"):
        penalty.prox(w, 0.5, torch.ones(2, 2))


def test_the_command_line_finds_it_and_an_optimizer_trains_with_it(capped):
    penalty = choices.parse_penalty("capped-l1:theta=0.3", None)
    assert penalty == capped(theta=0.3)
    w = torch.nn.Parameter(torch.tensor([2.0, 0.05]))
    optimizer = tl.ProxAdam([w], lr=0.05, penalty=penalty, lam=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        ((w - torch.tensor([2.0, 0.1])).square() / 2).sum().backward()
        optimizer.step()
    torch.testing.assert_close(w.data, torch.tensor([2.0, 0.0]))
