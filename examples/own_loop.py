"""A loop of your own: a network for handwritten digits that ends with a fifth of its operations.

python examples/own_loop.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import torchlasso as tl

EPOCHS = 30


def main() -> None:
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    x, y, x_test, y_test = x[:1400], y[:1400], x[1400:], y[1400:]
    model = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    units = tl.Units(model, x[:2])
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=units), lam=0.05), lr=5e-3, form="latent")
    steps = EPOCHS * len(x.split(100))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    hold = tl.Hold(optimizer, steps)  # in the last quarter, zeros stay and the other weights move freely
    controls = [tl.TargetBudget(optimizer, model, x[:64], flops=0.2, steps=hold.start), hold]
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(100):
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            for control in controls:
                control.step()
        print(f"epoch {epoch + 1}: loss {loss:.3f}, λ {hold.lam[0]:.2g}")
    small, report = tl.compact(model, x[:2], return_report=True)
    print(report)
    print(f"test accuracy {(small(x_test).argmax(dim=1) == y_test).float().mean():.1%}")
    tl.save(small, "digits.safetensors")


if __name__ == "__main__":
    main()
