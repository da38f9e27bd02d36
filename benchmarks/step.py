"""The time of one optimizer step, as a ratio to that of torch's own fused AdamW and fused SGD (momentum 0.9).

A round runs every candidate once, in an order drawn anew, all within one process, so that a machine whose speed drifts
is fair to all of them. A time is the median over the rounds, a ratio the median of the ratios within a round. Each
candidate has weights, gradients (the same in every step) and a state of its own:

    torch        torch.optim.AdamW or SGD with fused=True: what the ratios are to
    L1           ProxAdamW or ProxSGD with fused=True, L1() on all weights
    group lasso  the same with L1(over=Filters()) on what has two dimensions or more; "-" where nothing has
    latent       L1 with form="latent", which has one buffer more
    reweighted   the same with Reweighted, which has a threshold for each weight, two buffers more
    latent group the group lasso with form="latent"
    eager loop   L1 with fused=False and foreach=False
    loss term    torch's fused optimizer, with the forward and backward pass of penalty(groups) in the time
    PAT          torchao's PruneOptimizer with ProxLasso around torch's fused optimizer; "-" where it is not installed

In case c one candidate at a time is run beside torch, and the last three for a quarter of the rounds.

    python benchmarks/step.py                           # all cases; --cases ab: some of them
    python benchmarks/step.py --threads 2 --rounds 61
    python benchmarks/step.py --device cuda             # also the share of the bandwidth, and CUDA graphs
    python benchmarks/step.py --growth                  # time per weight, up to 10⁹ weights: takes 9 GB
    python benchmarks/step.py --compilation             # what the first step costs, without and with inductor's cache
    python benchmarks/step.py --choice                  # fused and unfused steps of small tensors
    python benchmarks/step.py --small ...               # any of these on about a hundredth of the weights, to try it
"""

from __future__ import annotations

import argparse
import gc
import operator
import os
import platform
import random
import re
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from math import prod
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from step_candidates import ADAMW, CANDIDATES, CASES, SGD, SLOW, Candidate, Kind, Setting, Shape

WARM_UP = 3
ADAMW_STREAMS = 7  # w, grad, m and v are read, w, m and v written
warnings.filterwarnings("error", "torchlasso goes on without its fused step")  # not to be measured as fused


def clock(step: Callable[[], Any], device: str) -> float:
    """Return the seconds that a step takes."""
    if device == "cpu":
        before = time.perf_counter()
        step()
        return time.perf_counter() - before
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3


class Figure(NamedTuple):
    seconds: float
    ratio: float  # to the first of the candidates


def measure(candidates: dict[Any, Candidate], setting: Setting, every: int = 1) -> dict[Any, Figure]:
    """Return the figures of all candidates; ``every``: only one in this many rounds is run."""
    for candidate in candidates.values():
        for _ in range(WARM_UP):
            candidate.step()
            candidate.restore()
    order = random.Random(0)
    seconds: dict[Any, list[float]] = {name: [] for name in candidates}
    for _ in range(0, setting.rounds, every):
        for name in order.sample(list(candidates), len(candidates)):
            seconds[name].append(clock(candidates[name].step, setting.device))
            candidates[name].restore()
    first = next(iter(seconds.values()))
    return {name: Figure(median(own), median(map(operator.truediv, own, first))) for name, own in seconds.items()}


def measure_case(kind: Kind, shapes: list[Shape], apart: bool, setting: Setting) -> list[Figure | None]:
    """Return a figure for each candidate, or None where it does not apply; ``apart``: one candidate after the other."""
    baseline, *others = CANDIDATES
    figures: dict[str, Figure] = {}
    for names in [[name] for name in others] if apart else [others]:
        gc.collect()  # the candidates measured before
        made = {name: CANDIDATES[name](kind, setting.parameters(shapes)) for name in (baseline, *names)}
        made = {name: candidate for name, candidate in made.items() if candidate}
        if len(made) > 1:
            figures = {**measure(made, setting, every=4 if SLOW.issuperset(names) else 1), **figures}
        del made
    return [figures.get(name) for name in CANDIDATES]


def show(label: str, *cells: Any, head: bool = False) -> None:
    """Print a line of a table, with the ratios of figures."""
    texts = [f"{cell.ratio:.2f}" if isinstance(cell, Figure) else cell or "-" for cell in cells]
    print("\n" * head + f"{label:<30}", *(f"{text:>12}" for text in texts), flush=True)


def show_cases(cases: str, setting: Setting) -> None:
    for kind in (ADAMW, SGD):
        show(f"{kind.base.__name__}, weights in tensors", *CANDIDATES, head=True)
        for case in cases:
            shapes = setting.reduced(*CASES[case])
            figures, n = measure_case(kind, shapes, case == "c", setting), sum(map(prod, shapes))
            show(f"{case}: {n:,} in {len(shapes):,}, ratio", *figures)
            show("   milliseconds", *(figure and f"{1e3 * figure.seconds:.2f}" for figure in figures))
            if case == "c" and kind is ADAMW and setting.device == "cuda":
                old, new = torch.ones(n, device="cuda"), torch.zeros(n, device="cuda")
                copy = measure({"copy": Candidate(lambda old=old, new=new: new.copy_(old))}, setting)["copy"].seconds
                shares = [figure and copy / 2 * ADAMW_STREAMS / figure.seconds for figure in figures[:2]]
                show(f"   of a copy's {8e-9 * n / copy:,.0f} GB/s", *(f"{100 * share:.0f} %" for share in shares))


