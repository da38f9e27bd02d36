"""Does the penalty help against overfitting? 1,000 training images of MNIST, 5 seeds, λ chosen on validation images.

For each seed 1,000 images are drawn, by class. Every λ of the grid is trained on 800 of them and judged on the other 200,
the loss term and torchlasso each on its own; then each trains on all 1,000 at the λ it chose (the smallest validation
loss), as does the network without a penalty. The test images are used once, at the end.

    python benchmarks/overfitting.py --data FOLDER_WITH_MNIST
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace

import torch

from torchlasso import data
from torchlasso.cli.experiment import DENSE, LOSS_TERM, OURS, Experiment, Inputs, Options
from torchlasso.training import evaluate, sparsity

SEEDS = range(5)
ROWS = 1000
LAMBDAS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with MNIST's train and test files")
    parser.add_argument("--model", default="lenet-300-100")
    parser.add_argument("--epochs", type=int, default=100)
    arguments = parser.parse_args()
    dataset = data.load(arguments.data)
    results: dict[str, list[tuple[float, float, float]]] = {DENSE: [], LOSS_TERM: [], OURS: []}
    print("seed  run         chosen λ  test error  exact zeros", flush=True)
    for seed in SEEDS:
        _, drawn = data.holdout(dataset.y, ROWS / len(dataset.y), seed)
        x, y = dataset.x[drawn], dataset.y[drawn]
        scale = data.Standardizer.fit(x)
        x, test = scale(x), (scale(dataset.test_x), dataset.test_y)
        kept, held = data.holdout(y, 0.2, seed)
        options = Options(data=arguments.data, model=arguments.model, epochs=arguments.epochs, seed=seed)
        experiment = Experiment(
            options, Inputs(dataset.input_shape, dataset.outputs, dataset.classes, dataset.features, scale)
        )
        for name in results:
            grid = (options.lam,) if name == DENSE else LAMBDAS
            best = min(grid, key=lambda lam: train(experiment, name, lam, (x[kept], y[kept]), (x[held], y[held]))[0])
            _, error, zeros = train(experiment, name, best, (x, y), test)
            results[name].append((best, error, zeros))
            lam = "–" if name == DENSE else f"{best:.0e}"
            print(f"{seed:<5} {name:<11} {lam:<9} {100 * error:.2f} %      {100 * zeros:.1f} %", flush=True)
    for name, runs in results.items():
        errors = [100 * error for _, error, _ in runs]
        print(f"{name:<11} test error: mean {statistics.mean(errors):.2f} %, standard deviation {statistics.stdev(errors):.2f}")
    for name in (LOSS_TERM, OURS):
        gains = [100 * (d[1] - r[1]) for d, r in zip(results[DENSE], results[name], strict=True)]
        print(f"{name:<11} gain over no penalty, seed by seed: {', '.join(f'{g:+.2f}' for g in gains)} points")


def train(
    experiment: Experiment,
    name: str,
    lam: float,
    rows: tuple[torch.Tensor, torch.Tensor],
    judge: tuple[torch.Tensor, torch.Tensor],
) -> tuple[float, float, float]:
    """(loss, error, zeros) on the rows to be judged on, after training."""
    experiment = replace(experiment, options=replace(experiment.options, lam=lam))
    trainer, groups = experiment.trainer(name, experiment.build_model(), rows)
    for _ in range(experiment.options.epochs):
        trainer.run_epoch()
    found = evaluate(trainer.model, trainer.loss, *judge)
    return found.loss, found.error or 0.0, sparsity(groups)


if __name__ == "__main__":
    main()
