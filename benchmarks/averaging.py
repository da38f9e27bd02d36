"""Growth of the averaging window as the learning rate falls: LeNet-300-100 on MNIST at λ = 1e-4.

Trains proximal Adam with 1 − β_t = (1 − β)·(lr_t/lr_peak)^p for several p, 20 epochs, on 50,000 training images, and
judges on the other 10,000. The objective is mean training loss + λ·penalty: what the optimizer is to minimise. The last
column is the share of weights that go from or to zero per epoch, over the last three epochs.

    python benchmarks/averaging.py --data FOLDER_WITH_MNIST
"""

from __future__ import annotations

import argparse
import statistics

from torchlasso.optim import averaging
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.options import Options
from torchlasso.runs.rows import read_data
from torchlasso.selection import penalty
from torchlasso.training.evaluation import evaluate
from torchlasso.training.trainer import sparsity, support

SEEDS = (0, 1, 2)
COLUMNS = ("exact zeros, %", "validation error, %", "objective", "switches, % per epoch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with MNIST's train and test files")
    parser.add_argument("--optimizer", default="adam")
    parser.add_argument("--powers", type=int, nargs="+", default=[0, 1, 2, 3], help="values of p; 0: a constant window")
    arguments = parser.parse_args()
    print("p  seed  " + "  ".join(COLUMNS), flush=True)
    for power in arguments.powers:
        runs = []
        for seed in SEEDS:
            options = Options(
                data=arguments.data, model="lenet-300-100", validation=1 / 6, optimizer=arguments.optimizer, seed=seed
            )
            runs.append(train(options, power))
            print_row(power, str(seed), runs[-1])
        print_row(power, "mean", [statistics.mean(column) for column in zip(*runs, strict=True)])


def train(options: Options, power: int) -> list[float]:
    """Return the figures of one run, in the order of the columns."""
    averaging.POWER = power
    inputs, rows = read_data(options)
    experiment = Experiment(options, inputs)
    training = experiment.trainer(experiment.build_model(), rows.train)
    trainer, groups = training.trainer, training.groups()
    switched = []
    for _ in range(options.epochs):
        before = support(groups)
        trainer.run_epoch()
        switched.append((support(groups) != before).float().mean().item())
    error = evaluate(trainer.model, trainer.loss, *rows.validation).error or 0.0
    objective = evaluate(trainer.model, trainer.loss, *rows.train).loss + penalty(groups).item()
    return [100 * sparsity(groups), 100 * error, objective, 100 * statistics.mean(switched[-3:])]


def print_row(power: int, seed: str, row: list[float]) -> None:
    print(f"{power}  {seed:<4}  {row[0]:>14.2f}  {row[1]:>19.2f}  {row[2]:>9.4f}  {row[3]:>21.3f}", flush=True)


if __name__ == "__main__":
    main()
