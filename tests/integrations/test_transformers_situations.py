"""Situations of the Trainer's users: a second training, and a dense checkpoint that goes on with a penalty."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import torchlasso as tl

pytest.importorskip("transformers")

from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from torchlasso.integrations.transformers import sparsify

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:TargetSparsity"),  # so few steps may not be enough
]

EPOCHS, ROWS, SIZE = 3, 64, 8
STEPS = EPOCHS * ROWS // SIZE
TOKENS = torch.randint(5, 20, (ROWS, 6), generator=torch.Generator().manual_seed(0))
TEXTS = [{"input_ids": text, "labels": int(text.min() > 6)} for text in TOKENS]
RULES = [tl.Rule("*.layer.*", tl.L1()), tl.Rule("*.embeddings.*", None), tl.Rule("*", tl.L1(), scale=0.5)]


def network() -> nn.Module:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
    )
    return BertForSequenceClassification(config)


def trainer(folder: Path, epochs: int = EPOCHS, **options) -> Trainer:
    arguments = TrainingArguments(
        str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=SIZE,
        learning_rate=0.01,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        **{"save_strategy": "no", "logging_strategy": "no", **options},
    )
    return Trainer(network(), arguments, train_dataset=TEXTS)


def test_a_second_training_begins_with_the_first_lam(tmp_path):
    made, lams = [], []

    def make(optimizer, steps):
        lams.append([group["lam"] for group in optimizer.param_groups])
        made.append(tl.TargetSparsity(optimizer, 0.6, steps=steps))
        return made[-1]

    again = trainer(tmp_path)
    sparsify(again, tl.L1(), lam=0.01, controllers=make)
    for _ in range(2):
        again.train()
        groups = again.optimizer.optimizer.penalised_groups()
        assert tl.report(again.model, groups).sparsity == pytest.approx(0.6, abs=0.1)
    assert lams[0] == lams[1]
    assert [(control.done, control.steps) for control in made] == [(STEPS, STEPS)] * 2


class States(TrainerCallback):
    """Keeps the averages of each parameter, and the rates, as they are where training begins."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.averages, self.rates = trainer, {}, []
        trainer.add_callback(self)

    def on_train_begin(self, *_, **__):
        state = self.trainer.optimizer.optimizer.state
        self.averages = {name: state[p]["exp_avg"].clone() for name, p in self.trainer.model.named_parameters()}

    def on_step_begin(self, *_, **__):
        self.rates.append({group["lr"] for group in self.trainer.optimizer.param_groups})


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_dense_checkpoint_goes_on_with_other_groups_and_the_steps_that_are_left(decay, tmp_path):
    dense = trainer(tmp_path, save_strategy="epoch", weight_decay=decay)
    dense.train()
    plain = dense.optimizer.optimizer.state
    wanted = {name: plain[p]["exp_avg"] for name, p in dense.model.named_parameters()}
    made = []

    def make(optimizer, steps):
        made.append(tl.TargetSparsity(optimizer, 0.6, steps=steps))
        return made[-1]

    sparse = trainer(tmp_path, 2 * EPOCHS, weight_decay=decay)
    sparsify(sparse, RULES, lam=0.01, controllers=make)
    found = States(sparse)
    sparse.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{STEPS}"))
    assert len(sparse.optimizer.param_groups) > 2
    assert found.averages.keys() == wanted.keys()
    for name, average in found.averages.items():
        assert torch.equal(average, wanted[name]), name
    assert any(average.any() for average in found.averages.values())
    assert [(control.done, control.steps) for control in made] == [(STEPS, STEPS)]
    assert all(len(rates) == 1 for rates in found.rates)
    assert max(found.rates[-1]) < max(found.rates[1])
    groups = sparse.optimizer.optimizer.penalised_groups()
    assert tl.report(sparse.model, groups).sparsity == pytest.approx(0.6, abs=0.1)
