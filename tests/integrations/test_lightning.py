"""The callback of Lightning: the weights of a loop by hand, after a resume as well, and smaller models."""

from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.loops import (
    EPOCHS,
    EXAMPLE,
    STEPS,
    ResumableLoader,
    controllers,
    identical_weights,
    loader,
    loop,
    network,
    optimizer_of,
)

pytest.importorskip("lightning")

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision

from torchlasso.integrations.lightning import SparseTraining

pytestmark = [
    pytest.mark.slow,
    # Lightning's own code asks torch in a way that is deprecated, and it advises workers for ten batches
    pytest.mark.filterwarnings("ignore:`isinstance:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
]


class Regression(LightningModule):
    def __init__(self, units: bool = False):
        super().__init__()
        self.net, self.units = network(), units

    def training_step(self, batch, index):
        x, y = batch
        return nn.functional.mse_loss(self.net(x), y)

    def configure_optimizers(self):
        optimizer = optimizer_of(self.net, units=self.units)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def trainer(folder: Path, *callbacks: Callback, **options) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": EPOCHS, "logger": False, "enable_checkpointing": False, **options},
    )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_weights_are_those_of_a_loop_by_hand(accumulate, tmp_path):
    module = Regression()
    trainer(tmp_path, SparseTraining(controllers), accumulate_grad_batches=accumulate).fit(module, loader())
    identical_weights(module.net, loop(accumulate=accumulate))


# the runs that go on from the files write none
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("units", [False, True], ids=["weights", "units that are removed"])
def test_a_training_goes_on_within_an_epoch_to_the_last_bit(units, tmp_path):
    smaller = {"example_inputs": EXAMPLE, "shrink_every": 1, "submodule": "net"} if units else {}

    def fit(*callbacks: Callback, **options) -> nn.Module:
        module, sparse = Regression(units), SparseTraining(controllers, **smaller)
        trainer(tmp_path, sparse, *callbacks, enable_checkpointing=bool(callbacks)).fit(
            module, ResumableLoader(), **options
        )
        return module.net

    whole = fit(ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=5, save_top_k=-1))
    files = sorted(tmp_path.glob("*.ckpt"), key=lambda file: int(file.stem.partition("=")[2]))
    states = [torch.load(file, weights_only=True)["callbacks"]["SparseTraining"] for file in files]
    assert [state["controllers"][0]["done"] for state in states] == list(range(5, STEPS + 1, 5))
    assert bool(states[-2]["shrinks"]) == units
    for file in files[:-1]:  # within an epoch and at its end
        identical_weights(fit(ckpt_path=file, weights_only=True), whole)
    if units:
        assert whole[0].out_features < 16
    else:
        identical_weights(whole, loop())


def test_a_model_becomes_smaller_at_the_end(tmp_path):
    sparse = SparseTraining(controllers, example_inputs=EXAMPLE, compact=True, submodule="net")
    module = Regression(units=True)
    trainer(tmp_path, sparse).fit(module, loader())
    assert sparse.compacted[0].out_features < module.net[0].out_features == 16
    torch.testing.assert_close(sparse.compacted(EXAMPLE + 1), module.net(EXAMPLE + 1))
    assert sparse.report.after.parameters < sparse.report.before.parameters


def test_zeros_and_lam_are_logged(tmp_path):
    logger, sparse = CSVLogger(tmp_path), SparseTraining(controllers)
    module = Regression()
    fitted = trainer(tmp_path, sparse, logger=logger, log_every_n_steps=5)
    fitted.fit(module, loader())
    with Path(logger.log_dir, "metrics.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {"lam", "sparsity", "step", "epoch"} <= lines[0].keys()
    assert [int(line["step"]) for line in lines if line["lam"]] == list(range(4, STEPS, 5))
    assert [line["epoch"] for line in lines if line["sparsity"] and not line["lam"]] == list(map(str, range(EPOCHS)))
    last = float(fitted.callback_metrics["sparsity"])
    assert last == pytest.approx(tl.report(module.net, module.optimizers().penalised_groups()).sparsity)
    assert last > 0.5


def test_a_skipped_step_is_not_one_of_a_controller(tmp_path):
    class Overflow(Callback):
        """Gradients that are infinite in every third step."""

        def on_after_backward(self, trainer, pl_module):
            if trainer.global_step % 3 == 2:
                pl_module.net[0].weight.grad.fill_(torch.inf)

    taken = []
    sparse = SparseTraining(lambda optimizer, steps: taken.append(tl.Warmup(optimizer, steps=steps)) or taken[0])
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0))
    module = Regression()
    module.configure_optimizers = lambda: optimizer_of(module.net)
    trainer(tmp_path, sparse, Overflow(), plugins=[plugin]).fit(module, loader())
    assert taken[0].done == STEPS - STEPS // 3


