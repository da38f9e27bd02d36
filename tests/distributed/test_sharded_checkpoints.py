"""torch.distributed.checkpoint: training that goes on with other numbers of processes ends where one process ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

import torchlasso as tl
from tests.support.cluster import launch, together
from torchlasso.distributed.sharding import whole

PROCESSES = [2, 1, 3]  # of each leg of the run
STEPS = 6  # of one leg
OPTIMIZERS = {
    "ProxSGD": (tl.ProxSGD, {"lr": 0.2, "momentum": 0.9}),
    "ProxAdam": (tl.ProxAdam, {"lr": 0.05}),
    "ProxAdamW": (tl.ProxAdamW, {"lr": 0.05, "weight_decay": 0.1}),
}
OPTIONS = {"nested": StateDictOptions(), "flattened": StateDictOptions(flatten_optimizer_state_dict=True)}
CASES = [("ProxSGD", "nested"), ("ProxAdam", "flattened"), ("ProxAdamW", "nested")]
OWN = ("lam", "averaging", "lr_peak", "gains", "plain_gains")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1)).double()


def optimizer_of(model: nn.Module, name: str):
    cls, options = OPTIMIZERS[name]
    rules = [tl.Rule("0.*", tl.L1()), tl.Rule("2.*", tl.L1(over=tl.Columns()), scale=0.5)]
    return cls(tl.param_groups(model, rules, lam=0.05), **options)


def train(forward: nn.Module, optimizer, leg: int, rank: int = 0, processes: int = 1) -> None:
    for step in range(leg * STEPS, (leg + 1) * STEPS):
        generator = torch.Generator().manual_seed(step % 3)
        x = torch.randn(6, 6, generator=generator, dtype=torch.float64)
        y = torch.tanh(x[:, :1] - x[:, 1:2])
        for group in optimizer.param_groups:
            group["lr"] = optimizer.defaults["lr"] / (
                1 + step
            )  # the averaging lengthens, so that the gains differ from the plain ones
            group["lam"] *= 1.01  # as a schedule of λ would
        optimizer.zero_grad()
        (forward(x[rank::processes]) - y[rank::processes]).square().mean().backward()
        optimizer.step()


def run_leg(folder: Path, leg: int) -> None:
    """One leg, on every process: take up the state of the one before, train on, save."""
    for name, kind in CASES:
        model = network()
        fully_shard(model[0])
        fully_shard(model)
        optimizer = optimizer_of(model, name)
        if leg:
            for group in optimizer.param_groups:
                group["lam"] = 123.0  # has to come from the file
            weights, state = get_state_dict(model, optimizer, options=OPTIONS[kind])
            stored = {"model": weights, "optimizer": state}
            dcp.load(stored, checkpoint_id=folder / f"{name}-{kind}-{leg - 1}")
            set_state_dict(
                model,
                optimizer,
                model_state_dict=stored["model"],
                optim_state_dict=stored["optimizer"],
                options=OPTIONS[kind],
            )
        train(model, optimizer, leg, dist.get_rank(), dist.get_world_size())
        weights, state = get_state_dict(model, optimizer, options=OPTIONS[kind])
        dcp.save({"model": weights, "optimizer": state}, checkpoint_id=folder / f"{name}-{kind}-{leg}")
        full = {name: whole(p.detach()) for name, p in model.named_parameters()}
        groups = [{key: group[key] for key in OWN} for group in optimizer.param_groups]
        if dist.get_rank() == 0:
            torch.save((full, groups), folder / f"{name}-{kind}-{leg}.pt")


@pytest.fixture(scope="module")
def legs(tmp_path_factory) -> tuple[Path, str]:
    """All legs, one after the other."""
    folder = tmp_path_factory.mktemp("checkpoints")
    code = f"import runpy; runpy.run_path({__file__!r})['run_all_legs']({str(folder)!r})"
    return folder, launch(code, folder)


@pytest.mark.parametrize("leg", range(len(PROCESSES)), ids=[f"leg {i} on {n}" for i, n in enumerate(PROCESSES)])
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_run_resumes_in_one_process(legs, name, kind, leg):
    folder, log = legs
    assert (folder / f"{name}-{kind}-{leg}.pt").exists(), log
    weights, groups = torch.load(folder / f"{name}-{kind}-{leg}.pt", weights_only=True)
    plain = network()
    optimizer = optimizer_of(plain, name)
    for earlier in range(leg + 1):
        train(plain, optimizer, earlier)
    zeros = 0
    for key, p in plain.named_parameters():
        torch.testing.assert_close(weights[key], p.detach(), rtol=0, atol=1e-9)
        assert torch.equal(weights[key] == 0, p == 0)
        zeros += int((p == 0).sum())
    assert zeros
    for group, expected in zip(groups, optimizer.param_groups, strict=True):
        for key in OWN:
            assert group[key] == pytest.approx(expected[key], rel=1e-12), key
    assert groups[0]["gains"] != groups[0]["plain_gains"]


def run_all_legs(folder: str) -> None:
    """Run each leg in its number of processes, forked from this one."""
    for number, processes in enumerate(PROCESSES):
        together(processes, Path(folder, f"store-{number}"), run_leg, Path(folder), number)
