"""Data on the disk: peak memory by the size of the file, and throughput beside a bare DataLoader.

    python benchmarks/streams.py memory --folder /tmp/streams --kinds table images --gigabytes 1 10
    python benchmarks/streams.py throughput --folder /tmp/streams --workers 0 1
    python benchmarks/streams.py equal --data cifar10 --folder /tmp/streams

``memory`` writes a Parquet file of so many gigabytes (10⁹ bytes: 1,000 columns of random float32, random colour
JPEGs of 160 × 160 pixels, or texts of 500 random words), trains a small network on it for one epoch, and measures the
most private memory (anonymous, of the process and its workers together) while it runs. Pages of the memory-mapped files
are left out: the system takes them back when it needs memory. The files made of the data are removed after each run.

``throughput`` reads 5,000 images of 32 × 32 pixels, or 20,000 rows of 100 columns, in a random order and batches of
128, scaled, once by our streams and once by torch's DataLoader with the same workers over a memory-mapped
``datasets.Dataset``, of which a batch is taken by one call: tables as columns of numpy, images decoded by Pillow; and
gives the ratio.

``equal`` trains on --data in memory and on the disk, with the same seed, and compares the weights.

Every result is appended to --out.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from torchlasso.data.dividing import SplitOptions
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.loading import load_splits
from torchlasso.data.scaled import ScaledRows, scale_of_bytes
from torchlasso.data.standardizer import Standardizer
from torchlasso.data.stored.images import EncodedImages
from torchlasso.data.stored.options import StreamOptions
from torchlasso.data.stored.rows import StoredRows

COLUMNS, PIXELS, ROWS_AT_ONCE = 1000, 160, 25_000
BATCH = 128


def write_table(path: Path, size: float, columns: int = COLUMNS, group: int = ROWS_AT_ONCE) -> None:
    """Write random numbers and a label, ``size`` bytes of them, in row groups of ``group`` rows."""
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(columns)]
    schema = pa.schema([*((name, pa.float32()) for name in names), ("label", pa.int64())])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        left = int(size / (4 * columns))
        while left > 0:
            x = rng.standard_normal((min(left, group), columns), dtype=np.float32)
            label = (x[:, 0] + x[:, 1] > 0).astype(np.int64)
            writer.write_table(pa.table([*x.T.copy(), label], schema=schema), row_group_size=group)
            left -= len(x)


def write_images(path: Path, size: float, pixels: int = PIXELS) -> None:
    """Write random images and a label, about ``size`` bytes of them; there are 500 different ones."""
    rng = np.random.default_rng(0)
    different = []
    for _ in range(500):
        coarse = rng.integers(0, 256, (pixels // 4, pixels // 4, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(coarse).resize((pixels, pixels)).save(stream, "JPEG", quality=90)
        different.append({"bytes": stream.getvalue(), "path": None})
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    each = sum(len(image["bytes"]) for image in different) / len(different)
    with pq.ParquetWriter(path, pa.schema([("image", kind), ("label", pa.int64())]), compression="none") as writer:
        left = int(size / each)
        while left > 0:
            chosen = rng.integers(0, 500, min(left, 1000))
            images = pa.array([different[i] for i in chosen.tolist()], kind)
            writer.write_table(pa.table([images, chosen % 2], names=["image", "label"]))
            left -= len(chosen)


def write_texts(path: Path, size: float, words: int = 500) -> None:
    """Write texts of random words and a label, ``size`` bytes of them; there are 10,000 different ones."""
    rng = np.random.default_rng(0)
    vocabulary = np.array(["".join(rng.choice([*"abcdefghijklmnoprstuvw"], n)) for n in rng.integers(2, 9, 50_000)])
    shares = 1 / np.arange(10, 10 + len(vocabulary))
    lengths = rng.integers(1, 2 * words, 10_000)
    drawn = vocabulary[rng.choice(len(vocabulary), lengths.sum(), p=shares / shares.sum())].tolist()
    ends = lengths.cumsum().tolist()
    different = pa.array([" ".join(drawn[start:end]) for start, end in zip([0, *ends], ends, strict=False)])
    each = different.nbytes / len(different)
    schema, left = pa.schema([("text", pa.string()), ("label", pa.int64())]), int(size / each)
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        while left > 0:
            chosen = rng.integers(0, len(different), min(left, 4096))
            writer.write_table(pa.table([different.take(pa.array(chosen)), lengths[chosen] % 2], schema=schema))
            left -= len(chosen)


def private_memory(pid: int) -> int:
    """Return the anonymous memory of a process and its children, in bytes."""
    total = 0
    for each in (pid, *_children(pid)):
        try:
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
    return total


def _children(pid: int) -> Iterator[int]:
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in map(int, found):
        yield child
        yield from _children(child)


def memory(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure the peak memory of a training on files of several sizes."""
    for kind in options.kinds:
        for size in options.gigabytes:
            data, cache, run = (options.folder / name for name in (f"{kind}.parquet", "cache", "run"))
            model = ["mlp:width=16,depth=1"]
            if kind == "table":
                write_table(data, size * 1e9, group=options.row_group)
            elif kind == "images":
                write_images(data, size * 1e9)
            else:
                write_texts(data, size * 1e9)
                model = ["text-cnn:dim=4,filters=4", "--text", "text", "--tokenizer", options.tokenizer]
                model += ["--max-length", "64"]
            command = [sys.executable, "-m", "torchlasso", "train", "--data", data, "--model", *model]
            command += ["--epochs", "1", "--batch-size", "256", "--stream", "always", "--out", run, "--overwrite"]
            command += ["--workers", options.workers[0], "--lam", "1e-4"]
            start, peak = time.perf_counter(), 0
            environment = os.environ | {"TORCHLASSO_CACHE": str(cache)}
            with subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, env=environment) as program:
                while program.poll() is None:
                    peak = max(peak, private_memory(program.pid))
                    time.sleep(0.02)
            yield {
                "what": "memory",
                "kind": kind,
                "gigabytes": data.stat().st_size / 1e9,
                "rows": pq.ParquetFile(data).metadata.num_rows,
                "row_groups": pq.ParquetFile(data).metadata.num_row_groups,
                "workers": options.workers[0],
                **({"tokenizer": Path(options.tokenizer).name} if kind == "texts" else {}),
                "code": program.returncode,
                "peak_megabytes": peak / 1e6,
                "seconds": time.perf_counter() - start,
            }
            for folder in (cache, run):
                shutil.rmtree(folder, ignore_errors=True)
            data.unlink()


