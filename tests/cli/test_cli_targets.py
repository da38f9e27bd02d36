"""torchlasso train towards a share of zeros, of operations or of bytes, and with reweighting."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

import torchlasso as tl
from tests.support.command_line import succeed
from torchlasso import data, models
from torchlasso.runs.folder import RunFolder
from torchlasso.training.plan import Plan
from torchlasso.training.trainer import Trainer

pytestmark = pytest.mark.slow

OPTIONS = ("--model", "mlp:width=32,depth=1", "--batch-size", "32", "--lr", "0.03", "--lam", "1e-3", "--epochs", "24")
OPTIONS += ("--recipe", "proximal")
COMBINED = ("--sparsity", "0.5", "--reweight", "0.05", "--refit", "2", "--teacher", "dense", "--compare", "loss-term")
NEW = ("sparsity", "flops", "bytes", "reweight", "refit", "teacher", "path")  # entries that there were not always
NEW += ("recipe", "form", "warmup", "hold")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty inputs, each of less weight than the one before, and three classes."""
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(400, 20)), rng.normal(size=(20, 3)) * 0.8 ** np.arange(20)[:, None]
    path = tmp_path_factory.mktemp("wide") / "wide.npz"
    np.savez(path, x=x, y=(x @ weights + 0.3 * rng.normal(size=(400, 3))).argmax(1))
    return path


def rows_of(path: Path) -> tuple[Tensor, Tensor]:
    """The training rows of a run of the default options."""
    dataset = data.load(str(path))
    kept, _ = data.holdout(dataset.y, 0.1, 0)
    return data.Standardizer.fit(dataset.x[kept])(dataset.x[kept]), dataset.y[kept]


def train(cli: Any, data: Path, out: Path, *more: object) -> Any:
    ended = cli("train", "--data", data, "--out", out, *OPTIONS, *more)
    assert (ended.code, ended.err) == (0, "")
    return ended


