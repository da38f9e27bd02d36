"""Training with the Trainer of transformers: the weights of a loop by hand, after a resume as well."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import torchlasso as tl
from tests.support.loops import SIZE, controllers, identical_weights

pytest.importorskip("transformers")

from transformers import AutoConfig, BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from torchlasso.integrations.transformers import save_small, sparsify

pytestmark = pytest.mark.slow

EPOCHS, BATCHES, TOKENS, DECAY = 3, 8, 6, 0.1
STEPS = EPOCHS * BATCHES


class Texts(Dataset):
    """Texts of a few tokens, of which one decides on the class."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.tokens = torch.randint(5, 20, (BATCHES * SIZE, TOKENS), generator=generator)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, i: int) -> dict:
        return {"input_ids": self.tokens[i], "labels": int(self.tokens[i].min() > 6)}


def network(layers: int = 1) -> nn.Module:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=TOKENS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForSequenceClassification(config)


RULES = [tl.Rule("*.layer.*", tl.L1()), tl.Rule("*.embeddings.*", None), tl.Rule("*", tl.L1(), scale=0.5)]


def arguments(folder: Path, **options) -> TrainingArguments:
    return TrainingArguments(
        str(folder),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=SIZE,
        learning_rate=0.01,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        **{"save_strategy": "no", "logging_steps": 5, "weight_decay": DECAY, **options},
    )


def in_order(folder: Path, *, model: nn.Module | None = None, make=controllers, rules=None, **options) -> Trainer:
    """A Trainer that takes the texts as they come."""
    options = {"train_sampling_strategy": "sequential", **options}
    trainer = Trainer(model or network(), arguments(folder, **options), train_dataset=Texts())
    sparsify(trainer, rules or RULES, lam=0.02, controllers=make)
    return trainer


def by_hand() -> nn.Module:
    model = network()
    groups = []
    for group in tl.param_groups(model, RULES, lam=0.02):
        for decay in (DECAY, 0.0):
            pairs = zip(group["params"], group["names"], strict=True)
            own = [(p, name) for p, name in pairs if (name.endswith("bias") or "LayerNorm" in name) == (not decay)]
            if own:
                params, names = map(list, zip(*own, strict=True))
                groups.append({**group, "params": params, "names": names, "weight_decay": decay})
    optimizer = tl.ProxAdamW(groups, lr=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, (STEPS - step) / STEPS))
    controls = list(controllers(optimizer, STEPS))
    for _ in range(EPOCHS):
        for batch in torch.utils.data.DataLoader(Texts(), batch_size=SIZE):
            model(**batch).loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            for control in controls:
                control.step()
            scheduler.step()
            optimizer.zero_grad()
    return model


def test_the_weights_are_those_of_a_loop_by_hand(tmp_path):
    trainer = in_order(tmp_path)
    trainer.train()
    identical_weights(trainer.model, by_hand())


def test_a_training_goes_on_within_an_epoch_to_the_last_bit(tmp_path):
    whole = in_order(tmp_path / "whole", save_strategy="steps", save_steps=5)
    whole.train()
    folders = sorted((tmp_path / "whole").glob("checkpoint-*"), key=lambda each: int(each.name.partition("-")[2]))
    states = [torch.load(folder / "optimizer.pt", weights_only=True)["torchlasso"] for folder in folders]
    assert [state["controllers"][0]["done"] for state in states] == [5, 10, 15, 20, STEPS]
    for folder in folders[0], folders[2]:
        rest = in_order(tmp_path / "rest")
        rest.train(resume_from_checkpoint=str(folder))
        identical_weights(rest.model, whole.model)


def test_a_controller_steps_once_for_accumulated_gradients(tmp_path):
    taken = []
    make = lambda optimizer, steps: taken.append(tl.Warmup(optimizer, steps=steps)) or taken[-1]  # noqa: E731
    in_order(tmp_path, make=make, gradient_accumulation_steps=2).train()
    assert taken[0].done == taken[0].steps == STEPS // 2


def test_zeros_and_lam_are_logged(tmp_path):
    trainer = in_order(tmp_path)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "sparsity" in line]
    assert [line["step"] for line in lines] == [*range(5, STEPS, 5), STEPS]
    assert {"lam/0", "lam/1", "epoch"} <= lines[-1].keys()
    assert [line["step"] for line in trainer.state.log_history if "loss" in line] == list(range(5, STEPS, 5))
    groups = trainer.optimizer.optimizer.penalised_groups()
    assert lines[-1]["sparsity"] == tl.report(trainer.model, groups).sparsity > 0.3


