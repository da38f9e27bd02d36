"""Situations of Lightning's users: a tuner, a second fit, dense checkpoints, loaders without a length, averaging."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.loops import EPOCHS, STEPS, loader, network, rows

pytest.importorskip("lightning")

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.tuner import Tuner

from torchlasso.integrations.lightning import SparseTraining

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`isinstance:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:TargetSparsity"),  # so few steps may not be enough
]


class Regression(LightningModule):
    def __init__(self, dense=False):
        super().__init__()
        self.net, self.lr, self.dense = network(), 0.05, dense

    def training_step(self, batch, index):
        x, y = batch
        return nn.functional.mse_loss(self.net(x), y)

    def configure_optimizers(self):
        groups = tl.param_groups(self.net, tl.L1(), lam=0.02)
        if self.dense:
            return torch.optim.AdamW([{"params": group["params"]} for group in groups], lr=self.lr)
        return tl.ProxAdamW(groups, lr=self.lr)

    @property
    def zeros(self):
        weights = [p for p in self.net.parameters() if p.dim() > 1]
        return 1 - sum(int(p.count_nonzero()) for p in weights) / sum(p.numel() for p in weights)


def target():
    return SparseTraining(lambda optimizer, steps: tl.TargetSparsity(optimizer, 0.6, steps=steps))


def trainer(folder, *callbacks, **options):
    return Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": EPOCHS, "logger": False, "enable_checkpointing": False, **options},
    )


def reached(sparse, module, steps):
    [control] = sparse._control.controllers
    assert (control.done, control.steps) == (steps, steps)
    assert module.zeros == pytest.approx(0.6, abs=0.1)


def test_a_search_for_the_rate_comes_before_the_training(tmp_path):
    sparse, module = target(), Regression()
    fitted = trainer(tmp_path, sparse)
    Tuner(fitted).lr_find(module, loader(), num_training=15, update_attr=False)
    fitted.fit(module, loader())
    reached(sparse, module, STEPS)


def test_a_second_fit_has_the_steps_that_are_left(tmp_path):
    sparse, module = target(), Regression()
    fitted = trainer(tmp_path, sparse)
    fitted.fit(module, loader())
    reached(sparse, module, STEPS)
    fitted.fit_loop.max_epochs = EPOCHS + 3
    fitted.fit(module, loader())
    assert fitted.global_step == STEPS + 3 * STEPS // EPOCHS
    reached(sparse, module, 3 * STEPS // EPOCHS)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_dense_training_goes_on_with_a_penalty(tmp_path):
    dense = ModelCheckpoint(tmp_path, "dense")
    module = Regression(dense=True)
    trainer(tmp_path, dense, enable_checkpointing=True).fit(module, loader())
    assert module.zeros == 0
    sparse, module = target(), Regression()
    fitted = trainer(tmp_path, sparse, max_epochs=2 * EPOCHS)
    fitted.fit(module, loader(), ckpt_path=dense.best_model_path, weights_only=True)
    assert fitted.global_step == 2 * STEPS
    state = fitted.optimizers[0].state[module.net[0].weight]
    assert int(state["step"]) == 2 * STEPS  # its averages were taken over
    reached(sparse, module, STEPS)


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from zip(*rows(), strict=True)


def test_a_loader_without_a_length_needs_max_steps(tmp_path):
    loader = torch.utils.data.DataLoader(Endless(), batch_size=8)
    with pytest.raises(ValueError, match=r"^SparseTraining: the number of steps .* is not known.*max_steps"):
        trainer(tmp_path, target()).fit(Regression(), loader)
    sparse, module = target(), Regression()
    trainer(tmp_path, sparse, max_epochs=-1, max_steps=STEPS).fit(module, loader)
    reached(sparse, module, STEPS)


@pytest.mark.parametrize("averaging", [lambda: StochasticWeightAveraging(1e-3), WeightAveraging])
def test_averages_of_weights_are_warned_of(averaging, tmp_path):
    with pytest.warns(UserWarning, match="averages the weights of many steps, which are zero only where"):
        trainer(tmp_path, target(), averaging(), max_epochs=2).fit(Regression(), loader())
