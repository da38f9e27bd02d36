"""LoRA with as many ranks as a layer needs: L1 over the ranks of adapters that begin with eight.

python examples/lora_ranks.py
"""

import peft
import torch
from torch import nn

import torchlasso as tl

RANK, STEPS = 8, 600


def ranks_left(model: nn.Module) -> dict[str, int]:
    """Return the number of ranks of each adapter that are not zero."""
    factors = {name: p for name, p in model.named_parameters() if "lora_A" in name}
    return {name.split(".")[2]: int(p.any(dim=1).sum()) for name, p in factors.items()}


def main() -> dict[str, int]:
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 8))
    x = torch.randn(1024, 16)
    with torch.no_grad():  # a task that differs from the base by two ranks in the first layer, and by one in the last
        task = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 8))
        task.load_state_dict(base.state_dict())
        task[0].weight += 0.3 * torch.randn(32, 2) @ torch.randn(2, 16)
        task[2].weight += 0.3 * torch.randn(8, 1) @ torch.randn(1, 32)
        y = task(x)
    model = peft.get_peft_model(base, peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["0", "2"]))
    groups = tl.param_groups(model, tl.L1(over=tl.lora_ranks(model)), lam=2e-3)
    optimizer = tl.ProxAdamW(groups, lr=1e-2, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
        if (step + 1) % 200 == 0:
            print(f"step {step + 1}: loss {loss.item():.4g}, ranks left {ranks_left(model)}")
    return ranks_left(model)


if __name__ == "__main__":
    main()