def show_graphs(setting: Setting) -> None:
    """Time steps of AdamW in case b, captured in a CUDA graph and not captured."""
    params = [setting.parameters(setting.reduced(*CASES["b"])) for _ in range(4)]
    candidates = {
        "torch": ADAMW.plain(params[0]),
        "L1": ADAMW.l1(params[1]),
        "torch, graph": captured(ADAMW.plain(params[2], capturable=True)),
        "L1, graph": captured(ADAMW.l1(params[3], capturable=True)),
    }
    show("AdamW", *candidates, head=True)
    figures = measure(candidates, setting).values()
    show("b, ratio", *figures)
    show("   milliseconds", *(f"{1e3 * figure.seconds:.3f}" for figure in figures))


def captured(candidate: Candidate) -> Candidate:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # torch's manual: the first steps, which make the state, are not captured
        for _ in range(WARM_UP):
            candidate.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        candidate.step()
    return Candidate(graph.replay, lambda: candidate)  # the lambda keeps the tensors of the graph alive


def show_growth(setting: Setting) -> None:
    """Time per weight of one tensor. All sizes are in one round, so that none finds its weights in a cache."""
    show("ProxAdamW, L1", "ns / weight", "ratio", head=True)
    for dtype, powers in ((torch.float32, (6, 7, 8)), (torch.bfloat16, (6, 7, 8, 9))):
        gc.collect()
        sizes = {power: setting.reduced((10**power,)) for power in powers}
        made = {power: ADAMW.l1(setting.parameters(shapes, dtype)) for power, shapes in sizes.items()}
        for power, figure in measure(made, setting).items():
            per_weight, ratio = figure.seconds / prod(sizes[power][0]), figure.ratio / 10 ** (power - powers[0])
            show(f"10^{power} weights, {dtype}".replace("torch.", ""), f"{1e9 * per_weight:.3f}", f"{ratio:.2f}")
        del made


def show_compilation(setting: Setting) -> None:
    """Time first steps, each in a separate process; the second process finds the cache of the first."""
    show("ProxAdamW, L1, case a", "seconds that the first step takes more than later ones", head=True)
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("empty", "filled"):
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                seconds = process.submit(first_step, setting, folder).result()
            show(f"inductor's cache {cache}", f"{seconds:.2f}")


def first_step(setting: Setting, folder: str) -> float:
    """Return how many seconds longer the first step takes than later ones, with inductor's cache in ``folder``."""
    os.environ.update(TORCHINDUCTOR_CACHE_DIR=folder, TRITON_CACHE_DIR=str(Path(folder, "triton")))
    torch.set_num_threads(setting.threads)
    step = ADAMW.l1(setting.parameters(setting.reduced(*CASES["a"]))).step
    first, *later = (clock(step, setting.device) for _ in range(10))
    return first - median(later)


def show_choice(setting: Setting) -> None:
    """Time steps of eight tensors with different total numbers of weights."""
    for kind in (ADAMW, SGD):
        show(f"{kind.prox.__name__}, L1, microseconds", "fused=False", "fused=True", "ratio", head=True)
        for power in range(3, 8):
            shapes = setting.reduced((10**power // 8,)) * 8
            made = {fused: kind.l1(setting.parameters(shapes), fused=fused) for fused in (False, True)}
            unfused, fused = measure(made, setting).values()
            show(f"{sum(map(prod, shapes)):,}", f"{1e6 * unfused.seconds:.0f}", f"{1e6 * fused.seconds:.0f}", fused)


def processor(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    listing = Path("/proc/cpuinfo")
    found = re.search("model name.*: (.*)", listing.read_text()) if listing.exists() else None
    return found[1] if found else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", help="letters of the cases; default: all, or none with another option")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    for option in ("growth", "compilation", "choice", "small"):
        parser.add_argument(f"--{option}", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    setting = Setting(arguments.device, arguments.threads, arguments.rounds, arguments.small)
    asked = {show_growth: arguments.growth, show_compilation: arguments.compilation, show_choice: arguments.choice}
    cases = arguments.cases or ("" if any(asked.values()) else "".join(CASES))
    if not set(cases) <= set(CASES):
        parser.error(f"--cases: expected letters of {''.join(CASES)}; got {cases}")
    print(f"torch {torch.__version__}, threads: {setting.threads}, {processor(setting.device)}", flush=True)
    if cases:
        show_cases(cases, setting)
    for show_this, is_asked in asked.items():
        if is_asked:
            show_this(setting)
    if "b" in cases and setting.device == "cuda":
        show_graphs(setting)


if __name__ == "__main__":
    main()
