"""Controllers in files and copies: training goes on to the last bit, all of them together."""

import copy
import pickle

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.implementations import same
from tests.support.optimizers import backward, flat, identical, network
from tests.support.pairwise import each_value
from torchlasso.storage import checkpoint

pytestmark = pytest.mark.slow

STEPS = 40
HALF, REST = range(STEPS // 2), range(STEPS // 2, STEPS)
OPTIMIZERS = {
    "SGD momentum": (tl.ProxSGD, {"lr": 0.1, "momentum": 0.9}),
    "Adam": (tl.ProxAdam, {"lr": 0.02}),
    "AdamW": (tl.ProxAdamW, {"lr": 0.02, "weight_decay": 0.1}),
}
RULES = [tl.Rule("0.*", tl.L1()), tl.Rule("2.*", tl.L1(over=tl.Rows()), scale=0.5)]


def curved(done: float) -> float:
    """A shape that can be pickled."""
    return done**2


def controls_of(optimizer: tl.Proximal) -> list[tl.LambdaController]:
    return [
        tl.TargetSparsity(optimizer, 0.6, steps=STEPS, warmup=0.3, tolerance=1.0),
        tl.Warmup(optimizer, steps=STEPS // 3, shape=curved),
        tl.Reweighted(optimizer, theta=0.2, q=0.5),
    ]


def reference_for(model: nn.Module) -> dict:
    return dict(zip(model.parameters(), network(seed=7).parameters(), strict=True))


# name -> optimizer and model ↦ controllers
EACH = {
    "warmup": lambda optimizer, model: [tl.Warmup(optimizer, steps=25)],
    "reweighted": lambda optimizer, model: [tl.Reweighted(optimizer, theta=0.2)],
    "adaptive": lambda optimizer, model: [tl.Reweighted(optimizer, theta=0.2, reference=reference_for(model))],
    "target": lambda optimizer, model: [tl.TargetSparsity(optimizer, 0.6, steps=STEPS, tolerance=1.0)],
    "target of groups": lambda optimizer, model: [
        tl.TargetSparsity(optimizer, [0.5, 0.8], steps=STEPS, scope="group", tolerance=1.0)
    ],
    "all": lambda optimizer, model: controls_of(optimizer),
}


class Run:
    """A training with all that its state is in."""

    def __init__(self, case: str, seed: int = 0, controls=EACH["all"], lam: float = 0.05, **options):
        self.model = network(seed)
        cls, defaults = OPTIMIZERS[case]
        self.optimizer = cls(tl.param_groups(self.model, RULES, lam=lam), **{**defaults, **options})
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, STEPS)
        self.controls = controls(self.optimizer, self.model)

    def train(self, steps) -> list[list[float]]:
        found = []
        for step in steps:
            backward(self.model, step)
            self.optimizer.step()
            self.scheduler.step()
            for control in self.controls:
                control.step()
            found.append([group["lam"] for group in self.optimizer.penalised_groups()])
        return found

    def state_dict(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "controls": [control.state_dict() for control in self.controls],
        }

    def load_state_dict(self, state: dict) -> None:
        for part in ("model", "optimizer", "scheduler"):
            getattr(self, part).load_state_dict(state[part])
        for control, kept in zip(self.controls, state["controls"], strict=True):
            control.load_state_dict(kept)


def through_torch(state, folder):
    torch.save(state, folder / "state.pt")
    return torch.load(folder / "state.pt", weights_only=True)


def through_checkpoint(state, folder):
    checkpoint.save_state(folder / "state.safetensors", state)
    return checkpoint.load_state(folder / "state.safetensors")


WAYS = {
    "torch.save": through_torch,
    "checkpoint": through_checkpoint,
    "deepcopy": lambda state, folder: copy.deepcopy(state),
}
COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda what: pickle.loads(pickle.dumps(what))}


def assert_same_run(one: Run, other: Run) -> None:
    assert identical(one.model, other.model)
    assert same(one.state_dict(), other.state_dict())
    assert same(weights_of(one.optimizer), weights_of(other.optimizer))


def weights_of(optimizer: tl.Proximal) -> list:
    return [optimizer.weights.get(p) for group in optimizer.param_groups for p in group["params"]]


@each_value(case=OPTIMIZERS, way=WAYS)
def test_all_together_resume_to_the_last_bit(case, way, tmp_path):
    whole, first, second = (Run(case, seed) for seed in (0, 0, 1))
    lams = whole.train(range(STEPS))
    assert first.train(HALF) == lams[: len(HALF)]
    second.load_state_dict(WAYS[way](first.state_dict(), tmp_path))
    assert second.train(REST) == lams[len(HALF) :]
    assert_same_run(whole, second)
    assert (flat(whole.model) == 0).any()
    assert len({large for large, _ in lams}) > STEPS // 2


