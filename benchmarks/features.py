"""Features that other classifiers can use: accuracy with k features, chosen by torchlasso and by its peers.

    torchlasso  SparseClassifier(features=k), with MCP or L1 and 60 or 200 epochs; it is told the animals of the mice
    default     SparseClassifier(features=k) with 60 epochs, nothing else chosen
    lassonet    LassoNetClassifier (Lemhadri et al. 2021): the point of its path with k features, M = 10 or 3, one
                hidden layer of 64 or 32 neurons
    stog        stochastic gates (Yamada et al. 2020): the k most open ones, of trainings with four strengths
    trees       the k largest importances of extremely randomised trees, 300 or 1,000 of them, with 1 or 5 rows a leaf
    f-test      the k largest F statistics
    all         all features

Each method chooses k features from the training rows. The accuracy is that of the same network for all of them: one
hidden layer of 256 rectified neurons, dropout 0.2, label smoothing 0.1, AdamW along one cycle, trained on the training
rows with these features; the mean over three first weights. Methods with several settings take the one whose network is
most accurate on the validation rows, of equal ones that of the smaller loss. Then comes the test, once, for each seed;
the table has means over the seeds.

    isolet  the official split; the last quarter of the training rows, other speakers, for validation
    coil20  20 × 20 pixels; 70, 10 and 20 % for training, validation and test, each seed another split
    mnist   10,000 rows of the training set, another sample for each seed; 70, 10 and 20 %
    mice    proteins of mice; 60, 20 and 20 % of the animals: all rows of an animal are in one part

    python benchmarks/features.py FOLDER --data isolet coil20 mnist mice

FOLDER has isolet/isolet-train.parquet and isolet-test.parquet, coil20/coil20.npz, mnist-train.parquet and
mice-protein.csv. Peers that are not installed are left out, which it says. Every result is appended to --out, and
started again it goes on there.
"""

from __future__ import annotations

import argparse
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.feature_selection import f_classif
from sklearn.model_selection import StratifiedGroupKFold, train_test_split
from torch import nn

from torchlasso.estimators import SparseClassifier

Numbers = np.ndarray[Any, Any]
SEEDS, FIRST_WEIGHTS = range(5), range(3)
NUMBERS = {"isolet": (50,), "coil20": (50,), "mnist": (50,), "mice": (10, 20)}


class Part(NamedTuple):
    """Features, classes, and the group of each row if its rows are not independent of each other."""

    x: Numbers
    y: Numbers
    groups: Numbers | None = None


class Split(NamedTuple):
    train: Part
    validation: Part
    test: Part


def isolet(folder: Path, seed: int) -> Split:
    parts = [pd.read_parquet(folder / "isolet" / f"isolet-{name}.parquet") for name in ("train", "test")]
    train, test = (Part(part.drop(columns="label").to_numpy(np.float32), part["label"].to_numpy()) for part in parts)
    kept = len(train.x) * 3 // 4
    return Split(Part(train.x[:kept], train.y[:kept]), Part(train.x[kept:], train.y[kept:]), test)


def coil20(folder: Path, seed: int) -> Split:
    with np.load(folder / "coil20" / "coil20.npz") as file:
        images, y = torch.from_numpy(file["x"]), file["y"]
    small = nn.functional.interpolate(images, size=(20, 20), mode="area")
    return _in_three(small.flatten(1).numpy(), y, seed)


def mnist(folder: Path, seed: int) -> Split:
    rows = pd.read_parquet(folder / "mnist-train.parquet").sample(10_000, random_state=seed)
    images = [np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in rows["image"]]
    return _in_three(np.stack(images).reshape(len(rows), -1).astype(np.float32) / 255, rows["label"].to_numpy(), seed)


def mice(folder: Path, seed: int) -> Split:
    rows = pd.read_csv(folder / "mice-protein.csv")
    animal, y = rows["MouseID"].str.rsplit("_", n=1).str[0].to_numpy(), rows["class"].to_numpy()
    x = rows.select_dtypes("number").to_numpy(np.float32)
    folds = [held for _, held in StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(x, y, animal)]
    test, validation, train = folds[0], folds[1], np.concatenate(folds[2:])
    x = np.where(np.isnan(x), np.nanmedian(x[train], axis=0), x)
    return Split(*(Part(x[part], y[part], animal[part]) for part in (train, validation, test)))


