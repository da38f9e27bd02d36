"""A callback of Lightning: sparse training in a ``LightningModule`` whose optimizers are proximal."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.hooks import RemovableHandle

from torchlasso._core.arguments import check_whole
from torchlasso._core.extras import require
from torchlasso._core.running import ExampleInputs
from torchlasso._core.wrappers import unwrapped_optimizer
from torchlasso.compaction import CompactionReport, Shrinker, compact
from torchlasso.distributed.sharding import any_sharded
from torchlasso.integrations.averaged_weights import AveragedWeights
from torchlasso.integrations.loop_control import LoopControl, MakeControllers

try:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback, StochasticWeightAveraging, WeightAveraging
    from lightning.pytorch.strategies import DDPStrategy
except ModuleNotFoundError:
    require("lightning", "lightning", "torchlasso.integrations.lightning")
    raise

if TYPE_CHECKING:
    from collections.abc import Iterator

ALWAYS = 10**18  # rows to come, for which any removal pays


class SparseTraining(Callback):
    """A callback that controls λ, logs it with the share of zeros, and makes the model smaller.

    Build proximal optimizers in ``configure_optimizers``. The controllers step at the end of each step of their
    optimizer: not while gradients are accumulated, nor when a gradient scaler skips the step. Their state is in every
    checkpoint of the trainer, so that ``fit(ckpt_path=...)`` goes on to the last bit. Of several optimizers, each
    proximal one has its own controllers. A schedule-free one is in its mode of training in each step, and the model has
    the averaged weights when it is validated or saved, and at the end.

    ``sparsity``, the share of zeros among the penalised weights, and ``lam`` (λ of each group, ``lam/0`` and on where
    they differ) go to the module's log: λ after every step, the share every ``log_every_n_steps`` and at the end of
    each epoch.

    Args:
        controllers: (optimizer, the number of its steps in the whole training) ↦ a controller of λ or several.
        example_inputs: a small batch of inputs of the model, as for :func:`torchlasso.compact`.
        shrink_every: the number of epochs after which units without effect are removed from the model, before the next.
        compact: whether to make :attr:`compacted` at the end.
        submodule: the name of the part of the module that becomes smaller, such as ``"net"``; by default all of it.

    Attributes:
        compacted: the smaller model after training with ``compact=True``; None otherwise.
        report: the report of that compaction; None otherwise.

    Raises:
        ValueError: an argument is wrong; or, when training begins, no optimizer is proximal, or a sharded model is to
            become smaller.

    Examples:
        >>> import torchlasso as tl
        >>> sparse = SparseTraining(lambda optimizer, steps: tl.TargetSparsity(optimizer, 0.9, steps=steps))
        >>> # lightning.Trainer(max_epochs=20, callbacks=[sparse]).fit(module, loader)
    """

    def __init__(
        self,
        controllers: MakeControllers | None = None,
        *,
        example_inputs: ExampleInputs | None = None,
        shrink_every: int | None = None,
        compact: bool = False,
        submodule: str = "",
    ) -> None:
        if shrink_every is not None:
            check_whole("SparseTraining: shrink_every", shrink_every)
        if (compact or shrink_every is not None) and example_inputs is None:
            raise ValueError("SparseTraining: give example_inputs, a small batch, for shrink_every and compact")
        self.example_inputs, self.shrink_every, self.compact = example_inputs, shrink_every, compact
        self.submodule = submodule
        self.compacted: nn.Module | None = None
        self.report: CompactionReport | None = None
        self._control = LoopControl(controllers, type(self).__name__)
        self._averaged = AveragedWeights()
        self._shrinker: Shrinker | None = None
        self._loaded: Mapping[str, Any] | None = None  # the state of a checkpoint, until the optimizers have theirs
        self._weights: dict[str, Tensor] | None = None  # those of a checkpoint whose model is smaller
        self._handle: RemovableHandle | None = None
        self._logged_steps = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare for a checkpoint whose model is smaller."""
        if stage != "fit":
            return
        self._control, self._shrinker = LoopControl(self._control.make, type(self).__name__), None
        if self.shrink_every is not None:
            self._handle = pl_module.register_load_state_dict_pre_hook(self._put_aside)  # type: ignore[no-untyped-call]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the units of a model that is to become smaller, and make it as small as that of the checkpoint."""
        if self._handle is not None:
            self._handle.remove()
        for each in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it elsewhere
            if isinstance(each, StochasticWeightAveraging | WeightAveraging):
                warnings.warn(
                    f"{type(each).__name__} averages the weights of many steps, which are zero only where all of these "
                    "were: use a schedule-free optimizer, whose averages are sparse, or leave the callback out",
                    stacklevel=2,
                )
        if not self.compact and self.shrink_every is None:
            return
        if any_sharded(pl_module.parameters()):
            raise ValueError(
                "SparseTraining: a sharded model cannot become smaller, since FSDP divides the parameters once, with "
                "the sizes that they have then; compact the whole model after training, in one process"
            )
        model = self._model(pl_module)
        if self.shrink_every is not None:
            self._shrinker = Shrinker(model, self._inputs(pl_module))
        if self._weights is not None:
            self._replay(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the controllers, and load their state, now that the optimizers have theirs."""
        # only now: before, this would load the loader of a resumed training without its state
        steps: Any = trainer.estimated_stepping_batches
        if steps < 0:  # of a loader without a length
            steps = math.inf
        elif self._loaded is None:  # of an earlier fit, or a checkpoint without controllers
            steps -= trainer.global_step // len(trainer.optimizers)
        if not self._control.optimizers:
            self._control.begin(trainer.optimizers, steps, self._loaded)
        elif self._loaded is not None:  # the model became smaller with them
            self._control.load_state_dict(self._loaded)
        self._loaded = None
        self._averaged.begin(pl_module, trainer.optimizers)
        self._logged_steps = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remove the units without effect before the first batch of an epoch, if it is time, and begin a step."""
        # the hooks of epochs are not called by a training that goes on from the last batch of one
        epoch = trainer.current_epoch if batch_idx == 0 else 0
        if self._shrinker is not None and self.shrink_every and epoch and epoch % self.shrink_every == 0:
            optimizers = [unwrapped_optimizer(optimizer) for optimizer in trainer.optimizers]
            self._averaged.use()
            with _unwrapped(trainer):
                model = self._model(pl_module)
                self._shrinker.consider(model, optimizers, self._control.controllers, ALWAYS)
        self._averaged.begin_step()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log λ, and now and then the share of zeros."""
        self._averaged.end_step()
        step = trainer.global_step
        if step == self._logged_steps:
            return
        self._logged_steps = step
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it elsewhere
        due = step // len(trainer.optimizers) % every == 0
        if due:
            self._averaged.use()
        figures = {**self._control.lams(), **({"sparsity": self._control.sparsity} if due else {})}
        pl_module.log_dict(figures, on_step=True, on_epoch=False)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the model the averages of a schedule-free optimizer."""
        self._averaged.use()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the share of zeros."""
        self._averaged.use()
        pl_module.log("sparsity", self._control.sparsity, sync_dist=trainer.world_size > 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the smaller model, and warn of targets that are missed because training was stopped early."""
        self._averaged.end()
        self._control.end()
        self._control.warn_if_stopped()
        if self.compact:
            inputs = self._inputs(pl_module)
            self.compacted, self.report = compact(self._model(pl_module), inputs, return_report=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the model the averages of a schedule-free optimizer, before it is saved as it is now."""
        self._averaged.end()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the optimizers and the module."""
        self._averaged.end()
        self._control.end()
        if self._handle is not None:
            self._handle.remove()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the controllers, and the compactions so far; nothing before training begins."""
        if not self._control.optimizers:
            return {}
        shrinks = [] if self._shrinker is None else self._shrinker.records
        return {**self._control.state_dict(), "shrinks": list(shrinks)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state once the optimizers have loaded theirs."""
        self._loaded = state_dict

    def _inputs(self, pl_module: LightningModule) -> Any:
        """Return the example inputs on the device of the module."""
        device = pl_module.device
        return tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, self.example_inputs)

    def _model(self, pl_module: LightningModule) -> nn.Module:
        try:
            return pl_module.get_submodule(self.submodule)
        except AttributeError as error:
            names = ", ".join(name for name, _ in pl_module.named_children())
            raise ValueError(
                f"SparseTraining: the module has no submodule {self.submodule!r}; it has {names}"
            ) from error

    def _put_aside(self, module: nn.Module, state_dict: dict[str, Tensor], *_: Any) -> None:
        """Keep the weights of a smaller model aside, until the full one has become smaller, too."""
        own = module.state_dict()
        if state_dict.keys() == own.keys() and any(w.shape != own[name].shape for name, w in state_dict.items()):
            self._weights = dict(state_dict)
            state_dict.update(own)

    def _replay(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the full model as small as that of the checkpoint, and load the weights."""
        loaded = self._loaded or {"shrinks": [], "steps": 1}
        if self._shrinker is not None and loaded["shrinks"]:
            optimizers = [unwrapped_optimizer(optimizer) for optimizer in trainer.optimizers]
            self._control.begin(optimizers, loaded["steps"])  # of the full model, before it becomes smaller
            with _unwrapped(trainer):
                self._shrinker.replay(loaded["shrinks"], self._model(pl_module), optimizers, self._control.controllers)
        pl_module.load_state_dict(self._weights or {})  # whose error says which sizes differ
        self._weights = None


@contextmanager
def _unwrapped(trainer: Trainer) -> Iterator[None]:
    """Take the model out of ``DistributedDataParallel``, which holds its parameters, and wrap it again afterwards."""
    strategy = trainer.strategy
    if not isinstance(strategy, DDPStrategy):
        yield
        return
    strategy.model = strategy.lightning_module
    try:
        yield
    finally:
        strategy.configure_ddp()
