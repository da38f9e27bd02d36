"""Kill a training under Lightning and under the Trainer of transformers at random times, and let it go on.

Each time, the weights at the end are compared, to the last bit, with those of a training that nothing interrupted. The
processes are forked from one that has imported the libraries, and killed with SIGKILL between their first checkpoint
and their end, also while they write a checkpoint.

    python benchmarks/kills.py --times 20 --out benchmarks/results/kills.jsonl
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import re
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments
from transformers import Trainer as HuggingFaceTrainer

import torchlasso as tl
from torchlasso.integrations.lightning import SparseTraining
from torchlasso.integrations.transformers import sparsify

# Checkpoints within an epoch are at no epoch's last batch. From such a one Lightning 2.6 goes on, but it counts the
# epochs wrongly afterwards, so that a training that is resumed again in the next epoch repeats batches.
EPOCHS, ROWS, SIZE, EVERY = 10, 128, 8, 11
STEPS = EPOCHS * ROWS // SIZE


def controllers(optimizer: tl.Proximal, steps: int) -> list[tl.LambdaController]:
    return [tl.TargetSparsity(optimizer, 0.7, steps=steps, tolerance=1.0), tl.Reweighted(optimizer, theta=0.2)]


def number(path: Path) -> int:
    """Return the step of a checkpoint from its name."""
    return int(re.findall(r"\d+", path.stem)[-1])


class Batches:
    """Batches in an order of their own in each epoch, which a resumed training goes on with."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(ROWS, 20, generator=generator)
        self.y = torch.stack([self.x[:, 0].abs(), self.x[:, 1] * self.x[:, 2]], dim=1)
        self.epoch, self.done, self.first = 0, 0, 0
        self.sampler = self  # which Lightning tells the epoch

    def __len__(self) -> int:
        return ROWS // SIZE

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.done = self.first
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(self.epoch)).split(SIZE)
        while self.done < len(self):
            rows = order[self.done]
            self.done += 1
            if self.done == len(self):
                self.first = 0  # the next epoch is whole
            yield self.x[rows], self.y[rows]

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.first = state["done"] % len(self)


class Regression(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> dict:
        units = tl.Units(self.net, torch.zeros(2, 20))
        optimizer = tl.ProxAdamW(tl.param_groups(self.net, tl.L1(over=units), lam=0.01), lr=0.02)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def by_lightning(folder: Path) -> nn.Module:
    """Train, from the last checkpoint of the folder on if there is one; the model becomes smaller meanwhile."""
    module, found = Regression(), sorted(folder.glob("*.ckpt"), key=number)
    sparse = SparseTraining(controllers, example_inputs=torch.zeros(2, 20), shrink_every=2, submodule="net")
    keep = [
        ModelCheckpoint(folder, "{step}", every_n_train_steps=EVERY, save_top_k=-1),
        ModelCheckpoint(folder, "{step}", every_n_epochs=1, save_top_k=-1, save_on_train_epoch_end=True),
    ]
    options = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=EPOCHS, callbacks=[sparse, *keep], default_root_dir=folder, **options)
    trainer.fit(module, Batches(), ckpt_path=found[-1] if found else None, weights_only=True)
    return module.net


def is_complete(folder: Path) -> bool:
    """Return whether a checkpoint of the Trainer was written to its end: its last file can be read."""
    try:
        return bool(json.loads((folder / "trainer_state.json").read_text("utf-8")))
    except (OSError, ValueError):
        return False


def by_trainer(folder: Path) -> nn.Module:
    """Train, from the last complete checkpoint of the folder on if there is one."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForSequenceClassification(BertConfig(vocab_size=20, **sizes))
    tokens = torch.randint(5, 20, (ROWS, 6), generator=torch.Generator().manual_seed(0))
    rows = [{"input_ids": text, "labels": int(text.min() > 6)} for text in tokens]
    args = TrainingArguments(
        str(folder),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=SIZE,
        learning_rate=0.01,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_steps=EVERY,
        logging_steps=STEPS,
    )
    trainer = HuggingFaceTrainer(model, args, train_dataset=rows)
    sparsify(trainer, tl.L1(), lam=0.02, controllers=controllers)
    found = sorted(filter(is_complete, folder.glob("checkpoint-*")), key=number)
    trainer.train(resume_from_checkpoint=str(found[-1]) if found else None)
    return model


def work(train: Callable[[Path], nn.Module], folder: Path) -> None:
    """Train in a process of its own, and leave the weights in a file."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of the libraries, on small examples
    weights = {name: w.detach() for name, w in train(folder / "run").state_dict().items()}
    torch.save(weights, folder / "weights.part")
    (folder / "weights.part").replace(folder / "weights.pt")


def start(train: Callable[[Path], nn.Module], folder: Path) -> multiprocessing.context.ForkProcess:
    (folder / "run").mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("fork").Process(target=work, args=(train, folder))
    process.start()
    return process


def checkpoints(folder: Path) -> int:
    return len([*(folder / "run").glob("*.ckpt"), *(folder / "run").glob("checkpoint-*")])


def uninterrupted(train: Callable[[Path], nn.Module], folder: Path) -> tuple[dict, float]:
    """Train to the end and return the weights, and the seconds from the first checkpoint on."""
    process = start(train, folder)
    while process.is_alive() and not checkpoints(folder):
        time.sleep(0.005)
    begin = time.perf_counter()
    process.join()
    return torch.load(folder / "weights.pt", weights_only=True), time.perf_counter() - begin


def interrupted(train: Callable[[Path], nn.Module], folder: Path, kills: int, seconds: float) -> tuple[dict, list[int]]:
    """Train to the end and return the weights, and the number of checkpoints at each time that it was killed.

    Args:
        kills: how often the process is killed, at most.
        seconds: that a training takes after its first checkpoint.
    """
    killed: list[int] = []
    while not (folder / "weights.pt").exists():
        process, before = start(train, folder), checkpoints(folder)
        while len(killed) < kills and process.is_alive():
            time.sleep(0.005)
            if checkpoints(folder) > before:
                time.sleep(random.uniform(0, seconds / (kills + 1)))
                if process.is_alive():
                    process.kill()
                    killed.append(checkpoints(folder))
                break
        process.join()
        if process.exitcode not in (0, -signal.SIGKILL):
            raise SystemExit(f"a training ended with {process.exitcode}")
    return torch.load(folder / "weights.pt", weights_only=True), killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    random.seed(0)
    for train in (by_lightning, by_trainer):
        place = Path(tempfile.mkdtemp())
        whole, seconds = uninterrupted(train, place / "whole")
        same = times = 0
        while times < options.times:
            shutil.rmtree(place / "run", ignore_errors=True)
            weights, killed = interrupted(train, place / "run", 2, seconds)
            if not killed:
                continue  # it was at its end before
            times += 1
            equal = weights.keys() == whole.keys() and all(torch.equal(w, whole[name]) for name, w in weights.items())
            same += equal
            line = {"loop": train.__name__, "time": times, "killed at checkpoint": killed, "same": equal}
            print(json.dumps(line), flush=True)
            if options.out is not None:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
        zeros = sum(int((w == 0).sum()) for w in whole.values()) / sum(w.numel() for w in whole.values())
        print(
            f"{train.__name__}: {same} of {options.times} the same to the last bit; {zeros:.1%} of its numbers are zero"
        )
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