def _in_three(x: Numbers, y: Numbers, seed: int) -> Split:
    train, rest, y_train, y_rest = train_test_split(x, y, train_size=0.7, stratify=y, random_state=seed)
    validation, test, y_validation, y_test = train_test_split(
        rest, y_rest, train_size=1 / 3, stratify=y_rest, random_state=seed
    )
    return Split(Part(train, y_train), Part(validation, y_validation), Part(test, y_test))


def scaled(split: Split, images: bool) -> Split:
    """Scale by the mean and the spread of training rows: of each feature, or of images by one spread for all pixels."""
    x = split.train.x
    spread = np.full(x.shape[1], x.std()) if images else x.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    return Split(*(part._replace(x=(part.x - x.mean(axis=0)) / spread) for part in split))


def torchlasso_(train: Part, k: int, seed: int, *, penalty: str, epochs: int) -> Numbers:
    options = {"standardize": False, "points": 1, "random_state": seed}  # they are scaled, the pixels of images as one
    model = SparseClassifier(features=k, penalty=penalty, epochs=epochs, **options)
    return model.fit(train.x, train.y, groups=train.groups).support_.nonzero()[0]


def lassonet(train: Part, k: int, seed: int, *, M: float, neurons: int) -> Numbers:
    from lassonet import LassoNetClassifier

    x, codes = train.x.astype(np.float32), np.unique(train.y, return_inverse=True)[1]
    model = LassoNetClassifier(hidden_dims=(neurons,), M=M, random_state=seed, torch_seed=seed, verbose=0)
    path = model.path(x, codes, return_state_dicts=False)
    entries = {int(point.selected.sum()): point.selected.cpu().numpy() for point in path}
    chosen = entries[min((number for number in entries if number >= k), default=max(entries))]
    order = np.argsort(-model.feature_importances_.numpy(), kind="stable")  # of the last to leave first
    return np.array([i for i in order if chosen[i]][:k])


def stog(train: Part, k: int, seed: int, *, strength: float) -> Numbers:
    """Stochastic gates, written after the paper: a Gaussian of spread 0.5 around the mean of each gate, clipped."""
    torch.manual_seed(seed)
    x, codes = torch.from_numpy(train.x), torch.from_numpy(np.unique(train.y, return_inverse=True)[1])
    gates = nn.Parameter(torch.full((x.shape[1],), 0.5))
    network = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, int(codes.max()) + 1))
    optimizer = torch.optim.Adam([{"params": network.parameters(), "lr": 1e-3}, {"params": [gates], "lr": 1e-2}])
    for _ in range(200):
        for rows in torch.randperm(len(x)).split(200):
            noisy = (gates + 0.5 * torch.randn_like(gates)).clamp(0, 1)
            opened = (0.5 * (1 + torch.erf(gates / (0.5 * 2**0.5)))).mean()
            loss = nn.functional.cross_entropy(network(x[rows] * noisy), codes[rows]) + strength * opened
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return gates.detach().topk(k).indices.numpy()


def trees(train: Part, k: int, seed: int, *, number: int, leaf: int) -> Numbers:
    forest = ExtraTreesClassifier(number, min_samples_leaf=leaf, random_state=seed, n_jobs=1).fit(train.x, train.y)
    return np.argsort(-forest.feature_importances_, kind="stable")[:k]


def f_test(train: Part, k: int, seed: int) -> Numbers:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant pixels
        found = np.nan_to_num(f_classif(train.x, train.y)[0], nan=-1.0)
    return np.argsort(-found, kind="stable")[:k]


def all_features(train: Part, k: int, seed: int) -> Numbers:
    return np.arange(train.x.shape[1])


class Method(NamedTuple):
    select: Callable[..., Numbers]
    settings: Sequence[Mapping[str, Any]] = ({},)
    package: str = "torchlasso"


def _all_of(**values: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(zip(values, some, strict=True)) for some in product(*values.values())]


