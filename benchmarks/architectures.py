"""The default recipe on many kinds of networks, beside gradual pruning: the error at a wanted share of zeros.

    dense     Adam
    latent    ProxAdam(form="latent") with L1, TargetSparsity, Reweighted and Hold: the recipe of ``torchlasso train``
    pruning   gradual magnitude pruning (Zhu and Gupta 2017): Adam, and the smallest weights of the whole network masked
              along a cubic ramp

Nothing is tuned, for any kind or method. All have the same number of steps, the same rate (0.005) and the same
schedule: a warm-up of 5 %, a constant rate, and half a cosine over the last quarter, in which nothing more becomes
zero. λ is 0.05. So the table shows the error of a first training, not the smallest one that a method can reach. For
both methods, weights are the parameters that ``param_groups`` penalises, without frozen ones.

The networks and their tasks are in ``kinds.py`` and ``tasks.py``: their weights start at all sizes, zero included, and
nothing has to be downloaded. The table has medians over the seeds, in per cent, on rows that were not trained on: the
share of wrong classes or tokens, or of the variance that is not explained. Guessing is one answer for all rows, and a
training that diverges counts as guessing. Where the zeros that were reached differ by more than 2 % of the weights that
were to be left, they are in parentheses.

    python benchmarks/architectures.py

Every run is appended to --out, and started again it goes on from there; so several processes, each with some of the
--kinds, can share a file, and a last one with all of them prints the table.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch
from kinds import KINDS
from peers import Log
from short import HOLD, WARMUP, Case, batches, dense, latent, pruning
from tuning import Run, is_near

import torchlasso as tl
from torchlasso.control.steering import Idle
from torchlasso.training.schedules import rate
from torchlasso.weights import weights_of

RATE, SCHEDULE, LAM = 5e-3, "wsd", 0.05
DENSE, LATENT, PRUNING = "dense", "latent", "pruning"
warnings.simplefilter("ignore", tl.TargetMissed)  # the table has the shares that were reached
warnings.simplefilter("ignore", Idle)  # of the weights that LoRA freezes


def train(name: str, method: str, zeros: float, seed: int, steps: int) -> dict[str, float]:
    """Train a new network; return its number of weights, their zeros, its error, and the processor time in seconds."""
    torch.manual_seed(seed)
    model, task = KINDS[name].model(), KINDS[name].task()
    torch.manual_seed(seed)  # the same batches for every kind
    case = Case(name, name, steps, zeros)
    if method == LATENT:
        training = latent(model, case, RATE, SCHEDULE, LAM)
    else:
        training = {DENSE: dense, PRUNING: pruning}[method](model, case, RATE, SCHEDULE)
    start, (x, y) = time.process_time(), task.train
    for done, batch in enumerate(batches(len(x), steps, task.batch), start=1):
        for group in training.optimizer.param_groups:
            group["lr"] = RATE * rate(SCHEDULE, done - 1, steps, warmup=WARMUP, decay=HOLD)
        training.optimizer.zero_grad()
        task.loss(model(x[batch]), y[batch]).backward()
        training.optimizer.step()
        training.after(done)
    seconds = time.process_time() - start
    model.eval()
    with torch.no_grad():
        error = float(task.error(model(task.test[0]), task.test[1]))
    weights = torch.cat([w.detach().flatten() for _, _, w in weights_of(model) if w.requires_grad])
    return {
        "weights": len(weights),
        "zeros": float((weights == 0).double().mean()),
        "error": error if math.isfinite(error) else task.guess,
        "guess": task.guess,
        "seconds": seconds,
    }


def show(runs: Sequence[Run], shares: Sequence[float]) -> None:
    """Print a Markdown table of the medians over the seeds, and in how many kinds the recipe has the smaller error."""
    names = list(dict.fromkeys(run["part"] for run in runs))

    def of(name: str, method: str, zeros: float, key: str = "error") -> float:
        own = [run for run in runs if (run["part"], run["method"], run["wanted"]) == (name, method, zeros)]
        return float(median(run[key] for run in own))

    def cell(name: str, method: str, zeros: float) -> str:
        reached = of(name, method, zeros, "zeros")
        note = "" if is_near(reached, zeros) else f" ({100 * reached:.2f} %)"
        return f"{100 * of(name, method, zeros):.1f}{note}"

    heads = [f"{100 * zeros:g} %, {method}" for zeros in shares for method in (LATENT, PRUNING)]
    print("\n|", " | ".join(["kind", "weights", "guessing", DENSE, *heads]), "|")
    print("|" + "---|" * (4 + len(heads)))
    for name in names:
        cells = [f"{of(name, DENSE, 0.0, 'weights'):,.0f}"]
        cells += [f"{100 * of(name, DENSE, 0.0, key):.1f}" for key in ("guess", "error")]
        cells += [cell(name, method, zeros) for zeros in shares for method in (LATENT, PRUNING)]
        print("|", " | ".join([name, *cells]), "|")
    print()
    for zeros in shares:
        gains = [of(name, PRUNING, zeros) - of(name, LATENT, zeros) for name in names]
        lower, higher = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
        print(
            f"At {100 * zeros:g} % zeros, {LATENT} has a lower error than {PRUNING} in {lower} of {len(names)} "
            f"kinds and a higher one in {higher}; the median of the differences is {-100 * median(gains):+.1f} points."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--sparsities", type=float, nargs="+", default=[80, 90, 97], help="per cent of zeros")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/architectures.jsonl"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shares, log, runs = [sparsity / 100 for sparsity in arguments.sparsities], Log(arguments.out), list[Run]()
    for name in arguments.kinds:
        for method, zeros in [(DENSE, 0.0), *((method, zeros) for zeros in shares for method in (LATENT, PRUNING))]:
            for seed in arguments.seeds:
                what = {"method": method, "wanted": zeros, "part": name, "seed": seed}
                what["knobs"] = {"steps": arguments.steps}
                runs.append(log.once(what, partial(train, name, method, zeros, seed, arguments.steps)))
    show(runs, shares)


if __name__ == "__main__":
    main()