def throughput(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure rows per second beside a bare DataLoader."""
    os.environ["TORCHLASSO_CACHE"] = str(options.folder / "cache")
    torch.set_num_threads(1)
    for kind in options.kinds:
        data = options.folder / f"few-{kind}.parquet"
        if kind == "table":
            write_table(data, 4 * 100 * 20_000, columns=100)
        else:
            write_images(data, 5_000 * 1600, pixels=32)
        split = SplitOptions(validation=0.0, test=0.01, stream=StreamOptions("always"))
        x = load_splits(str(data), ColumnSelection(), split).train[0]
        assert isinstance(x, StoredRows)
        for workers in options.workers:
            rates = _rates(data, kind, x, workers, options)
            yield {
                "what": "throughput",
                "kind": kind,
                "workers": workers,
                **{f"{name}_rows_per_second": rate for name, rate in rates.items()},
                "ratio": rates["ours"] / rates["bare"],
            }


def _rates(data: Path, kind: str, x: StoredRows, workers: int, options: argparse.Namespace) -> dict[str, float]:
    """Return the rows per second of both ways, each the best of several repeats."""
    scale = scale_of_bytes(x) if isinstance(x, EncodedImages) else Standardizer.fit(x)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    ways = {
        "ours": lambda: ScaledRows(x, scale, workers=workers).batches(order.split(BATCH)),
        "bare": lambda: _bare(data, kind, scale, order, workers, options.folder),
    }
    found = dict.fromkeys(ways, 0.0)
    for _ in range(options.repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            assert sum(map(len, way())) == len(x)
            found[name] = max(found[name], len(x) / (time.perf_counter() - start))
    return found


def _bare(
    data: Path, kind: str, scale: Standardizer, order: torch.Tensor, workers: int, folder: Path
) -> Iterator[torch.Tensor]:
    """Yield the batches of a DataLoader over a data set of ``datasets``."""
    import datasets

    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_parquet(str(data), cache_dir=str(folder / "datasets"))
    rows = rows.remove_columns("label")
    if kind == "images":
        rows = rows.cast_column("image", datasets.Image()).with_transform(_decoded)
    else:
        rows = rows.with_format("numpy")
    batches = order.split(BATCH)
    loader = torch.utils.data.DataLoader(
        _ByBatches(rows),
        batch_sampler=[batch.tolist() for batch in batches],
        num_workers=workers,
        collate_fn=lambda batch: batch,
    )
    for batch in loader:
        yield scale(batch)


class _ByBatches(torch.utils.data.Dataset[torch.Tensor]):
    """A data set of ``datasets`` whose rows are taken a batch at a time."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __getitems__(self, places: list[int]) -> torch.Tensor:
        batch = self.rows[places]
        if "image" in batch:
            return torch.stack(batch["image"]).float().div_(255)
        return torch.from_numpy(np.stack([*batch.values()], axis=1))


def _decoded(batch: dict[str, Any]) -> dict[str, Any]:
    return {"image": [torch.from_numpy(np.array(image).transpose(2, 0, 1)) for image in batch["image"]]}


def equal(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Compare the weights of a training in memory and on the disk."""
    weights = []
    for stream in ("never", "always"):
        run = options.folder / f"run-{stream}"
        command = [
            sys.executable,
            "-m",
            "torchlasso",
            "train",
            "--data",
            options.data,
            "--model",
            "cnn",
            "--epochs",
            "1",
        ]
        command += ["--batch-size", "128", "--stream", stream, "--out", run, "--overwrite", "--seed", options.seed]
        environment = os.environ | {"TORCHLASSO_CACHE": str(options.folder / "cache")}
        start = time.perf_counter()
        subprocess.run([*map(str, command)], stdout=subprocess.DEVNULL, env=environment, check=True)
        weights.append((run / "model.safetensors").read_bytes())
        print(f"{stream}: {time.perf_counter() - start:.0f} s", flush=True)
    yield {"what": "equal", "data": Path(options.data).name, "seed": options.seed, "same": weights[0] == weights[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("memory", "throughput", "equal"))
    parser.add_argument("--folder", type=Path, required=True, help="for the files that are made, which are large")
    parser.add_argument("--kinds", nargs="+", choices=("table", "images", "texts"), default=["table", "images"])
    parser.add_argument("--gigabytes", nargs="+", type=float, default=[1.0, 10.0])
    parser.add_argument("--workers", nargs="+", type=int, default=[0])
    parser.add_argument("--row-group", type=int, default=ROWS_AT_ONCE, help="rows of a row group of the tables")
    parser.add_argument("--tokenizer", default="words", help="of the texts: words of the training rows, or a file")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", help="of equal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/streams.jsonl"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for result in {"memory": memory, "throughput": throughput, "equal": equal}[options.what](options):
        print(json.dumps(result), flush=True)
        with options.out.open("a") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
