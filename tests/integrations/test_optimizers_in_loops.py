"""Lightning and Accelerate take the optimizers as they take torch's own."""

import pytest
import torch
from torch import nn

import torchlasso as tl

pytestmark = pytest.mark.slow

STEPS = 12
LAM = 0.05
OPTIONS = {tl.ProxSGD: {"lr": 0.1, "momentum": 0.9}, tl.ProxAdam: {"lr": 0.05}, tl.ProxAdamW: {"lr": 0.05}}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def data() -> torch.utils.data.TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8 * STEPS, 6, generator=generator)
    return torch.utils.data.TensorDataset(x, x[:, :3].contiguous())


def loader(batch_size: int = 8) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(data(), batch_size=batch_size)


def build(model: nn.Module, cls=tl.ProxAdamW, **options):
    optimizer = cls(tl.param_groups(model, tl.L1(), lam=LAM), **OPTIONS[cls], **options)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2 * STEPS)


def by_hand(cls, epochs: int, *, clip: float | None = None, **options) -> nn.Module:
    model = network()
    optimizer, scheduler = build(model, cls, **options)
    for _ in range(epochs):
        for x, y in loader():
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            scheduler.step()
    return model


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q)
        assert torch.equal(p == 0, q == 0)
    assert (one[0].weight == 0).any()
    assert one[0].weight.any()


CLASSES = pytest.mark.parametrize("cls", OPTIONS, ids=lambda cls: cls.__name__)


# --- Lightning ---


def lightning(test):
    """Filters for Lightning's warnings about its own code or small examples."""
    for message in (
        "`isinstance:FutureWarning",
        "The 'train_dataloader' does not have many workers",
    ):
        test = pytest.mark.filterwarnings(f"ignore:{message}")(test)
    return test


def lightning_module(cls=tl.ProxAdamW, **options):
    from lightning import LightningModule

    class Regression(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        def training_step(self, batch, index):
            x, y = batch
            return nn.functional.mse_loss(self.net(x), y)

        def configure_optimizers(self):
            optimizer, scheduler = build(self.net, cls, **options)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    return Regression()


def trainer(folder, epochs: int, **options):
    from lightning import Trainer

    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"enable_checkpointing": False, **options},
    )


@lightning
@CLASSES
def test_lightning_trains_as_a_loop_by_hand(cls, tmp_path):
    pytest.importorskip("lightning")
    module = lightning_module(cls)
    trainer(tmp_path, 2, gradient_clip_val=1.0).fit(module, loader())
    assert_same_weights(module.net, by_hand(cls, 2, clip=1.0))


@lightning
def test_lightning_resumes_from_its_checkpoint(tmp_path):
    pytest.importorskip("lightning")
    whole, half, rest = (lightning_module() for _ in range(3))
    trainer(tmp_path, 2).fit(whole, loader())
    first = trainer(tmp_path, 1)
    first.fit(half, loader())
    first.save_checkpoint(tmp_path / "half.ckpt")
    trainer(tmp_path, 2).fit(rest, loader(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert_same_weights(whole.net, rest.net)
    assert not torch.equal(half.net[0].weight, rest.net[0].weight)


@lightning
def test_lightning_in_mixed_precision_makes_exact_zeros(tmp_path):
    pytest.importorskip("lightning")
    module = lightning_module()
    trainer(tmp_path, 2, precision="bf16-mixed", accumulate_grad_batches=2).fit(module, loader())
    assert (module.net[0].weight == 0).any()
    assert module.net[0].weight.any()


# --- Accelerate ---


@CLASSES
def test_accelerate_trains_as_a_loop_by_hand(cls):
    accelerate = pytest.importorskip("accelerate")
    model = network()
    optimizer, scheduler = build(model, cls)
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    batches = loader(batch_size=4)
    prepared, optimizer, batches, scheduler = accelerator.prepare(model, optimizer, batches, scheduler)
    for _ in range(2):
        for x, y in batches:
            with accelerator.accumulate(prepared):
                accelerator.backward(nn.functional.mse_loss(prepared(x), y))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(prepared.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
    assert_same_weights(accelerator.unwrap_model(prepared), by_hand(cls, 2, clip=1.0))


def test_accelerate_saves_and_loads_a_run(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model = network()
    parts = accelerator.prepare(model, *build(model))
    prepared, optimizer, scheduler = parts

    def epoch() -> None:
        for x, y in loader():
            optimizer.zero_grad()
            accelerator.backward(nn.functional.mse_loss(prepared(x), y))
            optimizer.step()
            scheduler.step()

    epoch()
    accelerator.save_state(tmp_path)
    epoch()
    last = [p.detach().clone() for p in model.parameters()]
    accelerator.load_state(tmp_path)
    assert not torch.equal(last[0], model[0].weight)
    epoch()
    for p, expected in zip(model.parameters(), last, strict=True):
        assert torch.equal(p, expected)
    assert (model[0].weight == 0).any()
