"""The paths whose files ``tests/cli/test_cli_path.py`` looks at, and their rows and models without the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from torchlasso import data, models

OPTIONS = ("--model", "mlp:width=8,depth=1", "--batch-size", "16", "--lr", "0.05", "--validation", "0.25")
SHORT = (*OPTIONS, "--epochs", "6", "--epochs-each", "3", "--points", "5", "--collapse", "1")
BY_LAM = (*SHORT, "--lams", "0.005,0.1")
BY_DENSITY = (*SHORT, "--epochs", "20", "--sparsest", "0.9", "--lam", "1e-3", "--points", "3", "--recipe", "proximal")
VALIDATION = 0.25
FILES = {
    "config.json",
    "path.jsonl",
    "model.safetensors",
    "summary.json",
    "report.html",
    "frontier.png",
    "frontier.svg",
}
RUNS = {
    "classes by lam": ("classes.csv", BY_LAM),
    "classes by density": ("classes.csv", BY_DENSITY),
    "amounts by lam": ("amounts.csv", (*BY_LAM, "--lams", "0.01,0.5")),
    "folds": ("classes.csv", (*BY_LAM, "--folds", "2", "--validation", "0")),
}


def lines_of(file: Path, *, timed: bool = True) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return lines if timed else [{**line, "seconds": 0} for line in lines]


def rows_of(table: Path, validation: float) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    """The rows to train on, to choose by and to test on, made without the command line."""
    dataset = data.load(str(table))
    kept, held = data.holdout(dataset.y, validation, 0)
    scale = data.Standardizer.fit(dataset.x[kept])
    x, y, test_y = scale(dataset.x), dataset.y, dataset.test_y
    if y.is_floating_point():
        of_targets = data.Standardizer.fit(y[kept])
        y, test_y = of_targets(y), of_targets(test_y)
    return (x[kept], y[kept]), (x[held], y[held]), (scale(dataset.test_x), test_y)


def model_of(weights: Path, outputs: int) -> nn.Module:
    model = models.build("mlp", (5,), outputs, width=8, depth=1)
    model.load_state_dict(load_file(weights))
    return model.eval()


def error_of(found: dict[str, Any]) -> float:
    return float(found["loss"] if found["error"] is None else found["error"])


def means_of(run: Path) -> list[tuple[float, float]]:
    """The mean error over the folds at each point, and its standard error."""
    columns = zip(*(lines_of(run / f"fold-{k}.jsonl") for k in (0, 1)), strict=True)
    errors = [[line["validation"]["error"] for line in column] for column in columns]
    return [(float(np.mean(e)), float(np.std(e, ddof=1)) / math.sqrt(2)) for e in errors]