def test_a_second_training_begins_anew(tmp_path):
    taken = []
    make = lambda optimizer, steps: taken.append(tl.Warmup(optimizer, steps=steps)) or taken[-1]  # noqa: E731
    trainer = in_order(tmp_path, make=make)
    trainer.train()
    trainer.train()
    assert [control.done for control in taken] == [STEPS, STEPS]
    assert [group["lam"] for group in trainer.optimizer.optimizer.penalised_groups()] == [0.02, 0.01]


def test_arguments_count_as_they_are_when_training_begins(tmp_path):
    trainer = in_order(tmp_path, make=None)
    trainer.args.learning_rate, trainer.args.adam_beta1 = 0.123, 0.5  # as a search for hyperparameters would
    optimizer = trainer.create_optimizer()
    assert all((group["lr"], group["betas"][0]) == (0.123, 0.5) for group in optimizer.param_groups)


def test_what_is_frozen_is_left_out(tmp_path):
    model = network()
    model.bert.embeddings.requires_grad_(False)
    before = model.bert.embeddings.word_embeddings.weight.clone()
    trainer = in_order(tmp_path, model=model, rules=tl.L1())
    trainer.train()
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, before)
    trained = {p for group in trainer.optimizer.param_groups for p in group["params"]}
    assert trained == {p for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize("alike", [True, False], ids=["with a configuration", "without a configuration"])
def test_a_smaller_model_is_read_by_the_line(alike, tmp_path):
    model = network(layers=1 if alike else 2)
    layer = model.bert.encoder.layer[0]
    with torch.no_grad():  # a configuration has one width for all layers
        layer.intermediate.dense.weight[:7] = 0
        layer.intermediate.dense.bias[:7] = 0
    example = {"input_ids": Texts().tokens[:2]}
    small = tl.compact(model, example)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    line = save_small(small, tmp_path / "small", example, measured={"test error": 0.02})
    card = (tmp_path / "small" / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "\n| test error | 0.02 |\n" in card
    assert line.replace(str(tmp_path / "small"), "FOLDER") in card
    assert ("torchlasso.load" not in line) == alike
    space = {"BertForSequenceClassification": BertForSequenceClassification, "AutoConfig": AutoConfig, "torchlasso": tl}
    exec(line, space)
    for w, other in zip(space["model"].eval()(**example).logits, small.eval()(**example).logits, strict=True):
        assert torch.equal(w, other)


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(TypeError, match=r"^sparsify: trainer must be a Trainer of transformers; got 3$"):
        sparsify(3, tl.L1(), lam=0.1)
    with pytest.raises(
        ValueError, match=r"^sparsify: the Trainer has an optimizer already; make it without optimizers"
    ):
        sparsify(in_order(tmp_path), tl.L1(), lam=0.1)
    with pytest.raises(TypeError, match=r"^sparsify: controllers must be a function of the optimizer and the number"):
        in_order(tmp_path, make=0.9)
    with pytest.raises(TypeError, match=r"^save_small: model must be a PreTrainedModel of transformers; got a Linear"):
        save_small(nn.Linear(2, 1), tmp_path, torch.zeros(1, 2))


def test_without_transformers_a_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    for name in ("", ".callback", ".saving"):
        monkeypatch.delitem(sys.modules, f"torchlasso.integrations.transformers{name}")
    with pytest.raises(ValueError, match=r"needs transformers: pip install 'torchlasso\[transformers\]'$"):
        importlib.import_module("torchlasso.integrations.transformers")


@pytest.mark.parametrize("decay", [0.0, DECAY])
def test_units_are_those_of_a_loop_by_hand_with_the_weight_decay_of_each_parameter(decay, tmp_path):
    def made():
        model = network()
        return model, tl.L1(over=tl.Units(model, {"input_ids": Texts().tokens[:2]}))

    model, units = made()
    trainer = in_order(tmp_path, model=model, rules=units, make=None, weight_decay=decay)
    trainer.train()
    assert (model.bert.encoder.layer[0].intermediate.dense.weight == 0).all(dim=1).any()
    plain, units = made()
    optimizer = tl.ProxAdamW(tl.param_groups(plain, units, lam=0.02), lr=0.01, weight_decay=0.0)
    decayed = [p for name, p in plain.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, (STEPS - step) / STEPS))
    for _ in range(EPOCHS):
        for batch in torch.utils.data.DataLoader(Texts(), batch_size=SIZE):
            plain(**batch).loss.backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            with torch.no_grad():  # the decay of AdamW, before its update
                for p in decayed:
                    p.mul_(1 - scheduler.get_last_lr()[0] * decay)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-5)
        assert torch.equal(p == 0, q == 0)
