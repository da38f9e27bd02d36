"""Sparse training with the ``Trainer`` of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from torchlasso._core.arguments import shown
from torchlasso._core.extras import require
from torchlasso._core.wrappers import unwrapped, unwrapped_optimizer
from torchlasso.distributed.sharding import any_sharded
from torchlasso.integrations.averaged_weights import AveragedWeights
from torchlasso.integrations.loop_control import LoopControl, MakeControllers
from torchlasso.integrations.transformers.groups import decayed_groups
from torchlasso.optim import Proximal, proximal
from torchlasso.penalties import Penalty
from torchlasso.selection import Rule
from torchlasso.storage.checkpoint import load_state, save_state

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError:
    require("transformers", "transformers", "torchlasso.integrations.transformers")
    raise

KEY = "torchlasso"  # of the state of the controllers in the state of the optimizer
FILE = "torchlasso.safetensors"  # it, in the checkpoint of a sharded model


def sparsify(
    trainer: Trainer,
    penalty: Penalty | Rule | Sequence[Rule],
    *,
    lam: float,
    controllers: MakeControllers | None = None,
    **options: Any,
) -> SparseTrainingCallback:
    """Let a Trainer train a sparse model: with a proximal optimizer, and a callback that controls λ.

    The optimizer is the proximal form of ``args.optim``, with its rate, betas and so on, and with the weight decay that
    the Trainer gives to each parameter. Call this before ``trainer.train()``.

    Args:
        trainer: a Trainer without an optimizer of its own.
        penalty: a penalty for all weights, or rules, see :func:`torchlasso.param_groups`.
        lam: λ ≥ 0.
        controllers: (optimizer, the number of steps of the whole training) ↦ a controller of λ or several.
        options: further arguments of the optimizer, such as ``form="latent"``.

    Returns:
        The callback that was added to the Trainer.

    Raises:
        ValueError: the Trainer has an optimizer already, or there is no proximal form of ``args.optim``.
        TypeError: an argument has the wrong type.

    Examples:
        >>> import torchlasso as tl
        >>> # trainer = transformers.Trainer(model, args, train_dataset=rows)
        >>> # sparsify(trainer, tl.L1(), lam=1e-4)
        >>> # trainer.train()
    """
    if not isinstance(trainer, Trainer):
        raise TypeError(f"sparsify: trainer must be a Trainer of transformers; got {shown(trainer)}")
    if trainer.optimizer is not None or trainer.optimizer_cls_and_kwargs is not None:
        raise ValueError(
            "sparsify: the Trainer has an optimizer already; make it without optimizers, and args.optim counts"
        )
    callback = SparseTrainingCallback(trainer, controllers)

    def chosen(model: Any) -> tuple[type[Proximal], dict[str, Any]]:
        """Return the optimizer of the arguments as they are now, which a search for hyperparameters changes."""
        base, kwargs = trainer.get_optimizer_cls_and_kwargs(trainer.args, model)
        kwargs = {key: value for key, value in kwargs.items() if key != "fused"}  # these are torch's own kernels
        return proximal(base), {**kwargs, **options}

    def build(model: nn.Module) -> Optimizer:
        decayed = set(trainer.get_decay_parameter_names(model))
        decays = {
            p: trainer.args.weight_decay if name in decayed else 0.0
            for name, p in model.named_parameters()
            if p.requires_grad
        }
        cls, kwargs = chosen(model)
        optimizer = cls(decayed_groups(model, penalty, lam, decays), **kwargs)
        callback.watch(optimizer)
        return optimizer

    chosen(trainer.model)  # an unknown optimizer is refused at once
    # transformers calls the first twice: without arguments, then with the model
    trainer.optimizer_cls_and_kwargs = (lambda: build, {})  # type: ignore[assignment]
    trainer.add_callback(callback)
    return callback


class SparseTrainingCallback(TrainerCallback):
    """The callback of :func:`sparsify`: controls λ, and logs it with the share of zeros.

    The controllers step at the end of each step of the optimizer: not while gradients are accumulated, nor when a
    gradient scaler skips the step. Their state is in every checkpoint, so that ``resume_from_checkpoint`` goes on to
    the last bit: in the state of the optimizer or, if the model is sharded, in a file of its own. ``sparsity`` and
    ``lam`` (``lam/0`` and on where the groups differ) go through ``Trainer.log`` in every logging step. With a
    schedule-free optimizer, the model has the averaged weights when it is evaluated or saved, and at the end.

    Args:
        trainer: the Trainer.
        controllers: see :func:`sparsify`.
    """

    def __init__(self, trainer: Trainer, controllers: MakeControllers | None = None) -> None:
        self.trainer = trainer
        self._control = LoopControl(controllers, "sparsify")
        self._averaged = AveragedWeights()
        self._loaded: Mapping[str, Any] | None = None
        self._training = False

    def watch(self, optimizer: Optimizer) -> None:
        """Keep the state of the controllers in the state of an optimizer."""
        optimizer.register_state_dict_post_hook(self._add)
        optimizer.register_load_state_dict_pre_hook(self._take)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Make the controllers, and load their state, now that the optimizer has its own."""
        optimizer: Any = self.trainer.optimizer
        model: Any = self.trainer.model
        if not state.global_step:
            self._loaded = None
        elif self._is_sharded():
            file = _file(args, state)
            self._loaded = load_state(file) if file.exists() else None
        steps = state.max_steps
        if self._loaded is None:  # also with a checkpoint of a dense training: the controllers have the steps left
            steps -= state.global_step
            self._give_rates()
        self._control.begin([optimizer], steps, self._loaded)
        self._loaded, self._training = None, True
        self._averaged.begin(unwrapped(model), [optimizer])

    def _give_rates(self) -> None:
        """Give the scheduler of a dense training, with the one rate of the Trainer, the number of groups here."""
        scheduler: Any = self.trainer.lr_scheduler
        count = len(unwrapped_optimizer(self.trainer.optimizer).param_groups)
        for name in {"base_lrs", "_last_lr"} & vars(scheduler).keys():
            rates = getattr(scheduler, name)
            setattr(scheduler, name, rates if len(rates) == count else rates[:1] * count)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Give the model the weights of the training."""
        self._averaged.begin_step()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Log the share of zeros and λ."""
        self._averaged.end_step()
        if control.should_log:
            self._log()
            control.should_log = True  # it is set to False by what is logged

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Give the model the averages of a schedule-free optimizer."""
        self._averaged.end_step()
        self._averaged.use()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write the state of the controllers of a sharded model."""
        if self._is_sharded():
            found = self._control.state_dict()
            if state.is_world_process_zero:
                save_state(_file(args, state), found)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Log the share of zeros at the end."""
        self._averaged.end()
        self._control.end()
        self._training = False
        self._log()

    def _log(self) -> None:
        self._averaged.use()
        self.trainer.log({"sparsity": self._control.sparsity, **self._control.lams()})

    def _is_sharded(self) -> bool:
        optimizer = unwrapped_optimizer(self.trainer.optimizer)
        return any_sharded(p for group in optimizer.param_groups for p in group["params"])

    def _add(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        if self._training and not self._is_sharded():
            state[KEY] = self._control.state_dict()

    def _take(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any] | None:
        self._loaded = state.get(KEY)
        if self._loaded is not None or self._is_sharded() or not isinstance(optimizer, Proximal):
            return None
        # that of a dense training: the Trainer's groups are the parameters with weight decay, and those without
        model: Any = self.trainer.model
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        decayed = set(self.trainer.get_decay_parameter_names(model))
        return optimizer.regrouped(state, [p for _, p in sorted(named, key=lambda each: each[0] not in decayed)])


def _file(args: TrainingArguments, state: TrainerState) -> Path:
    """Return the file of the controllers in the checkpoint of this step."""
    return Path(str(args.output_dir), f"checkpoint-{state.global_step}", FILE)
