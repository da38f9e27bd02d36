"""How few words does a CNN for texts need? R8, 3 seeds: the words by group lasso, by frequency, by χ², and all of them.

The network is text-cnn with 64 numbers per word and 50 filters of each width, on the first 128 words of a text. Each
network trains 8 epochs at a learning rate of 1e-2 and, where words were chosen, 6 more at 0.3 of it, all by Adam and
with a rate that falls as a cosine. `torchlasso` chooses the words while it trains, by the group lasso over the rows of
the embedding (--features 5%), and then refits. `dense` reads all words. `frequent` and `chi2` read as many words as
torchlasso, chosen before: the most frequent ones, and those with the largest χ² statistics between a word's presence
and the class, on the training rows. They train 14 epochs. The learning rate was chosen on the validation rows of seed
0; `dense` has the better of two rates on the validation rows of each seed.

    python benchmarks/text.py --data FOLDER_WITH_R8 --out text.jsonl
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_selection import chi2

from torchlasso.data.dividing import SplitOptions
from torchlasso.data.loading import load_splits, selected
from torchlasso.data.text_options import TextOptions
from torchlasso.data.tokenizing import TextEncoding

SEEDS = range(3)
METHODS = ("torchlasso", "dense", "chi2", "frequent")
SHARE = 0.05
NETWORK = ("--model", "text-cnn:dim=64,filters=50", "--max-length", "128", "--batch-size", "64")
RATES = {"dense": ("1e-2", "5e-3")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with R8's train and test files")
    parser.add_argument(
        "--out", required=True, help="file of results, a line for each run; runs in it are not repeated"
    )
    parser.add_argument("--seconds", default="20", help="of the measurement of latencies")
    arguments = parser.parse_args()
    out = Path(arguments.out)
    done = (
        {(each["method"], each["seed"]) for each in map(json.loads, out.read_text().splitlines())}
        if out.exists()
        else set()
    )
    for method, seed in product(METHODS, SEEDS):
        if (method, seed) not in done:
            with tempfile.TemporaryDirectory() as folder:
                found = run(method, seed, arguments.data, Path(folder), arguments.seconds)
            line = json.dumps({"method": method, "seed": seed, **found})
            print(line, flush=True)
            with out.open("a") as file:
                file.write(line + "\n")


def run(method: str, seed: int, data: str, folder: Path, seconds: str) -> dict[str, Any]:
    """Train by a method, and return its figures."""
    count = str(kept_words(data, seed))
    options: dict[str, tuple[str, ...]] = {
        "torchlasso": ("--epochs", "8", "--features", f"{100 * SHARE:g}%", "--refit", "6"),
        "dense": ("--epochs", "8", "--lam", "0"),
        "frequent": ("--epochs", "14", "--lam", "0", "--vocabulary", count),
        "chi2": ("--epochs", "14", "--lam", "0", "--tokenizer", str(folder / "tokenizer.json")),
    }
    if method == "chi2":
        (folder / "tokenizer.json").write_text(by_chi2(data, seed, int(count)))
    trained = []
    for rate in RATES.get(method, ("1e-2",)):
        plan = ("--recipe", "proximal", "--lr", rate, "--seed", str(seed), "--out", str(folder / rate))
        torchlasso("train", "--data", data, *NETWORK, *plan, *options[method])
        summary = json.loads((folder / rate / "summary.json").read_text())
        trained.append(
            {
                "lr": rate,
                "validation_error": summary["validation"]["scores"]["error"]["value"],
                "error": summary["error"],
                "balanced_error": summary["balanced_error"],
                "seconds": summary["seconds"],
            }
        )
    best = min(trained, key=lambda each: each["validation_error"])
    found = best | ({"rates": trained} if len(trained) > 1 else {})
    found |= {} if method == "dense" else {"words": int(count)}
    return found | cost(folder / best["lr"], seconds) if method == "torchlasso" else found


def cost(run: Path, seconds: str) -> dict[str, Any]:
    """Return the words that are read, the share of zeros in the whole model, and the measurements of its forms."""
    report = json.loads(torchlasso("compact", str(run), "--json"))
    measured = json.loads(torchlasso("bench", str(run), "--threads", "1", "--seconds", seconds, "--json"))
    kept = ("name", "batch", "median_ms", "spread_ms", "file_bytes", "error")
    return {
        "words_read": report.get("words", {}).get("after"),
        "vocabulary": report.get("words", {}).get("before"),
        "parameters": report["before"]["parameters"],
        "parameters_left": report["after"]["parameters"],
        "zeros": 1 - report["after"]["parameters"] / report["before"]["parameters"],
        "forms": [{key: each[key] for key in kept} for each in measured["variants"]],
    }


def torchlasso(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "torchlasso", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def vocabulary(data: str, seed: int) -> tuple[TextEncoding, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the words of the training rows of a seed, the presence of each in each row, and the classes."""
    columns = selected(texts=TextOptions(max_length=128))
    found = load_splits(data, columns, SplitOptions(None, None, seed))
    assert found.text is not None
    x, y = found.train
    there = np.zeros((len(x), found.text.words), dtype=bool)
    rows = x[:].numpy()
    np.put_along_axis(there, rows, True, axis=1)
    there[:, 0] = False
    return found.text, there, y.numpy()


def kept_words(data: str, seed: int) -> int:
    """Return the number of words that are kept of all, as --features counts them."""
    return int(SHARE * vocabulary(data, seed)[0].words)


def by_chi2(data: str, seed: int, count: int) -> str:
    """Return a tokenizer of the words with the largest χ² statistics."""
    text, there, y = vocabulary(data, seed)
    scores = np.nan_to_num(chi2(there, y)[0])
    best = np.sort(np.argsort(-scores, kind="stable")[:count])
    return text.with_words(torch.tensor([0, *best.tolist()])).tokenizer


if __name__ == "__main__":
    main()
