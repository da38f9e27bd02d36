"""Lightning: the digits again, with λ controlled by a callback, and nine tenths of the units removed after training.

pip install 'torchlasso[lightning]' scikit-learn
python examples/lightning_digits.py
"""

import torch
from lightning import LightningModule, Trainer
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import torchlasso as tl
from torchlasso.integrations.lightning import SparseTraining

EXAMPLE, EPOCHS = torch.zeros(2, 64), 20


class Digits(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 10))

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> tl.Proximal:
        penalty = tl.L1(over=tl.Units(self.net, EXAMPLE))
        return tl.ProxAdamW(tl.param_groups(self.net, penalty, lam=0.05), lr=5e-3, form="latent")


def main() -> None:
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=100, shuffle=True)
    sparse = SparseTraining(
        lambda optimizer, steps: tl.TargetSparsity(optimizer, 0.9, steps=steps, count="blocks"),
        example_inputs=EXAMPLE,
        compact=True,
        submodule="net",
    )
    trainer = Trainer(max_epochs=EPOCHS, callbacks=[sparse], accelerator="cpu", log_every_n_steps=10)
    trainer.fit(Digits(), loader)
    print(sparse.report)
    print(f"test accuracy {(sparse.compacted(x[1400:]).argmax(dim=1) == y[1400:]).float().mean():.1%}")
    tl.save(sparse.compacted, "digits.safetensors")


if __name__ == "__main__":
    main()
