"""``train`` under torchrun: the weights of one process, the same files, and no process that waits for ever."""

from __future__ import annotations

import math
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import TCPStore

from tests.support import programs
from tests.support.programs import QUIET, Program
from torchlasso.distributed import processes
from torchlasso.runs.folder import RunFolder

pytestmark = pytest.mark.slow

Start = Callable[..., list[Program]]

TORCHRUN = "import warnings; warnings.simplefilter('default'); from torch.distributed.run import main; main()"
SMALL = ["--model", "mlp:width=8,depth=1", "--lr", "0.05", "--lam", "0.02"]
# 86 rows for training: batches of 5 and 4 rows, the last of 5 in shares of 3 and 2
OPTIONS = [*SMALL, "--batch-size", "9", "--epochs", "3", "--compare", "dense,loss-term"]
LOSS = """
import os

from torch import nn

calls = 0


def fails_in_the_second_process(outputs, y):
    global calls
    calls += 1
    if calls == 6 and os.environ["RANK"] == "1":
        raise ValueError("no more")
    return nn.functional.cross_entropy(outputs, y)
"""
UNHURRIED = """
import os
import time

import models_of_ones_own  # in the same folder


def wait(*arguments):
    time.sleep(float(os.environ.get("PAUSE", "0")))


def noisy(input_shape, outputs):
    model = models_of_ones_own.noisy(input_shape, outputs)
    model.register_forward_pre_hook(wait)  # so that there is time to interrupt it
    return model
"""
KILLED = """
import os
import signal
from pathlib import Path

from torch import nn

calls = 0


def killed_once(outputs, y):
    global calls
    calls += 1
    mark = Path(os.environ.get("MARK", "") + os.environ.get("RANK", "0"))
    if calls == 17 and "MARK" in os.environ and not mark.exists():  # in the second epoch of ten steps
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return nn.functional.cross_entropy(outputs, y)
"""

# ``torchlasso train``, with nothing on its page, which says at its end which threads are left
PROGRAM = """
import sys
from pathlib import Path

from torchlasso.cli.main import main
from torchlasso.runs.page import writing

writing.sections = dict
try:
    main(["train", *sys.argv[1:]])
finally:
    names = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    sys.stdout.write(f"threads {[name for name in names if 'gloo' in name]}\\n")  # at once: two processes write
"""


@pytest.fixture
def start() -> Iterator[Start]:
    """Start ``torchlasso train`` in two processes as torchrun does; its launcher takes longer than their training."""
    stores = []
    with ExitStack() as stack:

        def both(*arguments: object, **variables: str) -> list[Program]:
            stores.append(store := TCPStore("localhost", 0, is_master=True, wait_for_workers=False))
            shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2"}
            shared |= {"TORCHELASTIC_RUN_ID": "a-test", "TORCHELASTIC_USE_AGENT_STORE": "True"}
            shared |= {"TORCHELASTIC_RESTART_COUNT": "0", **variables}
            environments = [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
            return [stack.enter_context(Program(("train", *arguments), QUIET, each)) for each in environments]

        yield both


def assert_close(left: Any, right: Any) -> None:
    """Compare the entries, and the numbers up to rounding, except the times."""
    assert type(left) is type(right), (left, right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        for key in left.keys() - {"seconds"}:
            assert_close(left[key], right[key])
    elif isinstance(left, float):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-6)
    else:
        assert left == right


def assert_refused(programs: list[Program], line: str) -> None:
    """One of the processes prints one line, and both end with the exit code 2."""
    ended = [program.end() for program in programs]
    assert [each.code for each in ended] == [2, 2], ended
    assert "".join(each.err for each in ended) == f"error: {line}\n"


def test_two_processes_agree_with_one_and_leave_no_thread(cli: Any, classes: Path, tmp_path: Path) -> None:
    """With the launcher itself."""
    one, two = tmp_path / "one", tmp_path / "two"
    alone = cli("train", "--data", classes, "--out", one, *OPTIONS)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = ["--standalone", "--nproc-per-node", "2", program, "--data", classes, "--out", two, *OPTIONS]
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}  # torch's launcher has warnings
    done = programs.run(*command, code=TORCHRUN, environment=quiet)
    assert (alone.code, done.code, done.err) == (0, 0, "")
    lines = done.out.splitlines()
    assert [line for line in lines if line.startswith("threads ")] == ["threads []"] * 2
    assert len(lines) == len(alone.out.splitlines()) + 2
    assert cli.contents(one).keys() == cli.contents(two).keys()
    assert cli.contents(one)["config.json"] == cli.contents(two)["config.json"]
    for variant in ("", "dense/", "loss-term/"):
        expected, found = (load_file(run / f"{variant}model.safetensors") for run in (one, two))
        assert expected.keys() == found.keys()
        for name, w in expected.items():
            assert torch.equal(w != 0, found[name] != 0), (variant, name)
            assert torch.allclose(w, found[name], rtol=0, atol=1e-5), (variant, name)
        for left, right in zip(cli.metrics(one / variant), cli.metrics(two / variant), strict=True):
            assert_close(left, right)
    summaries = [cli.summary(run) for run in (one, two)]
    for summary in summaries:
        summary.pop("features_read", None)  # of a whole page
    assert_close(*summaries)
    assert cli.summary(two)["nonzero"] < cli.summary(two)["penalised"]


