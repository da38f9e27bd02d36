"""The part of a sparse training that is the same in every library that has a training loop of its own."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from torchlasso._core.arguments import shown
from torchlasso._core.wrappers import unwrapped_optimizer
from torchlasso.control import LambdaController, TargetMissed
from torchlasso.distributed.sharding import local, totals_over_shards
from torchlasso.optim import Proximal
from torchlasso.selection import Group

OWN = ("lam", "initial_lam", "lam_factors")  # the keys of a group that controllers write λ to

MakeControllers = Callable[[Proximal, int], LambdaController | Iterable[LambdaController] | None]


class LoopControl:
    """The proximal optimizers of a training, with controllers of their λ that step when they do.

    Args:
        make: (optimizer, steps of the whole training) ↦ its controllers; None for none.
        name: of the class that users see, in errors.

    Attributes:
        optimizers: the proximal ones.
        controllers: of all of them.
        weights: the number of penalised weights of the full model.
        steps: of the whole training.
    """

    def __init__(self, make: MakeControllers | None, name: str) -> None:
        if make is not None and not callable(make):
            raise TypeError(
                f"{name}: controllers must be a function of the optimizer and the number of steps, such as lambda "
                f"optimizer, steps: torchlasso.TargetSparsity(optimizer, 0.9, steps=steps); got {shown(make)}"
            )
        self.make, self.name = make, name
        self.optimizers: list[Proximal] = []
        self.controllers: list[LambdaController] = []
        self.weights, self.steps = 0, 0
        self._handles: list[RemovableHandle] = []

    def begin(self, optimizers: Iterable[Any], steps: int, resumed: Mapping[str, Any] | None = None) -> None:
        """Make the controllers, and let them step with their optimizers.

        Args:
            optimizers: of the training; those that are not proximal are left alone.
            steps: of the whole training.
            resumed: the state of these controllers, to go on from, where the optimizers have loaded theirs already.

        Raises:
            ValueError: none is proximal; or the state is that of another number of controllers or groups.
            TypeError: the function makes anything but controllers.
        """
        self.end()
        every = [unwrapped_optimizer(optimizer) for optimizer in optimizers]
        self.optimizers = [optimizer for optimizer in every if isinstance(optimizer, Proximal)]
        if not self.optimizers:
            raise ValueError(
                f"{self.name}: there is no proximal optimizer, such as torchlasso.ProxAdamW, so that no weight becomes "
                f"zero; got {', '.join(type(optimizer).__name__ for optimizer in every) or 'no optimizer'}"
            )
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        if self.controllers and resumed is None:
            self._forget()
        loaded = [dict(group) for group in groups]
        for group, kept in self._pairs(groups, resumed):
            group["lam"] = kept.get("initial_lam", kept["lam"])  # as it was before the controllers
            for key in OWN[1:]:
                group.pop(key, None)
        self.controllers = [control for each in self.optimizers for control in self._made(each, steps)]
        if resumed is not None:
            for group, before, (_, kept) in zip(groups, loaded, self._pairs(groups, resumed), strict=True):
                group.update({**before, **kept})
            self.load_state_dict(resumed)
        self.steps = steps
        if resumed is None:
            self.weights = sum(p.numel() for p in self._params())
        self._handles = [control.attach() for control in self.controllers]

    def _forget(self) -> None:
        """Give λ the values that it had before the controllers of an earlier training with the same optimizers."""
        for optimizer in self.optimizers:
            optimizer.hold(held=False)
            optimizer.weights.clear()
            for group in optimizer.param_groups:
                group["lam"] = group.pop("initial_lam", group["lam"])
                group.pop("lam_factors", None)

    def end(self) -> None:
        """Let the controllers no longer step with their optimizers."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @property
    def sparsity(self) -> float:
        """The share of zeros among the penalised weights, removed ones included; every process has to ask."""
        params = self._params()
        counts = [int(torch.count_nonzero(local(p.detach()))) for p in params]
        alive = sum(totals_over_shards([p.detach() for p in params], counts))
        return (self.weights - alive) / self.weights

    def warn_if_stopped(self) -> None:
        """Warn of each target that is missed because training ended before its last step; every process has to call."""
        for control in self.controllers:
            if control.done < getattr(control, "steps", 0) and (missed := control.missed):
                warnings.warn(TargetMissed(missed), stacklevel=2)

    def lams(self) -> dict[str, float]:
        """Return λ of the penalised groups: ``lam``, or ``lam/0`` and on where they differ."""
        found = [float(group["lam"]) for group in self._groups()]
        return {"lam": found[0]} if len(set(found)) == 1 else {f"lam/{i}": lam for i, lam in enumerate(found)}

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the controllers; every process has to call this."""
        states = [control.state_dict() for control in self.controllers]
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        own = [{key: group[key] for key in OWN if key in group} for group in groups]
        return {"controllers": states, "groups": own, "weights": self.weights, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, after the optimizers have loaded theirs.

        Raises:
            ValueError: it is the state of another number of controllers.
        """
        kept = state["controllers"]
        if len(kept) != len(self.controllers):
            raise ValueError(
                f"{self.name}: the checkpoint has the state of {len(kept)} controllers, and {len(self.controllers)} "
                "are made here; make the same ones in the same order"
            )
        for control, own in zip(self.controllers, kept, strict=True):
            control.load_state_dict(own)
        self.weights = int(state["weights"])

    def _made(self, optimizer: Proximal, steps: int) -> list[LambdaController]:
        """Make the controllers of an optimizer."""
        try:
            made = None if self.make is None else self.make(optimizer, steps)
        except (ValueError, TypeError, OverflowError) as error:
            if not math.isinf(steps):
                raise
            raise ValueError(
                f"{self.name}: the number of steps of the training is not known, and its controllers need it; set "
                "max_steps of the Trainer, or max_epochs if its loader has a length"
            ) from error
        found = [] if made is None else [made] if isinstance(made, LambdaController) else made
        controllers = list(found) if isinstance(found, Iterable) else [found]
        for control in controllers:
            if not isinstance(control, LambdaController):
                raise TypeError(
                    f"{self.name}: controllers must return controllers of λ, such as torchlasso.TargetSparsity; "
                    f"got {shown(control)}"
                )
            if control.optimizer is not optimizer:
                raise ValueError(
                    f"{self.name}: {type(control).__name__} controls another optimizer than it was made for"
                )
        return controllers

    def _pairs(self, groups: Sequence[Group], state: Mapping[str, Any] | None) -> list[tuple[Group, Group]]:
        """Return the groups of the optimizers, each with the part of it in a state; none without a state."""
        if state is None:
            return []
        kept = state["groups"]
        if len(kept) != len(groups):
            raise ValueError(
                f"{self.name}: the checkpoint has {len(kept)} parameter groups, the optimizers {len(groups)}"
            )
        return list(zip(groups, kept, strict=True))

    def _groups(self) -> list[Group]:
        return [group for optimizer in self.optimizers for group in optimizer.penalised_groups()]

    def _params(self) -> list[Tensor]:
        return [p for group in self._groups() for p in group["params"]]
