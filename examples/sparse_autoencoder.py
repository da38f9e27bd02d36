"""A sparse autoencoder on the hidden activations of a small network: 8 of 128 units are active for each example.

The λ of the penalty is steered to that number, at any scale of the activations, and dead units are drawn back.

    python examples/sparse_autoencoder.py
"""

import torch
from torch import nn

import torchlasso as tl

WANTED, UNITS, STEPS = 8, 128, 800


def activations(count: int) -> torch.Tensor:
    """Return the hidden activations of a network for random inputs: put those of your own network here."""
    generator = torch.Generator().manual_seed(0)
    causes = torch.rand(count, 64, generator=generator) * (torch.rand(count, 64, generator=generator) < 0.1)
    return torch.relu(causes @ torch.randn(64, 32, generator=generator))


def main(scale: float = 1.0) -> tl.Activity:
    torch.manual_seed(0)
    rows = scale * activations(8192)
    coder = nn.Sequential(nn.Linear(32, UNITS), nn.ReLU(), nn.Linear(UNITS, 32))
    optimizer = torch.optim.Adam(coder.parameters(), lr=2e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 5 * (1 - step / STEPS)))
    term = tl.ActivationL1(coder[1], coder[2])  # the units, and the layer that reads them
    control = tl.TargetL0(term, WANTED, STEPS)
    for step in range(STEPS):
        x = rows[torch.randint(len(rows), (256,))]
        loss = (coder(x) - x).square().sum(dim=1).mean()
        optimizer.zero_grad()
        (loss + term()).backward()
        optimizer.step()
        scheduler.step()
        control.step()
        if (step + 1) % 200 == 0:
            print(f"step {step + 1}: loss {loss.item():.4g}, {term.activity()}")
    return term.activity()


if __name__ == "__main__":
    main()
