"""The callback of Lightning under DDP and FSDP2: the zeros of one process, and a resume to the last bit."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

import torchlasso as tl
from tests.support.cluster import Cluster
from tests.support.loops import (
    EPOCHS,
    EXAMPLE,
    SIZE,
    STEPS,
    ResumableLoader,
    controllers,
    loop,
    network,
    optimizer_of,
    rows,
)
from torchlasso.distributed.sharding import local, whole

pytest.importorskip("lightning")

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from torchlasso.integrations.lightning import SparseTraining

CLUSTER = Cluster()


class Regression(LightningModule):
    def __init__(self, units: bool):
        super().__init__()
        self.net, self.units = network().double(), units

    def training_step(self, batch, index):
        x, y = batch
        return nn.functional.mse_loss(self.net(x.double()), y.double())

    def configure_optimizers(self):
        optimizer = optimizer_of(self.net, units=self.units, example=EXAMPLE.double())
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Sharded(Regression):
    def configure_model(self):
        mesh = self.device_mesh["data_parallel"]
        if isinstance(self.net[0].weight, torch.distributed.tensor.DTensor):
            return
        fully_shard(self.net[0], mesh=mesh)
        fully_shard(self.net, mesh=mesh)


def fit(module: LightningModule, strategy, *callbacks, **options) -> LightningModule:
    folder = [tempfile.mkdtemp()]
    dist.broadcast_object_list(folder)
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        max_epochs=EPOCHS,
        use_distributed_sampler=False,
        default_root_dir=folder[0],
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=any(isinstance(each, ModelCheckpoint) for each in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = ResumableLoader(SIZE // 2, [part[dist.get_rank() :: 2] for part in rows()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning, on its own code and on small examples
        trainer.fit(module, loader, **options)
    return module


def compare(model: nn.Module, plain: nn.Module) -> None:
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(whole(p.detach()), q.detach(), rtol=0, atol=1e-9)
        assert torch.equal(whole(p.detach()) == 0, q == 0)
    assert any((p == 0).any() for p in plain.parameters())


@CLUSTER.scenario("DDP")
def ddp() -> None:
    compare(fit(Regression(False), DDPStrategy(), SparseTraining(controllers)).net, loop(dtype=torch.float64))


def checkpoints() -> tuple[ModelCheckpoint, Path]:
    """Return a callback that keeps a checkpoint at half of the training, and its file."""
    folder = [tempfile.mkdtemp()]
    dist.broadcast_object_list(folder)
    keep = ModelCheckpoint(folder[0], "{step}", every_n_train_steps=STEPS // 2 + 2, save_top_k=-1)
    return keep, Path(folder[0], f"step={STEPS // 2 + 2}.ckpt")


@CLUSTER.scenario("DDP, the model becomes smaller, and goes on")
def smaller() -> None:
    def sparse() -> SparseTraining:
        return SparseTraining(controllers, example_inputs=EXAMPLE.double(), shrink_every=1, submodule="net")

    keep, file = checkpoints()
    module = fit(Regression(True), DDPStrategy(), sparse(), keep)
    assert module.net[0].out_features < 16
    sizes = [None, None]
    dist.all_gather_object(sizes, [p.detach() for p in module.parameters()])
    for p, q in zip(*sizes, strict=True):
        assert torch.equal(p, q)
    again = fit(Regression(True), DDPStrategy(), sparse(), ckpt_path=file, weights_only=True)
    for p, q in zip(again.parameters(), module.parameters(), strict=True):
        assert torch.equal(p, q)


@CLUSTER.scenario("FSDP2")
def fsdp() -> None:
    def strategy():
        return ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)

    keep, file = checkpoints()
    module = fit(Sharded(False), strategy(), SparseTraining(controllers), keep)
    compare(module.net, loop(dtype=torch.float64))
    again = fit(Sharded(False), strategy(), SparseTraining(controllers), ckpt_path=file)
    for p, q in zip(again.parameters(), module.parameters(), strict=True):
        assert torch.equal(local(p.detach()), local(q.detach()))


@CLUSTER.scenario("FSDP2, the model cannot become smaller")
def refused() -> None:
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    options = {"example_inputs": EXAMPLE.double(), "submodule": "net"}
    with pytest.raises(ValueError, match=r"a sharded model cannot become smaller, since FSDP divides the"):
        fit(Sharded(False), strategy, SparseTraining(controllers, shrink_every=1, **options))
    net = network().double()
    fully_shard(net)
    for act in (tl.compact, lambda model, x: tl.shrink_(model, torch.optim.Adam(model.parameters()), x)):
        with pytest.raises(ValueError, match=r"FSDPSequential cannot be exported.*: it is sharded, and its parts have"):
            act(net, EXAMPLE.double())


@pytest.mark.parametrize("name", CLUSTER.scenarios)
def test_lightning(name, check):
    check(name)
