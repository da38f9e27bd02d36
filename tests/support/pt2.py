"""``.pt2`` files to alter: a good one, its entries, and where things are in its program."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchlasso.export import to_pt2

Entries = dict[str, bytes]
MODEL, CONSTANTS = "archive/models/model.json", "archive/data/constants/model_constants_config.json"
WEIGHTS = "archive/data/weights/model_weights_config.json"
SAMPLES, SUM = "archive/data/sample_inputs/model.pt", "archive/extra/torchlasso.crc32"


class Net(nn.Module):
    """Has parameters, a constant, and a size that depends on the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.shift = nn.Linear(4, 3), torch.arange(3.0)

    def forward(self, x: Tensor) -> Tensor:
        return (self.layer(x) + self.shift).relu() + x.new_ones(2 * x.shape[0] + 1).sum()


def good_file(folder: Path) -> Path:
    """Write a file that is as it should be."""
    torch.manual_seed(0)
    to_pt2(Net(), torch.randn(2, 4), folder / "model.pt2", metadata={"classes": ["a"]})
    return folder / "model.pt2"


def entries_of(path: Path) -> Entries:
    """Return all entries but the checksum: a stranger would leave it out."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != SUM}


def write(path: Path, entries: Entries) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def edit(entries: Entries, name: str, change: Callable[[Any], Any]) -> None:
    """Change an entry that is JSON, in place."""
    content = json.loads(entries[name])
    change(content)
    entries[name] = json.dumps(content).encode()


def graph_of(model: Any) -> Any:
    return model["graph_module"]["graph"]


def tensors_of(model: Any) -> Any:
    return graph_of(model)["tensor_values"]