@each_value(name=EACH, way=["torch.save", "checkpoint"])
def test_each_resumes_to_the_last_bit(name, way, tmp_path):
    whole, first, second = (Run("Adam", seed, EACH[name]) for seed in (0, 0, 1))
    whole.train(range(STEPS))
    first.train(HALF)
    state = first.state_dict()["controls"]
    assert same(WAYS[way](state, tmp_path), state)
    second.load_state_dict(WAYS[way](first.state_dict(), tmp_path))
    assert same(second.state_dict()["controls"], state)
    second.train(REST)
    assert_same_run(whole, second)


@pytest.mark.parametrize("way", WAYS)
def test_while_layers_are_kept_from_becoming_empty(way, tmp_path):
    def controls(optimizer, model):
        return [tl.TargetSparsity(optimizer, 0.9, steps=STEPS, warmup=0.0, tolerance=1.0)]

    whole, first, second = (Run("SGD momentum", seed, controls, lam=5.0) for seed in (0, 0, 1))
    whole.train(range(STEPS))
    done = 0
    while done < 5 or min(min(group["lam_scales"]) for group in first.optimizer.param_groups) == 1:
        first.train([done])
        done += 1
    assert done < STEPS - 5
    second.load_state_dict(WAYS[way](first.state_dict(), tmp_path))
    second.train(range(done, STEPS))
    assert_same_run(whole, second)


def test_saving_and_going_on_changes_nothing_and_the_saved_stays_as_it_was():
    run, alone = Run("Adam"), Run("Adam")
    run.train(HALF)
    state = run.state_dict()["controls"]
    kept = copy.deepcopy(state)
    run.train(REST)
    alone.train(range(STEPS))
    assert_same_run(run, alone)
    assert same(state, kept)


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_loading_in_mid_training_restores_the_earlier_state(case):
    run = Run(case)
    run.train(HALF)
    saved = copy.deepcopy(run.state_dict())
    lams = run.train(REST)
    first = flat(run.model)
    run.load_state_dict(saved)
    assert run.train(REST) == lams
    assert torch.equal(flat(run.model), first)


# --- copies ---


@each_value(case=OPTIMIZERS, how=COPIES)
def test_a_copy_of_everything_continues_alike_and_separately(case, how):
    run = Run(case)
    run.train(HALF)
    twin = COPIES[how](run)
    kept = copy.deepcopy(twin.state_dict())
    lams = run.train(REST)
    assert same(twin.state_dict(), kept), "nothing is shared"
    assert twin.train(REST) == lams
    assert_same_run(run, twin)


@each_value(name=EACH, how=COPIES)
def test_each_can_be_copied(name, how):
    run = Run("Adam", controls=EACH[name])
    run.train(HALF)
    twin = COPIES[how](run)
    assert all(control.optimizer is twin.optimizer for control in twin.controls)
    assert twin.train(REST) == run.train(REST)
    assert_same_run(run, twin)


@each_value(case=OPTIMIZERS, how=COPIES)
def test_a_copy_of_the_optimizer_alone_keeps_lam_scales_and_weights(case, how):
    run = Run(case)
    run.train(HALF)
    run.optimizer.param_groups[0]["lam_scales"] = [0.5]
    model, optimizer, scheduler = COPIES[how]((run.model, run.optimizer, run.scheduler))
    twin = Run(case)
    twin.model, twin.optimizer, twin.scheduler, twin.controls = model, optimizer, scheduler, []
    weighted = [p for group in optimizer.penalised_groups() for p in group["params"]]
    assert {id(p) for p in optimizer.weights} == {id(p) for p in weighted}
    assert same(weights_of(optimizer), weights_of(run.optimizer))
    assert optimizer.param_groups[0]["lam_scales"] == [0.5]
    kept = copy.deepcopy(weights_of(optimizer))
    for weights in run.optimizer.weights.values():
        weights.mul_(2.0)
    assert same(weights_of(optimizer), kept), "nothing is shared"
    for weights in run.optimizer.weights.values():
        weights.mul_(0.5)
    run.controls = []
    assert twin.train(REST) == run.train(REST)
    assert identical(run.model, twin.model)


# --- precision ---


def test_weights_are_kept_in_the_precision_that_they_are_computed_in():
    results = []
    for resumed in (False, True):
        w = nn.Parameter(torch.linspace(-1, 1, 33, dtype=torch.bfloat16))
        optimizer = tl.ProxSGD([w], lr=0.1, penalty=tl.L1(), lam=0.3)
        control = tl.Reweighted(optimizer, theta=0.1)
        if resumed:
            control.load_state_dict(copy.deepcopy(control.state_dict()))
        results.append(optimizer.weights[w])
    assert same(*results)
    assert results[0].dtype == torch.float32