@pytest.fixture(scope="module")
def sparse(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with 80 % zeros; not to be written to."""
    out = tmp_path_factory.mktemp("sparse") / "run"
    succeed("train", "--data", wide, "--out", out, *OPTIONS, "--sparsity", "0.8", short=True)
    return out


def test_a_share_of_zeros_is_met(cli: Any, sparse: Path) -> None:
    run = sparse
    summary, lines = cli.summary(run), cli.metrics(run)
    held = [w for w in load_file(run / "model.safetensors").values() if w.dim() == 2]
    zeros = sum(int((w == 0).sum()) for w in held) / sum(w.numel() for w in held)
    assert zeros == summary["sparsity"] == pytest.approx(lines[-1]["sparsity"], abs=1e-12)
    assert zeros == pytest.approx(0.8, abs=0.015)
    lams = [line["lam"] for line in lines]
    assert len(set(lams)) > 12
    assert lams[0] < 1e-3 / 10  # it rises from nothing
    assert summary["lam"] == lams[-1] > lams[0]
    assert summary["stationarity"]["mean"] < 1
    assert json.loads((run / "config.json").read_text())["options"]["sparsity"] == 0.8


def cost_left(run: Path, wide: Path, what: str) -> float:
    """Of the hidden units those count whose output varies with the rows."""
    w = load_file(run / "model.safetensors")
    hidden = nn.functional.linear(rows_of(wide)[0], w["fc1.weight"], w["fc1.bias"]).relu()
    live = int((hidden.std(0) > 1e-6).sum())
    if what == "flops":
        return live / 32
    return (live * (20 + 1 + 3) + 3) / (32 * (20 + 1 + 3) + 3)


@pytest.mark.parametrize(
    ("given", "share"),
    [("--flops 0.5", 0.5), ("--bytes 1800", 1800 / 3084)],
)
def test_a_cost_is_met_by_whole_units(cli: Any, wide: Path, tmp_path: Path, given: str, share: float) -> None:
    """The target is a share of the dense model's cost or a number: 2·(20·32 + 32·3) operations, 4 bytes a parameter."""
    run = tmp_path / "run"
    train(cli, wide, run, "--over", "rows", *given.split(" "))
    assert cost_left(run, wide, given[2:7]) == pytest.approx(share, abs=1.5 / 32)
    summary, held = cli.summary(run), load_file(run / "model.safetensors")
    assert summary["penalised"] == 20 * 32  # the outputs are left alone
    assert bool(held["head.weight"].all())
    assert summary["live_units"] == int((held["fc1.weight"] != 0).any(1).sum()) < 32
    assert len({line["lam"] for line in cli.metrics(run)}) > 12
    assert summary["stationarity"] is None  # of the last tenth, which holds the zeros without λ
    assert cli("report", run).code == cli("predict", run, "--data", wide).code == 0


FIXED = """
from torch import nn


class Pooled(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.wide, self.head = nn.Linear(inputs, 32), nn.Linear(8, outputs)

    def forward(self, x):
        return self.head(self.wide(x).relu().view(-1, 8, 4).mean(-1))


def pooled(input_shape, outputs):
    return Pooled(input_shape[0], outputs)


def shifted(input_shape, outputs):
    return nn.Sequential(nn.Linear(input_shape[0], 32), nn.Tanh(), nn.Linear(32, outputs, bias=False))
"""


def test_a_budget_that_compaction_cannot_keep_is_refused_before_training(
    cli: Any, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fixed_sizes.py").write_text(FIXED)
    monkeypatch.syspath_prepend(tmp_path)
    run, model = tmp_path / "run", ("--model", "fixed_sizes:pooled")
    ended = cli("train", "--data", wide, "--out", run, *OPTIONS, *model, "--over", "rows", "--flops", "0.5")
    cli.assert_refused(ended, "--flops 0.5 cannot be reached", "compact leaves 1,328 (1) at least", "wide.weight (")
    assert not run.exists()


def test_a_budget_that_constants_keep_compaction_from_is_no_success(
    cli: Any, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Biases that are learnt become constants, which the head has no bias for."""
    (tmp_path / "constants.py").write_text(FIXED)
    monkeypatch.syspath_prepend(tmp_path)
    run, model = tmp_path / "run", ("--model", "constants:shifted")
    ended = cli("train", "--data", wide, "--out", run, *OPTIONS, *model, "--over", "rows", "--flops", "0.5", "--strict")
    assert ended.code == 3
    summary = cli.summary(run)
    assert not (load_file(run / "model.safetensors")["0.weight"] != 0).any(1).all()
    assert summary["target_met"] is False
    (sentence,) = [each for each in summary["warnings"] if "Compaction" in each]
    assert sentence.startswith("Compaction leaves 100.0% of the FLOPs instead of 50.0%. Units that stay: 0.weight:0")
    assert sentence.endswith(
        "Dead units with a bias or a shift are constants, which often have to stay; --over units makes both zero."
    )
    assert f"warning: {sentence}" in ended.out


CONTROLS: dict[str, Callable[..., list[Any]]] = {
    "--sparsity 0.5": lambda optimizer, model, x, steps: [tl.TargetSparsity(optimizer, 0.5, steps=steps)],
    "--reweight 0.05": lambda optimizer, model, x, steps: [tl.Reweighted(optimizer, theta=0.05)],
    "--sparsity 0.5 --reweight 0.1": lambda optimizer, model, x, steps: [
        tl.TargetSparsity(optimizer, 0.5, steps=steps),
        tl.Reweighted(optimizer, theta=0.1),
    ],
    "--flops 0.5 --over rows": lambda optimizer, model, x, steps: [
        tl.TargetBudget(optimizer, model, x[:64], flops=0.5, steps=steps)
    ],
    "--bytes 2000 --over rows": lambda optimizer, model, x, steps: [
        tl.TargetBudget(optimizer, model, x[:64], bytes=2000, steps=steps)
    ],
}


@pytest.mark.filterwarnings("ignore::torchlasso.TargetMissed")
@pytest.mark.parametrize("given", CONTROLS)
def test_a_run_is_the_library_s_training(cli: Any, wide: Path, tmp_path: Path, given: str) -> None:
    """With the controllers of λ made by hand, to the last bit."""
    train(cli, wide, tmp_path / "run", "--epochs", "4", *given.split(" "))
    x, y = rows_of(wide)
    torch.manual_seed(0)
    model = models.build("mlp", (20,), 3, width=32, depth=1)
    rows = "rows" in given
    penalty = [tl.Rule("fc1.*", tl.L1(over=tl.Rows()))] if rows else tl.L1()
    optimizer = tl.ProxAdam(tl.param_groups(model, penalty, lam=1e-3), lr=0.03)
    trainer = Trainer(model, optimizer, nn.functional.cross_entropy, (x, y), Plan(4, batch_size=32))
    trainer.controls += CONTROLS[given](optimizer, model, x, trainer.steps)
    for _ in range(4):
        trainer.run_epoch()
    held = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(w, held[name]) for name, w in model.state_dict().items())
    assert cli.summary(tmp_path / "run")["lam"] == max(group["lam"] for group in optimizer.penalised_groups())


def test_reweighted_the_weights_that_are_left_are_larger(cli: Any, wide: Path, sparse: Path, tmp_path: Path) -> None:
    """At one and the same share of zeros."""
    sizes = []
    train(cli, wide, tmp_path / "reweighted", "--sparsity", "0.8", "--reweight", "0.05")
    for run in (sparse, tmp_path / "reweighted"):
        held = [w for w in load_file(run / "model.safetensors").values() if w.dim() == 2]
        sizes.append(torch.cat([w[w != 0] for w in held]).abs().mean().item())
        assert cli.summary(run)["sparsity"] == pytest.approx(0.8, abs=0.03)
    assert sizes[1] > 1.1 * sizes[0]


def test_a_missed_target_is_reported_in_a_line(cli: Any, wide: Path, tmp_path: Path) -> None:
    ended = train(cli, wide, tmp_path / "run", "--sparsity", "0.9", "--epochs", "1", "--lam", "1e-8")
    (line,) = (line for line in ended.out.splitlines() if line.startswith("warning: TargetSparsity: "))
    assert "training ended with 100.00 % of the weights left instead of 10.00 %" in line
    assert "Warning" not in ended.out
    assert cli.summary(tmp_path / "run")["sparsity"] == 0
    ended = train(cli, wide, tmp_path / "other", "--flops", "0.1", "--over", "rows", "--epochs", "1", "--lam", "1e-8")
    assert "TargetBudget" not in ended.out  # whatever λ it starts at, the least units go
    assert 2 / 32 < cost_left(tmp_path / "other", wide, "flops") <= 0.1


@pytest.mark.parametrize("target", ["4", "0.015"])
def test_less_than_a_channel_in_each_layer_takes_is_refused_before_training(
    cli: Any, classes: Path, tmp_path: Path, target: str
) -> None:
    """A target that no λ can reach is refused before the training."""
    ended = cli.train(classes, tmp_path / "run", "--bytes", target, "--over", "rows")
    cli.assert_refused(ended, f"--bytes {target} cannot be reached", "compact leaves 48 (0.16) at least")
    assert not (tmp_path / "run").exists()


def test_the_least_target_that_can_be_reached_leaves_one_unit(cli: Any, classes: Path, tmp_path: Path) -> None:
    ended = cli.train(classes, tmp_path / "run", "--bytes", "48", "--over", "rows")
    assert (ended.code, ended.err) == (0, "")
    assert "TargetBudget" not in ended.out
    assert cli.summary(tmp_path / "run")["live_units"] == 1


BAD = [
    # the arguments, and the parts that the message must contain
    ("--sparsity 0", "share of zeros", "0"),
    ("--sparsity 1", "share of zeros", "1"),
    ("--sparsity 2", "share of zeros", "2"),
    ("--sparsity -0.5", "share of zeros", "-0.5"),
    ("--sparsity nan", "share of zeros", "nan"),
    ("--sparsity abc", "--sparsity"),
    ("--sparsity 0.999", "0.999", "64 weights"),
    ("--sparsity 0.9 --lam 0", "--sparsity", "--lam"),
    ("--flops 0.5 --lam 0", "--flops", "--lam"),
    ("--sparsity 0.9 --flops 0.5", "--sparsity", "--flops"),
    ("--sparsity 0.9 --bytes 0.5", "--sparsity", "--bytes"),
    ("--flops 0.9 --bytes 0.5 --over rows", "--flops", "--bytes"),
    ("--sparsity 0.9 --flops 0.5 --bytes 0.5", "--sparsity", "--flops", "--bytes"),
    *(
        (f"--{name} {value} --over rows", name, value)
        for name in ("flops", "bytes")
        for value in ("0", "-1", "nan", "inf")
    ),
    ("--flops 1e9 --over rows", "flops"),
    ("--bytes abc", "--bytes"),
    *((f"--reweight {value}", "theta", value) for value in ("-1.0", "nan", "inf")),
    ("--reweight 0.1 --over singular-values", "SingularValues"),
]


@pytest.mark.parametrize(("given", "names"), [(b[0], b[1:]) for b in BAD], ids=[b[0] for b in BAD])
def test_invalid_options_are_refused(
    cli: Any, copied: Callable[..., Path], classes: Path, given: str, names: tuple[str, ...]
) -> None:
    """With --overwrite, the run that is there stays."""
    run = copied()
    before = cli.contents(run)
    cli.assert_refused(cli.train(classes, run, "--overwrite", *given.split(" ")), *names)
    assert cli.contents(run) == before


MOMENTS = [
    # at the end of an epoch and within one; the costs share a controller
    *((given, step) for given in ("--sparsity 0.5", "--reweight 0.05") for step in (8, 22)),
    *(("--flops 0.5 --over rows", 8), ("--bytes 0.5 --over rows", 22)),
    *((" ".join(COMBINED), step) for step in (30, 55, 75)),  # in the training, the refit, the comparison
]


SHORT = ("--epochs", "3", "--validation", "0.2")  # eight steps an epoch


@pytest.fixture(scope="module")
def whole_of(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an uninterrupted run with these options; tests must not write into it."""

    @functools.cache
    def trained(given: str) -> Path:
        out = tmp_path_factory.mktemp("whole") / "run"
        succeed("train", "--data", wide, "--out", out, *OPTIONS, *SHORT, *given.split(" "))
        return out

    return trained


@pytest.mark.parametrize(("given", "step"), MOMENTS)
def test_an_interrupted_run_resumes_to_the_last_bit(
    cli: Any,
    wide: Path,
    whole_of: Callable[[str], Path],
    tmp_path: Path,
    stop: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    given: str,
    step: int,
) -> None:
    options, run, whole = [*SHORT, *given.split(" ")], tmp_path / "run", whole_of(given)
    stop(LambdaLR, "step", "before", step)
    assert cli("train", "--data", wide, "--out", run, *OPTIONS, *options).code == 130
    monkeypatch.undo()
    assert cli.resume(run).code == 0
    left, right = cli.contents(run), cli.contents(whole)
    assert set(left) == set(right)
    for name in right:
        if name.endswith("model.safetensors") or name.endswith("config.json"):
            assert left[name] == right[name], name
        if name.endswith("metrics.jsonl"):
            resumed, expected = (cli.metrics((folder / name).parent, timed=False) for folder in (run, whole))
            assert resumed == expected, name
    assert cli.summary(run, timed=False) == cli.summary(whole, timed=False)


@pytest.mark.parametrize("given", [" ".join(COMBINED), "--bytes 0.5 --over rows --refit 1"])
def test_the_configuration_is_enough_to_run_again(cli: Any, wide: Path, tmp_path: Path, given: str) -> None:
    train(cli, wide, tmp_path / "first", "--epochs", "2", *given.split(" "))
    options = json.loads((tmp_path / "first" / "config.json").read_text())["options"]
    assert set(NEW) <= set(options)
    assert options["path"] is None
    ended = cli("train", *cli.as_arguments(options), "--out", tmp_path / "second")
    assert (ended.code, ended.err) == (0, "")
    first, second = cli.contents(tmp_path / "first"), cli.contents(tmp_path / "second")
    assert set(first) == set(second)
    assert all(first[name] == second[name] for name in first if name.endswith(("model.safetensors", "config.json")))


def test_an_earlier_configuration_still_reads(cli: Any, stopped: Path, classes: Path, finished: Path) -> None:
    """Without the entries that there were not then."""
    config = json.loads((stopped / "config.json").read_text())
    for key in NEW:
        assert config["options"].pop(key) in (None, "proximal", 0.0)  # their defaults
    (stopped / "config.json").write_text(json.dumps(config))
    assert RunFolder(stopped).read_experiment().options.sparsity is None
    assert cli.resume(stopped).code == 0
    assert cli("report", stopped).code == cli("predict", stopped, "--data", classes).code == 0
    whole = cli.contents(finished / "classes")["model.safetensors"]
    assert cli.contents(stopped)["model.safetensors"] == whole
