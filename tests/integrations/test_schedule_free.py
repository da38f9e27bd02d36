"""Schedule-free optimizers in the loops of other libraries: the averaged weights wherever a model is used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.loops import EPOCHS, EXAMPLE, SIZE, STEPS, ResumableLoader, identical_weights, loader, network

schedulefree = pytest.importorskip("schedulefree")

pytestmark = [
    pytest.mark.slow,
    # Lightning's own code asks torch in a way that is deprecated, and it advises workers for ten batches
    pytest.mark.filterwarnings("ignore:`isinstance:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The '.*' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),  # the runs that go on write no files
]


def optimizer_of(model: nn.Module, **options) -> tl.Proximal:
    cls = tl.proximal(schedulefree.AdamWScheduleFree)
    over = tl.Units(model, EXAMPLE) if options.pop("units", False) else tl.Elements()
    groups = tl.param_groups(model, tl.L1(over=over), lam=0.02)
    return cls(groups, **{"lr": 0.05, "warmup_steps": 3, **options})


def averages(model: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def identical_averages(one: list[list[torch.Tensor]], other: list[list[torch.Tensor]]) -> None:
    assert len(one) == len(other)
    for weights, expected in zip(one, other, strict=True):
        assert all(map(torch.equal, weights, expected))


def by_hand() -> tuple[nn.Module, list[list[torch.Tensor]]]:
    """Train, and return the model and the averages after each epoch."""
    model = network()
    optimizer, found = optimizer_of(model), []
    for _ in range(EPOCHS):
        optimizer.train()
        for x, y in loader():
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
        optimizer.eval()
        found.append(averages(model))
    return model, found


# --- Lightning ---


def regression(units: bool = False):
    from lightning import LightningModule

    class Regression(LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.seen = network(), []

        def training_step(self, batch, index):
            x, y = batch
            return nn.functional.mse_loss(self.net(x), y)

        def validation_step(self, batch, index):
            if index == 0 and not self.trainer.sanity_checking:
                self.seen.append(averages(self.net))

        test_step = predict_step = validation_step

        def configure_optimizers(self):
            return optimizer_of(self.net, units=units)

    return Regression()


def fit(folder: Path, module, batches, *callbacks, ckpt_path=None, sparse=None, **options):
    from lightning import Trainer

    from torchlasso.integrations.lightning import SparseTraining

    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[sparse or SparseTraining(), *callbacks],
        enable_checkpointing=bool(callbacks),
        **{"max_epochs": EPOCHS, **options},
    )
    trainer.fit(module, batches, loader(), ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return trainer


@pytest.mark.parametrize("often", [{}, {"val_check_interval": 3, "log_every_n_steps": 2}], ids=["epochs", "often"])
def test_lightning_validates_the_averages_of_a_loop_by_hand(often, tmp_path):
    pytest.importorskip("lightning")
    module = regression()
    trainer = fit(tmp_path, module, loader(), **often)
    model, found = by_hand()
    identical_weights(module.net, model)
    if not often:
        identical_averages(module.seen, found)
    assert len(module.seen) == (EPOCHS * 3 if often else EPOCHS)
    before = averages(module.net)
    trainer.validate(module, loader(), verbose=False)
    trainer.test(module, loader(), verbose=False)
    for seen in module.seen[-2:]:
        assert all(map(torch.equal, seen, before))


@pytest.mark.parametrize("only", [False, True], ids=["whole", "only the weights"])
def test_files_of_lightning_have_the_averages_and_a_training_goes_on_to_the_bit(only, tmp_path):
    pytest.importorskip("lightning")
    from lightning.pytorch.callbacks import ModelCheckpoint

    module = regression()
    saves = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=5, save_top_k=-1, save_weights_only=only)
    fit(tmp_path, module, ResumableLoader(), saves)
    model, found = by_hand()
    identical_weights(module.net, model)
    files = {int(file.stem.partition("=")[2]): file for file in tmp_path.glob("*.ckpt")}
    assert sorted(files) == list(range(5, STEPS + 1, 5))
    for epoch, expected in enumerate(found):
        saved = torch.load(files[(epoch + 1) * STEPS // EPOCHS], weights_only=True)["state_dict"]
        assert all(map(torch.equal, saved.values(), expected))
    for step in () if only else (5, 10, 15):
        rest = regression()
        fit(tmp_path, rest, ResumableLoader(), ckpt_path=files[step])
        identical_weights(rest.net, model)


def test_lightning_makes_a_model_smaller_by_its_averages(tmp_path):
    pytest.importorskip("lightning")
    from torchlasso.integrations.lightning import SparseTraining

    module = regression(units=True)
    sparse = SparseTraining(example_inputs=EXAMPLE, shrink_every=1, compact=True, submodule="net")
    fit(tmp_path, module, loader(), sparse=sparse)
    assert module.net[0].out_features < 16
    torch.testing.assert_close(sparse.compacted(EXAMPLE + 1), module.net(EXAMPLE + 1))


def test_lightning_leaves_the_averages_after_an_exception(tmp_path):
    pytest.importorskip("lightning")
    from lightning import Callback

    class Failing(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 10:
                raise RuntimeError("enough")

    module = regression()
    with pytest.raises(RuntimeError, match="enough"):
        fit(tmp_path, module, loader(), Failing())
    _, found = by_hand()
    assert all(map(torch.equal, averages(module.net), found[0]))
    assert not module._state_dict_pre_hooks


# --- the Trainer of transformers ---


def test_the_trainer_evaluates_and_saves_the_averages_and_goes_on_to_the_bit(tmp_path):
    pytest.importorskip("transformers")
    from safetensors.torch import load_file
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from torchlasso.integrations.transformers import sparsify

    class WithLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.seen = network(), []

        def forward(self, x, labels):
            if not self.training:
                self.seen.append(averages(self.net))
            return {"loss": nn.functional.mse_loss(self.net(x), labels)}

    class Late(TrainerCallback):
        """One that asks for a file after all others, in step 7."""

        def on_step_end(self, args, state, control, **kwargs):
            control.should_save = control.should_save or state.global_step == 7

    x, y = (torch.cat(parts) for parts in zip(*loader(), strict=True))
    data = [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]

    def trained(folder, **options):
        arguments = TrainingArguments(
            str(tmp_path / folder),
            optim="schedule_free_adamw",
            learning_rate=0.05,
            warmup_steps=3,
            lr_scheduler_type="constant",
            adam_beta1=0.9,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=SIZE,
            per_device_eval_batch_size=len(x),
            max_grad_norm=0.0,
            train_sampling_strategy="sequential",
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            logging_steps=3,
            eval_strategy="epoch",
            save_strategy="steps",
            save_steps=10,
        )
        trainer = Trainer(WithLoss(), arguments, train_dataset=data, eval_dataset=data)
        sparsify(trainer, tl.L1(), lam=0.02)
        trainer.add_callback(Late())
        trainer.train(**options)
        return trainer

    trainer = trained("whole")
    model, found = by_hand()
    identical_weights(trainer.model.net, model)
    assert len(trainer.model.seen) == EPOCHS
    identical_averages(trainer.model.seen, found)
    lines = [line for line in trainer.state.log_history if "sparsity" in line]
    assert lines[-1]["sparsity"] == tl.report(model, optimizer_of(model).penalised_groups()).sparsity > 0
    folder = tmp_path / "whole"
    saved = load_file(folder / "checkpoint-10" / "model.safetensors")
    assert all(torch.equal(saved[f"net.{name}"], w) for name, w in zip(model.state_dict(), found[0], strict=True))
    for step in (7, 10):
        rest = trained("rest", resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
        identical_weights(rest.model.net, model)
    assert not trainer.model._state_dict_pre_hooks
