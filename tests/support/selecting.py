"""Tables of genes and of patients, from which ``torchlasso select`` is to choose."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchlasso.runs.selecting import computing

NAMES = [f"gene {i}" for i in range(12)]
FAST = ("--pairs", "3", "--folds", "3", "--jobs", "1")


def few_points(patch: pytest.MonkeyPatch) -> None:
    """Solve for fewer values of λ, and less closely, than a user's selection: only its curves are finer."""
    patch.setattr(computing, "LAMS", 8)
    patch.setattr(computing, "THRESHOLDS", 12)
    patch.setattr(computing, "CLOSE", 1e-3)


def write(path: Path, columns: dict[str, Any]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def made_genes() -> dict[str, Any]:
    """120 rows of 30 animals: genes 2 and 7 decide the class; 3 is nearly 2, 8 a copy of 0, 9 constant."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, len(NAMES)))
    x[:, 3] = x[:, 2] + 0.2 * rng.normal(size=120)
    x[:, 8], x[:, 9] = x[:, 0], 4.0
    columns: dict[str, Any] = {name: [f"{value:.5f}" for value in x[:, i]] for i, name in enumerate(NAMES)}
    columns["animal"] = [f"m{i // 4}" for i in range(120)]
    columns["label"] = np.where(x[:, 2] - 0.8 * x[:, 7] + 0.3 * rng.normal(size=120) > 0, "ill", "well").tolist()
    return columns


def made_patients() -> dict[str, Any]:
    """150 patients, of whom genes 1 and 4 say who is ill again sooner; most are observed for two years only."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 6))
    months = rng.exponential(24 * np.exp(x[:, 1] - x[:, 4]))
    columns: dict[str, Any] = {f"gene {i}": [f"{value:.4f}" for value in x[:, i]] for i in range(6)}
    columns["months"] = [f"{value:.2f}" for value in months.clip(max=24)]
    columns["relapse"] = (months < 24).astype(int).tolist()
    return columns


def same_selection(folder: Path, other: Path) -> bool:
    """Return whether two selections are the same to the bit, the page with its pictures included."""
    records = [json.loads((path / "selection.json").read_text()) | {"seconds": 0} for path in (folder, other)]
    features = [(path / "features.csv").read_bytes() for path in (folder, other)]
    return records[0] == records[1] and features[0] == features[1]
