"""FSDP2 through accelerate, in a loop and under the Trainer of transformers: the zeros of one process, and a resume."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

import torchlasso as tl
from tests.support.cluster import Cluster
from tests.support.loops import EPOCHS, SIZE, STEPS, controllers, loop, network, optimizer_of, rows
from torchlasso.distributed.sharding import local, whole

accelerate = pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")


from torchlasso.integrations.transformers import sparsify  # noqa: E402

CLUSTER = Cluster()


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """Let accelerate shard on the CPU, which it does on GPUs only, and forget its state afterwards."""
    states = (accelerate.state.AcceleratorState, accelerate.state.GradientState, accelerate.PartialState)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASTER_ADDR", "localhost")  # asked for, though the processes are a group already
        accelerate.PartialState(cpu=True)
        accelerate.PartialState._shared_state["distributed_type"] = accelerate.DistributedType.MULTI_GPU
        yield
        for state in states:
            state._shared_state.clear()
        for name in ("ACCELERATE_USE_FSDP", "FSDP_VERSION"):
            os.environ.pop(name, None)


def folder() -> Path:
    found = [tempfile.mkdtemp()]
    dist.broadcast_object_list(found)
    return Path(found[0])


def compare(model: nn.Module, plain: nn.Module) -> None:
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        assert isinstance(p, DTensor)
        torch.testing.assert_close(whole(p.detach()), q.detach(), rtol=0, atol=1e-9)
        assert torch.equal(whole(p.detach()) == 0, q == 0)
    assert any((p == 0).any() for p in plain.parameters())


class Run:
    """A training under accelerate with FSDP2, in which controllers step with their optimizer."""

    def __init__(self) -> None:
        plugin = accelerate.FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="no_wrap", cpu_offload=False
        )
        self.accelerator = accelerate.Accelerator(cpu=True, fsdp_plugin=plugin)
        model = network().double()
        optimizer = optimizer_of(model)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.scheduler = scheduler
        self.controls = list(controllers(self.optimizer, STEPS))
        for control in self.controls:
            control.attach()
        self.accelerator.register_for_checkpointing(scheduler, *self.controls)

    def train(self, epochs: int) -> None:
        own = [part[dist.get_rank() :: 2].double().split(SIZE // 2) for part in rows()]
        for _ in range(epochs):
            for x, y in zip(*own, strict=True):
                self.accelerator.backward(nn.functional.mse_loss(self.model(x), y))
                self.optimizer.step()
                self.scheduler.step()
                self.optimizer.zero_grad()


@CLUSTER.scenario("a loop")
def by_accelerate() -> None:
    with on_the_cpu():
        run, place = Run(), folder()
        run.train(EPOCHS // 2)
        run.accelerator.save_state(str(place))
        run.train(EPOCHS - EPOCHS // 2)
        compare(run.model, loop(dtype=torch.float64))
    with on_the_cpu():
        again = Run()
        again.accelerator.load_state(str(place))
        again.train(EPOCHS - EPOCHS // 2)
        for p, q in zip(again.model.parameters(), run.model.parameters(), strict=True):
            assert torch.equal(local(p.detach()), local(q.detach()))


class Rows(torch.utils.data.Dataset):
    """The rows of all processes, which the Trainer deals out."""

    def __init__(self) -> None:
        self.x, self.y = rows()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict:
        return {"x": self.x[i].double(), "labels": self.y[i].double()}


class Regression(nn.Module):
    """A model with a loss, as the Trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network().double()

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict:
        return {"loss": nn.functional.mse_loss(self.net(x), labels)}


@CLUSTER.scenario("the Trainer")
def by_trainer() -> None:
    place = folder()

    def fit(**options) -> nn.Module:
        with on_the_cpu():
            os.environ["FSDP_VERSION"] = "2"
            args = transformers.TrainingArguments(
                str(place),
                num_train_epochs=EPOCHS,
                per_device_train_batch_size=SIZE // 2,
                learning_rate=0.05,
                weight_decay=0.0,
                max_grad_norm=0.0,
                use_cpu=True,
                fsdp="full_shard",
                fsdp_config={"fsdp_version": 2},
                save_strategy="steps",
                save_steps=STEPS // 2,
                train_sampling_strategy="sequential",
                report_to="none",
                disable_tqdm=True,
            )
            args.device  # noqa: B018  it makes the state of accelerate anew
            accelerate.PartialState._shared_state["distributed_type"] = accelerate.DistributedType.MULTI_GPU
            trainer = transformers.Trainer(Regression(), args, train_dataset=Rows())
            sparsify(trainer, tl.L1(), lam=0.02, controllers=controllers)
            trainer.train(**options)
            return trainer.model

    first = fit()
    assert all(isinstance(p, DTensor) for p in first.parameters())
    assert any((whole(p.detach()) == 0).any() for p in first.parameters())
    again = fit(resume_from_checkpoint=str(place / f"checkpoint-{STEPS // 2}"))
    for p, q in zip(again.parameters(), first.parameters(), strict=True):
        assert torch.equal(local(p.detach()), local(q.detach()))


@pytest.mark.parametrize("name", CLUSTER.scenarios)
def test_accelerate(name, check):
    check(name)
