"""Each script of this folder runs: on a hundredth of its data, for a few steps, in this process.

make smoke
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

FOLDER = Path(__file__).parent
MNIST = "MNIST"  # stands for a folder with images like those of MNIST
# script ↦ arguments with which it takes seconds; {out} is a file in an empty folder
SMALL = {
    "architectures": "--sparsities 90 --seeds 0 --steps 4 --out {out}",
    "averaging": f"--data {MNIST} --powers 2",
    "cifar": f"--data {MNIST} --width 2 --methods latent pruning --sparsities 90 --epochs 25 --trials 1 --seeds 0 "
    "--network vgg --out {out}",
    "compaction": "breadth --only LeNet",
    "compaction_memory": "--only ResNet-50 --here",
    "end_to_end": f"--data {MNIST} --model cnn --flops 0.5 --epochs 1 --refit 1",
    "engine": "sequence/cold --epochs 1 --out {out}",
    "frontier": f"--data {MNIST} --targets 0.9 --seeds 0 --out {{out}} --set teacher=1 epochs=2 refit=1",
    "fuzz": "--count 3",
    "growth": "--ways lasso --sizes 200x500 --threads 1 --out {out}",
    "inference": "linear --zeros 0.9 --batches 1",
    "inputs": "--steps 20 --seeds 1",
    "kills": "--times 1 --out {out}",
    "latent": f"--data {MNIST} --zeros 0.9 --epochs 1",
    "lenet": f"--data {MNIST} --out {{out}} --seeds 0 --epochs 1",
    "optimizers": "convex --only Adam --out {out}",
    "overfitting": f"--data {MNIST} --images 100 --epochs 1",
    "peers": f"--data {MNIST} --methods latent pruning --sparsities 90 --epochs 4 --trials 1 --seeds 0 --out {{out}}",
    "short": "--models mlp --steps 100 --zeros 0.9 --methods latent pruning --out {out}",
    "recipes": "--seeds 0 --candidates latent --epochs 10 --out {out}",
    "scaling": "--stages report-by-tensors --scale 0.01 --rounds 1",
    "shrinking": f"--data {MNIST} --model cnn --rows 500 --epochs 4 --seeds 0 --threads 1 --ways dense",
    "sparse_autoencoder": "--scales 1 --seeds 0 --out {out}",
    "startup": "--rounds 1 --epochs 1 --runs plain",
    "stability": "--sets 1 --designs noise --ways linear --out {out}",
    "steering": f"--data {MNIST} --epochs 1 --seeds 0 --targets 0.9 --out {{out}}",
    "step": "--small --cases d --rounds 1",
    "storage": "sizes --draws 1 --rows 10 --columns 10",
    "streams": "throughput --folder {out} --kinds table --gigabytes 0.001 --repeats 1 --out {out}.jsonl",
    "textbook": f"--data {MNIST} --epochs 1",
    "warm_path": f"--data {MNIST} --seeds 0 --points 6 --dense 1 --first 1 --each 1 --last 1 --alone --out {{out}}",
}
# those that need more data than can be made here, or more than one process of their own; gpu has a test in tests/
OTHERS = {"features", "gpu", "pretrained", "text"}


def test_every_script_is_here() -> None:
    scripts = {file.stem for file in FOLDER.glob("*.py") if "__main__" in file.read_text()} - {Path(__file__).stem}
    assert scripts == {*SMALL, *OTHERS}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Handwritten digits of 28 × 28 pixels, as many as for a few batches."""
    folder: Path = tmp_path_factory.mktemp("mnist")
    x, y = load_digits(return_X_y=True)
    large = np.kron(x.reshape(-1, 8, 8), np.ones((3, 3))).round().astype(np.uint8) * 15
    large = np.pad(large, ((0, 0), (2, 2), (2, 2)))
    for name, rows in (("train", slice(0, 500)), ("test", slice(500, 700))):
        np.savez(folder / f"{name}.npz", x=large[rows], y=y[rows])
    return folder


@pytest.mark.parametrize("script", SMALL)
def test_a_benchmark_runs(
    script: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = [str(images) if word == MNIST else word.format(out=tmp_path / "out") for word in SMALL[script].split()]
    monkeypatch.setattr(sys, "argv", [script, *words])
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.chdir(tmp_path)
    threads, before, code = torch.get_num_threads(), set(sys.modules), None
    try:
        runpy.run_path(str(FOLDER / f"{script}.py"), run_name="__main__")
    except SystemExit as ended:
        code = ended.code
    finally:
        torch.set_num_threads(threads)
        for name in set(sys.modules) - before:  # such as `peers`, which the next script may find changed
            if Path(getattr(sys.modules[name], "__file__", None) or os.devnull).parent == FOLDER:
                del sys.modules[name]
    assert not code
    assert any(character.isdigit() for character in capsys.readouterr().out)