def test_an_interrupted_run_resumes_in_as_many_processes_and_in_one(
    cli: Any, start: Start, classes: Path, models: str, tmp_path: Path
) -> None:
    """To the last bit in as many, with dropout and a batch norm in the model, and dropout of inputs."""
    (tmp_path / "unhurried_models.py").write_text(UNHURRIED)
    code = "unhurried_models:noisy"  # of the module of the fixture
    options = ["--data", classes, "--model", code, "--lam", "0.01", "--lr", "0.01", "--batch-size", "9"]
    options += ["--epochs", "12", "--input-dropout", "0.2", "--label-smoothing", "0.1"]
    assert [program.end().code for program in start(*options, "--out", tmp_path / "whole")] == [0, 0]

    run = tmp_path / "run"
    programs = start(*options, "--out", run, PAUSE="0.03")  # three seconds in all
    programs[0].wait_for(lambda: (run / "metrics.jsonl").exists() and len(cli.metrics(run)) > 1)
    for program in programs:
        program.send(signal.SIGINT)
    ended = [program.end() for program in programs]
    assert [each.code for each in ended] == [130, 130]
    errors = "".join(each.err for each in ended)
    assert errors == f"interrupted; resume with: torchlasso train --resume --out {run} --allow-code {code}\n"
    assert 1 < len(cli.metrics(run)) < 12
    assert not list(run.rglob("*.part"))

    shutil.copytree(run, tmp_path / "in-one")
    programs = start("--resume", "--out", run, "--allow-code", code)
    assert [program.end().code for program in programs] == [0, 0]
    left, right = cli.contents(run), cli.contents(tmp_path / "whole")
    assert left.keys() == right.keys()
    assert left["model.safetensors"] == right["model.safetensors"]
    assert cli.metrics(run, timed=False) == cli.metrics(tmp_path / "whole", timed=False)
    assert cli.summary(run, timed=False) == cli.summary(tmp_path / "whole", timed=False)

    assert cli.resume(tmp_path / "in-one", "--model", code).code == 0
    assert len(cli.metrics(tmp_path / "in-one")) == 12
    assert math.isfinite(cli.summary(tmp_path / "in-one")["loss"])


@pytest.mark.parametrize("first", [2, 1])
def test_a_run_killed_within_an_epoch_resumes_in_another_number_of_processes(
    cli: Any, start: Start, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """From the step that was saved last, with the weights of a run in one process that nobody stopped."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "killed_losses.py").write_text(KILLED)
    run, code = tmp_path / "run", "killed_losses:killed_once"
    options = [*SMALL, "--batch-size", "9", "--epochs", "4", "--save-every", "2", "--loss", code]
    options += ["--sparsity", "0.6", "--hold", "0.3"]
    assert cli("train", "--data", classes, "--out", tmp_path / "whole", *options).code == 0
    mark = {"MARK": str(tmp_path / "mark")}
    if first == 2:
        programs = start("--data", classes, "--out", run, *options, **mark)
        assert -signal.SIGKILL in [program.end().code for program in programs]
    else:
        with Program(("train", "--data", classes, "--out", run, *options), QUIET, mark) as program:
            assert program.end().code == -signal.SIGKILL
    state = RunFolder(run).read_checkpoint()
    assert state is not None
    assert state["epoch"] == 1
    assert state["batch"] in (2, 4, 6, 8)
    resumed = ("--resume", "--out", run, "--allow-code", code)
    if first == 2:
        assert cli("train", *resumed).code == 0
    else:
        assert [program.end().code for program in start(*resumed)] == [0, 0]
    expected, found = (load_file(each / "model.safetensors") for each in (tmp_path / "whole", run))
    for name, w in expected.items():
        assert torch.equal(w != 0, found[name] != 0), name
        assert torch.allclose(w, found[name], rtol=0, atol=1e-5), name
    for left, right in zip(cli.metrics(run), cli.metrics(tmp_path / "whole"), strict=True):
        assert_close(left, right)


def test_an_error_of_all_processes_is_printed_once(start: Start, classes: Path, copied: Any, cli: Any) -> None:
    run = copied()
    before = cli.contents(run)
    programs = start("--data", classes, "--out", run, *SMALL)
    assert_refused(programs, f"{run} already holds a run; give --resume, --overwrite or another --out")
    assert cli.contents(run) == before


def test_an_error_of_the_first_process_ends_all(start: Start, classes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    programs = start("--data", classes, "--out", tmp_path / "file", *SMALL)
    assert_refused(programs, f"{tmp_path / 'file'} is a file; --out must name a folder")


def test_an_error_of_another_process_ends_all(
    start: Start, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an epoch, while the first process waits for its gradients."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_loss_of_ones_own.py").write_text(LOSS)
    options = [*SMALL, "--loss", "a_loss_of_ones_own:fails_in_the_second_process"]
    assert_refused(start("--data", classes, "--out", tmp_path / "run", *options), "no more")


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 17])
def test_the_shares_of_a_batch_make_up_the_batch(monkeypatch: pytest.MonkeyPatch, size: int, n: int) -> None:
    """Their weighted means are its mean, and no share is a single row but where the batch is."""
    values = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows, means, counted = torch.arange(n), [], []
    for rank in range(size):
        monkeypatch.setattr(processes, "_group", processes._Processes(rank, size))
        own, share = processes.own_rows(rows)
        assert len(own) > 1 or n == 1
        means.append(share * values[own].mean().item())
        counted += own.tolist() if share else []
    assert counted == rows.tolist()
    assert sum(means) == pytest.approx(values.mean().item(), abs=1e-15)


def test_the_first_process_draws_the_same_random_numbers_as_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    with torch.random.fork_rng():
        for rank in range(3):
            monkeypatch.setattr(processes, "_group", processes._Processes(rank, 3))
            torch.manual_seed(5)
            processes.own_randomness()
            drawn.append(torch.rand(1).item())
        torch.manual_seed(5)
        assert drawn[0] == torch.rand(1).item()
    assert len(set(drawn)) == 3
