"""The textbook's setting on MNIST: ``cnn``, λ = 1e-3, Adam at 1e-3, 10 epochs; the loss-term loop and torchlasso.

Both start from the same weights and see the same batches; their epochs alternate within one process, so that a machine
whose speed drifts is fair to both. Prints a row per seed, with the ratio of the seconds per epoch.

    python benchmarks/textbook.py --data FOLDER_WITH_MNIST
"""

from __future__ import annotations

import argparse
import statistics

from torchlasso.runs.experiment import OURS, Experiment
from torchlasso.runs.options import LOSS_TERM, Options
from torchlasso.runs.rows import read_data
from torchlasso.training.evaluation import evaluate
from torchlasso.training.trainer import sparsity

SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with MNIST's train and test files")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--schedule", default="cosine")
    arguments = parser.parse_args()
    print("seed     run         error    exact zeros  seconds per epoch (median)", flush=True)
    ratios = []
    for seed in SEEDS:
        options = Options(
            data=arguments.data, model="cnn", lam=1e-3, validation=0.0, seed=seed,
            epochs=arguments.epochs, schedule=arguments.schedule,
        )  # fmt: skip
        inputs, rows = read_data(options)
        experiment = Experiment(options, inputs)
        runs = {
            OURS: experiment.trainer(experiment.build_model(), rows.train),
            LOSS_TERM: experiment.compared(LOSS_TERM, experiment.build_model(), rows.train, options.lam),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(arguments.epochs):
            for name, training in runs.items():
                trainer = training.trainer
                before = trainer.seconds
                trainer.run_epoch()
                seconds[name].append(trainer.seconds - before)
        for name, training in runs.items():
            trainer = training.trainer
            found = evaluate(trainer.model, trainer.loss, *rows.test)
            per_epoch = statistics.median(seconds[name])
            zeros = f"{100 * sparsity(training.groups()):.2f} %"
            print(f"{seed:<8} {name:<11} {100 * (found.error or 0):.2f} %   {zeros:<12} {per_epoch:.2f}", flush=True)
        pairs = zip(seconds[OURS], seconds[LOSS_TERM], strict=True)
        ratios.append(statistics.median(a / b for a, b in pairs))
        print(f"{seed:<8} time per epoch, torchlasso over loss term: {ratios[-1]:.3f}", flush=True)
    print(f"median ratio of the time per epoch: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