class TwoOptimizers(LightningModule):
    """Two parts that are trained by hand, one of them every other time."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.one, self.other = network(), network()

    def training_step(self, batch, index):
        x, y = batch
        for part, optimizer in zip((self.one, self.other), self.optimizers(), strict=True):
            if part is self.one or index % 2:
                optimizer.zero_grad()
                self.manual_backward(nn.functional.mse_loss(part(x), y))
                optimizer.step()

    def configure_optimizers(self):
        return [optimizer_of(self.one), optimizer_of(self.other)]


def test_each_of_several_optimizers_has_its_own_controllers(tmp_path):
    taken = []
    sparse = SparseTraining(lambda optimizer, steps: taken.append(tl.Warmup(optimizer, steps=steps)) or taken[-1])
    module = TwoOptimizers()
    trainer(tmp_path, sparse).fit(module, loader())
    assert [control.done for control in taken] == [STEPS, STEPS // 2]
    assert (module.one[0].weight == 0).any()
    assert (module.other[0].weight == 0).any()


class TwoInTurn(LightningModule):
    """One model, whose layers two optimizers train: one of them is proximal, the other has a state of its own."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization, self.net = False, network()

    def training_step(self, batch, index):
        x, y = batch
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(nn.functional.mse_loss(self.net(x), y))
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self):
        first = tl.ProxAdamW(tl.param_groups(self.net[0], tl.L1(over=tl.Rows()), lam=0.02), lr=0.05)
        return [torch.optim.Adam(self.net[2].parameters(), lr=0.05, amsgrad=True), first]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization")  # it saves after the step
def test_a_model_of_several_optimizers_becomes_smaller_and_goes_on_to_the_last_bit(tmp_path):
    def fitted(shrink_every: int, *callbacks: Callback, **options) -> nn.Module:
        sparse = SparseTraining(controllers, example_inputs=EXAMPLE, shrink_every=shrink_every, submodule="net")
        module = TwoInTurn()
        trainer(tmp_path, sparse, *callbacks, enable_checkpointing=bool(callbacks)).fit(
            module, ResumableLoader(), **options
        )
        return module.net

    whole = fitted(1, ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=10, save_top_k=-1))
    assert whole[0].out_features < 16
    files = sorted(tmp_path.glob("*.ckpt"), key=lambda file: int(file.stem.partition("=")[2]))
    assert any(torch.load(file, weights_only=True)["callbacks"]["SparseTraining"]["shrinks"] for file in files[:-1])
    assert len(files) > 3
    for file in files[:-1]:
        again = fitted(1, ckpt_path=file, weights_only=True)
        assert all(map(torch.equal, again.parameters(), whole.parameters()))


def fit(callback: Callback, module: LightningModule | None = None):
    trainer(Path(), callback, max_epochs=1).fit(module or Regression(), loader())


def test_mistakes_are_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match=r"^SparseTraining: controllers must be a function of the optimizer and"):
        SparseTraining(3)
    with pytest.raises(ValueError, match=r"^SparseTraining: give example_inputs, a small batch, for shrink_every"):
        SparseTraining(compact=True)
    with pytest.raises(ValueError, match=r"^SparseTraining: the module has no submodule 'body'; it has net$"):
        fit(SparseTraining(example_inputs=EXAMPLE, compact=True, submodule="body"))
    with pytest.raises(TypeError, match=r"^SparseTraining: controllers must return controllers of λ, such as"):
        fit(SparseTraining(lambda optimizer, steps: [0.9]))
    plain = Regression()
    plain.configure_optimizers = lambda: torch.optim.Adam(plain.parameters())
    with pytest.raises(ValueError, match=r"^SparseTraining: there is no proximal optimizer.*; got Adam$"):
        fit(SparseTraining(), plain)


def test_without_lightning_a_line_says_how_to_install_it(monkeypatch):
    for name in ("lightning", "lightning.pytorch"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "torchlasso.integrations.lightning")
    with pytest.raises(ValueError, match=r"needs lightning: pip install 'torchlasso\[lightning\]'$"):
        importlib.import_module("torchlasso.integrations.lightning")


def test_other_controllers_than_those_of_the_checkpoint_are_refused(tmp_path):
    first = trainer(tmp_path, SparseTraining(controllers), max_epochs=1)
    first.fit(Regression(), loader())
    first.save_checkpoint(tmp_path / "first.ckpt")
    told = r"^SparseTraining: the checkpoint has the state of 2 controllers, and 0 are made here; make the same ones"
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, SparseTraining()).fit(
            Regression(), loader(), ckpt_path=tmp_path / "first.ckpt", weights_only=True
        )


def test_a_controller_of_another_class_than_that_of_the_checkpoint_is_refused(tmp_path):
    first = SparseTraining(lambda optimizer, steps: tl.TargetSparsity(optimizer, 0.5, steps=steps, tolerance=1.0))
    saved = trainer(tmp_path, first, max_epochs=1)
    saved.fit(Regression(), loader())
    saved.save_checkpoint(tmp_path / "first.ckpt")
    other = trainer(tmp_path, SparseTraining(lambda optimizer, steps: tl.Warmup(optimizer, steps=steps)))
    with pytest.raises(
        ValueError, match=r"^the state is that of TargetSparsity\(0\.5, .*, not of Warmup; make the same"
    ):
        other.fit(Regression(), loader(), ckpt_path=tmp_path / "first.ckpt", weights_only=True)


def test_a_target_without_an_end_of_the_training_is_refused(tmp_path):
    target = SparseTraining(lambda optimizer, steps: tl.TargetSparsity(optimizer, 0.5, steps=steps))
    with pytest.raises(ValueError, match=r"^SparseTraining: the number of steps .* is not known, .* set max_steps"):
        trainer(tmp_path, target, max_epochs=-1).fit(Regression(), loader())


class Stop(Callback):
    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = True


def test_a_target_that_was_stopped_early_is_missed_aloud(tmp_path):
    target = SparseTraining(lambda optimizer, steps: tl.TargetSparsity(optimizer, 0.9, steps=steps))
    with pytest.warns(
        tl.TargetMissed, match=r"^TargetSparsity: training ended with .*; there were only \d+ of its \d+ steps$"
    ):
        trainer(tmp_path, target, Stop()).fit(Regression(), loader())
