"""A pretrained vision transformer of transformers, fine-tuned to half of its FLOPs by ``torchlasso train``.

A small ViT is trained on 20,000 rows of MNIST from a random start and saved by ``save_pretrained``. Then, for each
seed, ``torchlasso train --model hf:FOLDER --flops 0.5 --compare dense`` fine-tunes it on 10,000 other rows, and the
result is compacted. The test rows are MNIST's 10,000. Times are those of a batch of 256 images, the full and the
compacted model in turns, on one thread.

    python benchmarks/pretrained.py --folder FOLDER_WITH_DATA

FOLDER has mnist-train.parquet and mnist-test.parquet. Every run is appended to --out, and started again it goes on
there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchlasso._core.timing import clock, interleaved
from torchlasso.cli.main import main as torchlasso
from torchlasso.data import Part, load_part
from torchlasso.runs.finished import open_run

PRETRAINING, ROWS = 20_000, 10_000
BATCH, RATE, EPOCHS = 128, 1e-3, 12
SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
HALF = {"image_mean": [0.5], "image_std": [0.5], "do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255}
TIMED, SECONDS = 256, 10.0


def pretrain(x: Tensor, y: Tensor, folder: Path, epochs: int) -> None:
    """Train a ViT from a random start, and save it as transformers does."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    labels = {"id2label": {i: str(i) for i in range(10)}, "label2id": {str(i): i for i in range(10)}}
    model = ViTForImageClassification(ViTConfig(image_size=28, patch_size=7, num_channels=1, **SIZES, **labels))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    steps = epochs * (len(x) // BATCH)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH)[: len(x) // BATCH]:
            optimizer.zero_grad()
            logits = model(pixel_values=(x[rows] / 255 - 0.5) / 0.5).logits
            nn.functional.cross_entropy(logits, y[rows]).backward()
            optimizer.step()
            scheduler.step()
    model.save_pretrained(folder)
    size = {"do_resize": True, "size": {"height": 28, "width": 28}}
    (folder / "preprocessor_config.json").write_text(json.dumps({**size, **HALF}))


def as_bytes(part: Part) -> tuple[Tensor, Tensor]:
    """Return images as bytes, and their classes."""
    x = part.tensor
    x = x if x.dtype == torch.uint8 else (255 * x).round().to(torch.uint8)
    return x, torch.tensor([int(label) for label in part.y])


def command(*words: object) -> None:
    """Run a command of torchlasso, which has to succeed."""
    try:
        torchlasso([str(word) for word in words])
    except SystemExit as ended:
        if ended.code:
            raise


def times(run: Path, x: Tensor) -> tuple[float, float]:
    """Return the seconds of the full model and of the compacted one for a batch of images."""
    models = [open_run(str(run), compact=compact).model.eval() for compact in (False, True)]
    inputs = ((x[:TIMED] / 255) - 0.5) / 0.5
    with torch.no_grad():
        calls = {name: partial(model, inputs) for name, model in zip(("full", "small"), models, strict=True)}
        found = interleaved(calls, SECONDS, clock(torch.device("cpu")))
    return median(found["full"]), median(found["small"])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pretrained.jsonl"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--lr", type=float, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    train, test = (load_part(str(given.folder / f"mnist-{name}.parquet")) for name in ("train", "test"))
    x, y = as_bytes(train)
    done = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    with tempfile.TemporaryDirectory() as place:
        folder, data = Path(place) / "vit", Path(place) / "mnist.npz"
        pretrain(x[:PRETRAINING], y[:PRETRAINING], folder, 10)
        rows = slice(PRETRAINING, PRETRAINING + ROWS)
        x_test, y_test = as_bytes(test)
        np.savez(data, x=x[rows].numpy(), y=y[rows].numpy(), x_test=x_test.numpy(), y_test=y_test.numpy())
        for seed in given.seeds:
            case = {"seed": seed, "epochs": given.epochs, "lr": given.lr}
            if any(case.items() <= line.items() for line in done):
                continue
            run = Path(place) / f"run-{seed}"
            words: list[Any] = ["--model", f"hf:{folder}", "--data", data, "--flops", 0.5, "--compare", "dense"]
            words += ["--epochs", given.epochs, "--seed", seed, "--out", run]
            command("train", *words, *([] if given.lr is None else ["--lr", given.lr]))
            command("compact", run)
            summary = json.loads((run / "summary.json").read_text())
            full, small = times(run, x)
            line = {
                **case,
                "error": summary["error"],
                "dense": summary["dense"]["error"],
                "full_s": full,
                "small_s": small,
            }
            line |= {
                "seconds": summary["seconds"],
                "target_met": summary["target_met"],
                "warnings": summary["warnings"],
            }
            with given.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line)


if __name__ == "__main__":
    main()
