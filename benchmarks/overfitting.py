"""Does the penalty help against overfitting? 1,000 training images of MNIST, 5 seeds, λ chosen by cross-validation.

For each seed 1,000 images are drawn, by class. Every λ of the grid is judged by 5-fold cross-validation on them (mean
loss), the loss term and torchlasso each on its own; then each trains on all 1,000 at the λ it chose, as does the
network without a penalty. The test images are used once, at the end.

    python benchmarks/overfitting.py --data FOLDER_WITH_MNIST
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace

import torch
from torch import Tensor

from torchlasso import data
from torchlasso.cli.experiment import DENSE, LOSS_TERM, OURS, Experiment, Inputs, Options
from torchlasso.training import Evaluation, evaluate, sparsity

SEEDS = range(5)
ROWS = 1000
FOLDS = 5
LAMBDAS = (5e-5, 1e-4, 2e-4, 5e-4, 1e-3)
Rows = tuple[Tensor, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with MNIST's train and test files")
    parser.add_argument("--model", default="lenet-300-100")
    parser.add_argument("--epochs", type=int, default=100)
    arguments = parser.parse_args()
    dataset = data.load(arguments.data)
    results: dict[str, list[Evaluation]] = {DENSE: [], LOSS_TERM: [], OURS: []}
    print("seed  run         chosen λ  test error  test loss  exact zeros", flush=True)
    for seed in SEEDS:
        _, drawn = data.holdout(dataset.y, ROWS / len(dataset.y), seed)
        x, y = dataset.x[drawn], dataset.y[drawn]
        scale = data.Standardizer.fit(x)
        rows, test = (scale(x), y), (scale(dataset.test_x), dataset.test_y)
        options = Options(data=arguments.data, model=arguments.model, epochs=arguments.epochs, seed=seed)
        inputs = Inputs(dataset.input_shape, dataset.outputs, dataset.classes, dataset.features, scale)
        experiment = Experiment(options, inputs)
        for name in results:
            best = (
                options.lam if name == DENSE else min(LAMBDAS, key=lambda lam: validated(experiment, name, lam, rows))
            )
            found, zeros = train(experiment, name, best, rows, test)
            results[name].append(found)
            lam = "–" if name == DENSE else f"{best:.0e}"
            numbers = f"{100 * (found.error or 0):.2f} %      {found.loss:.3f}      {100 * zeros:.1f} %"
            print(f"{seed:<5} {name:<11} {lam:<9} {numbers}", flush=True)
    for name, runs in results.items():
        errors, losses = [100 * (run.error or 0) for run in runs], [run.loss for run in runs]
        print(
            f"{name:<11} test error {statistics.mean(errors):.2f} ± {statistics.stdev(errors):.2f} %, "
            f"test loss {statistics.mean(losses):.3f} ± {statistics.stdev(losses):.3f}"
        )
    for name in (LOSS_TERM, OURS):
        pairs = list(zip(results[DENSE], results[name], strict=True))
        error = ", ".join(f"{100 * ((a.error or 0) - (b.error or 0)):+.2f}" for a, b in pairs)
        loss = ", ".join(f"{a.loss - b.loss:+.3f}" for a, b in pairs)
        print(f"{name:<11} gain over no penalty, seed by seed: error {error} points; loss {loss}")


def validated(experiment: Experiment, name: str, lam: float, rows: Rows) -> float:
    """The mean validation loss over the folds."""
    x, y = rows
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(experiment.options.seed))
    folds = order.chunk(FOLDS)
    losses = []
    for fold in folds:
        kept = torch.cat([other for other in folds if other is not fold])
        losses.append(train(experiment, name, lam, (x[kept], y[kept]), (x[fold], y[fold]))[0].loss)
    return statistics.mean(losses)


def train(experiment: Experiment, name: str, lam: float, rows: Rows, judge: Rows) -> tuple[Evaluation, float]:
    """How a newly trained network does on the rows to be judged on, and its share of zeros."""
    experiment = replace(experiment, options=replace(experiment.options, lam=lam))
    trainer, groups = experiment.trainer(name, experiment.build_model(), rows)
    for _ in range(experiment.options.epochs):
        trainer.run_epoch()
    return evaluate(trainer.model, trainer.loss, *judge), sparsity(groups)


if __name__ == "__main__":
    main()
