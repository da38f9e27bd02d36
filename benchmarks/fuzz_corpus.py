"""Good files for the fuzzer to damage: of small runs, of exported models, and of data in every format."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pyarrow import parquet
from torch import nn

import torchlasso as tl


@dataclass(frozen=True)
class Target:
    """A file that is changed, and how it is read.

    Attributes:
        file: in the folder of the corpus.
        commands: that read it; without one ``torchlasso.storage.read`` does.
        model: whether another output would show a changed model.
    """

    file: Path
    commands: tuple[tuple[str, ...], ...]
    model: bool = False


def make_corpus(folder: Path, run: Callable[[tuple[str, ...]], None]) -> list[Target]:
    """Train small runs, export them, write data in every format, and say how each file is read."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 3, 60)
    _write_data(folder, x, labels)
    small = ("--model", "mlp:width=4,depth=1", "--lam", "0.02", "--epochs", "2", "--batch-size", "16")
    data = str(folder / "rows.csv")
    images = str(folder / "images")
    for words in (
        ("train", "--data", data, "--out", "run", *small, "--compare", "dense"),
        ("train", "--data", images, "--out", "seen", *small),
        ("path", "--data", data, "--out", "path", *small, "--points", "3", "--epochs-each", "1"),
        ("compact", "run"),
        *(("export", "run", "--format", name) for name in ("pt2", "onnx", "safetensors", "compressed")),
    ):
        run(words)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    nn.init.sparse_(model[0].weight, 0.5)
    tl.save(model, folder / "saved.safetensors")
    predict = ("predict", "run", "--data", data)
    reports: tuple[tuple[str, ...], ...] = (("report", "run"), ("report", "run", "--json"), ("compact", "run"))
    targets = [
        Target(Path("run/config.json"), (*reports, predict, ("export", "run", "--format", "pt2"))),
        Target(Path("run/summary.json"), reports[:2]),
        Target(Path("run/metrics.jsonl"), (("report", "run"), ("train", "--resume", "--out", "run"))),
        Target(Path("run/checkpoint/state.safetensors"), (("train", "--resume", "--out", "run"),), model=True),
        Target(Path("run/model.safetensors"), (predict,), model=True),
        Target(Path("run/compact.safetensors"), (("export", "run", "--compact", "--format", "safetensors", "--json"),)),
        Target(Path("path/path.jsonl"), (("report", "path", "--html"), ("path", "--resume", "--out", "path"))),
        Target(Path("path/points/001.safetensors"), (("report", "path", "--html"),)),
        Target(Path("seen/mean_images.safetensors"), (("report", "seen", "--html"),)),
        Target(Path("run/export/model.pt2"), (("predict", "run/export/model.pt2", "--data", data),), model=True),
        Target(Path("run/export/model.onnx"), (("predict", "run/export/model.onnx", "--data", data),), model=True),
        Target(Path("saved.safetensors"), (), model=True),
        Target(Path("run/export/model.sparse.safetensors"), (), model=True),
    ]
    for name in ("rows.csv", "rows.npz", "rows.parquet"):
        targets.append(Target(Path(name), (("predict", "run", "--data", name), train_on(name))))
    for name in ("images-idx3-ubyte", "images-idx3-ubyte.gz", "labels-idx1-ubyte"):
        targets.append(Target(Path("idx") / name, (train_on(f"idx/{name.replace('labels-idx1', 'images-idx3')}"),)))
    for name in ("a/0.png", "a/1.jpg", "b/0.gif", "b/1.bmp", "b/2.tif", "b/3.webp"):
        targets.append(Target(Path("images") / name, (("predict", "seen", "--data", f"images/{name}"),)))
    return targets


def train_on(name: str) -> tuple[str, ...]:
    """Return a command that trains for a moment."""
    return ("train", "--data", name, "--out", "new", "--model", "mlp:width=2", "--epochs", "1")


def _write_data(folder: Path, x: np.ndarray, labels: np.ndarray) -> None:
    lines = [
        "a,b,c,d,label",
        *(",".join([*(f"{v:.4f}" for v in row), "xyz"[k]]) for row, k in zip(x, labels, strict=True)),
    ]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    np.savez_compressed(folder / "rows.npz", x=x, y=labels)
    table = pa.table({**{name: x[:, i] for i, name in enumerate("abcd")}, "label": [str("xyz"[k]) for k in labels]})
    parquet.write_table(table, folder / "rows.parquet")
    pixels = np.random.default_rng(1).integers(0, 255, (60, 5, 5), dtype=np.uint8)
    (folder / "idx").mkdir()
    content = struct.pack(">BBBBIII", 0, 0, 8, 3, 60, 5, 5) + pixels.tobytes()
    (folder / "idx" / "images-idx3-ubyte").write_bytes(content)
    (folder / "idx" / "images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    content = struct.pack(">BBBBI", 0, 0, 8, 1, 60) + labels.astype(np.uint8).tobytes()
    (folder / "idx" / "labels-idx1-ubyte").write_bytes(content)
    for k, ending in enumerate(("png", "jpg", "gif", "bmp", "tif", "webp") * 4):
        place = folder / "images" / "ab"[k % 2] / f"{k // 2}.{ending}"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[k]).save(place)
    for name in ("a/0.png", "a/1.jpg", "b/0.gif", "b/1.bmp", "b/2.tif", "b/3.webp"):
        Image.fromarray(pixels[0]).save(folder / "images" / name)