METHODS = {
    "torchlasso": Method(torchlasso_, _all_of(penalty=["mcp", "l1"], epochs=[60, 200])),
    "default": Method(torchlasso_, _all_of(penalty=["auto"], epochs=[60])),
    "lassonet": Method(lassonet, _all_of(M=[10.0, 3.0], neurons=[64, 32]), "lassonet"),
    "stog": Method(stog, _all_of(strength=[0.1, 0.5, 2.0, 8.0])),
    "trees": Method(trees, _all_of(number=[300, 1000], leaf=[1, 5])),
    "f-test": Method(f_test),
    "all": Method(all_features),
}


def scores(train: Part, held: Part, columns: Numbers) -> tuple[float, float]:
    """Return the mean accuracy and minus the mean loss on held-out rows over several first weights."""
    found = [_score(train, held, columns, seed) for seed in FIRST_WEIGHTS]
    return mean(accuracy for accuracy, _ in found), -mean(loss for _, loss in found)


def _score(train: Part, held: Part, columns: Numbers, seed: int) -> tuple[float, float]:
    """Train the network of the comparison on some columns, and return its accuracy and loss on held-out rows."""
    torch.manual_seed(seed)
    classes, codes = np.unique(train.y, return_inverse=True)
    x, y = torch.from_numpy(train.x[:, columns]).float(), torch.from_numpy(codes)
    network = nn.Sequential(nn.Linear(x.shape[1], 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, len(classes)))
    batch = 128 if len(x) > 2000 else 32
    epochs, batches = 60, len(x) // batch
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * batches)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for rows in order[: batches * batch].split(batch):
            loss = nn.functional.cross_entropy(network(x[rows]), y[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        outputs = network(torch.from_numpy(held.x[:, columns]).float())
    wanted = torch.from_numpy(np.searchsorted(classes, held.y))
    return float((outputs.argmax(dim=1) == wanted).float().mean()), float(nn.functional.cross_entropy(outputs, wanted))


def result(split: Split, method: Method, k: int, seed: int) -> dict[str, Any]:
    """Choose the setting on validation rows, and measure the accuracy on the test rows."""
    start, trials, chosen = perf_counter(), list[tuple[tuple[float, float], Mapping[str, Any]]](), list[Numbers]()
    for setting in method.settings:
        chosen.append(method.select(split.train, k, seed, **setting))
        trials.append((scores(split.train, split.validation, chosen[-1]), dict(setting)))
    best = max(range(len(trials)), key=lambda i: trials[i][0])
    test, _ = scores(split.train, split.test, chosen[best])
    (value, _), setting = trials[best]
    return {
        "setting": setting,
        "features": len(chosen[best]),
        "validation": value,
        "test": test,
        "trials": trials,
        "seconds": perf_counter() - start,
    }


def cells(names: Sequence[str], methods: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[str, int, str, int]]:
    """Yield (data, k, method, seed), all methods for one split one after the other."""
    for seed, name in product(seeds, names):
        for k, method in product(NUMBERS[name], methods):
            yield name, k, method, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", nargs="+", default=list(NUMBERS), choices=list(NUMBERS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/features.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    done = {(each["data"], each["k"], each["method"], each["seed"]) for each in known}
    for name, k, method, seed in cells(options.data, options.methods, options.seeds):
        if (name, k, method, seed) in done:
            continue
        if find_spec(METHODS[method].package) is None:
            print(f"{method} is not installed")
            continue
        split = scaled(globals()[name](options.folder, seed), images=name in ("coil20", "mnist"))
        found = {"data": name, "k": k, "method": method, "seed": seed, **result(split, METHODS[method], k, seed)}
        known.append(found)
        with options.out.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps(found), flush=True)
    table(known)


def table(results: Sequence[Mapping[str, Any]]) -> None:
    """Print the mean accuracies on the test rows, with their spread over the seeds and the number of these."""
    columns = sorted({(each["data"], each["k"]) for each in results})
    print("| method | " + " | ".join(f"{name}, {k}" for name, k in columns) + " |")
    print("|---|" + "---|" * len(columns))
    for method in METHODS:
        entries = []
        for name, k in columns:
            own = [each["test"] for each in results if (each["data"], each["k"], each["method"]) == (name, k, method)]
            spread = f" ± {stdev(own):.3f}" if len(own) > 1 else ""
            entries.append(f"{mean(own):.3f}{spread} ({len(own)})" if own else "–")
        print(f"| {method} | " + " | ".join(entries) + " |")


if __name__ == "__main__":
    main()
