"""LoRA by rank: a column of B and a row of A die together, with peft's own names and layers."""

import pytest
import torch
from torch import nn

import torchlasso as tl

RANK = 6


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, tl.Proximal, torch.Tensor, torch.Tensor]:
    """Fit an update of rank two with adapters of rank six, and let L1 take away the ranks that it does not need."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(8, 10, bias=False))
    x = torch.randn(256, 8)
    update = torch.randn(10, 2) @ torch.randn(2, 8) / 4
    y = x @ (base[0].weight.detach() + update).T
    model = peft.get_peft_model(base, peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["0"]))
    groups = tl.param_groups(model, tl.L1(over=tl.lora_ranks(model)), lam=0.005)
    optimizer = tl.ProxAdam(groups, lr=0.02)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600)
    for _ in range(600):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        scheduler.step()
    return model, optimizer, x, y


@pytest.mark.slow
def test_the_ranks_that_are_left_are_those_of_the_update(trained):
    model, _, x, y = trained
    factors = {name.rpartition("lora_")[2][0]: p for name, p in model.named_parameters() if "lora_" in name}
    rows, columns = factors["A"].any(dim=1), factors["B"].any(dim=0)
    assert torch.equal(rows, columns)
    assert rows.sum() == 2
    assert nn.functional.mse_loss(model(x), y) < 0.02 * y.var()


@pytest.mark.slow
def test_a_report_counts_ranks(trained):
    model, optimizer, _, _ = trained
    report = tl.report(model, optimizer.penalised_groups())
    assert report.nonzero == 2 * (8 + 10)
    assert report.penalised == RANK * (8 + 10)


def test_a_model_without_factors_is_refused():
    with pytest.raises(ValueError, match="no trained factors that are named lora_A and lora_B"):
        tl.lora_ranks(nn.Linear(2, 2))


def test_factors_that_do_not_fit_are_refused():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lora_A = nn.ModuleDict({"a": nn.Linear(4, 3, bias=False)})
            self.lora_B = nn.ModuleDict({"a": nn.Linear(2, 5, bias=False)})

    with pytest.raises(ValueError, match=r"lora_A.a.weight has .*\(3, 4\), and .*lora_B.a.weight has .*\(5, 2\)"):
        tl.lora_ranks(nn.Sequential(Odd()))
