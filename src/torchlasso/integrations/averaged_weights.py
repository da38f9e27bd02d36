"""The two kinds of weights of a schedule-free training, in the loop of another library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from torchlasso._core.wrappers import unwrapped_optimizer
from torchlasso.optim.modes import WithModes


class AveragedWeights:
    """A switch between the weights of the training, in each step, and their averages wherever the model is used.

    The model keeps the weights of the training from one step to the next. It is given the averages when it is
    evaluated, counted or saved: by :meth:`use`, and whenever its ``state_dict`` is asked for between two steps. With
    other optimizers than schedule-free ones, nothing happens.
    """

    def __init__(self) -> None:
        self._optimizers: list[WithModes] = []
        self._handle: RemovableHandle | None = None
        self._is_within_step = False

    def begin(self, model: nn.Module, optimizers: Iterable[Any]) -> None:
        """Follow the optimizers of a model that training begins for."""
        self._release()  # as it is: after an interruption, weights may have been loaded
        every = [unwrapped_optimizer(optimizer) for optimizer in optimizers]
        self._optimizers = [optimizer for optimizer in every if isinstance(optimizer, WithModes)]
        if not self._optimizers:
            return

        # a function, which copies of the model share: the state of a copy is its own
        def before_state(module: nn.Module, prefix: str, keep_vars: bool) -> None:
            if module is model and not self._is_within_step:
                self.use()

        self._handle = model.register_state_dict_pre_hook(before_state)  # type: ignore[no-untyped-call]

    def begin_step(self) -> None:
        """Give the model the weights of the training."""
        self._is_within_step = True
        for optimizer in self._optimizers:
            optimizer.train()

    def end_step(self) -> None:
        """Allow the model to be given the averages."""
        self._is_within_step = False

    def use(self) -> None:
        """Give the model the averages."""
        for optimizer in self._optimizers:
            optimizer.eval()

    def end(self) -> None:
        """Give the model the averages, and let go of it and of the optimizers."""
        self.use()
        self._release()

    def _release(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._optimizers, self._handle, self._is_within_step = [], None, False
