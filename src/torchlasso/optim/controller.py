"""The base of controllers of λ: each of them multiplies ``lam`` of every penalised group by a factor of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from torchlasso._core.arguments import check_whole, shown
from torchlasso._core.wrappers import unwrapped_optimizer
from torchlasso.optim.base import Proximal
from torchlasso.penalties import Penalty
from torchlasso.selection import Group, balance


def proximal_of(optimizer: Any, name: str) -> Proximal:
    """Return the proximal optimizer whose λ the controller of this name is to control, without a wrapper around it.

    Raises:
        TypeError: it is not a proximal one.
    """
    optimizer = unwrapped_optimizer(optimizer)
    if not isinstance(optimizer, Proximal):
        raise TypeError(
            f"{name} controls the λ of a proximal optimizer such as torchlasso.ProxAdam; "
            f"got {shown(optimizer) if isinstance(optimizer, type) else type(optimizer).__name__}"
        )
    return optimizer


def check_steps(steps: Any, name: str) -> None:
    """Raise ``ValueError`` unless ``steps`` is a whole number of at least 1."""
    check_whole(f"{name}: steps", steps)


def check_owner(state: Any, own: str) -> None:
    """Raise ``ValueError`` unless a state is that of the controller that describes itself so.

    States of earlier versions do not say whose they are; they only have to have the number of steps.
    """
    if not isinstance(state, Mapping) or "done" not in state:
        raise ValueError(f"{own}: the state of a controller has the number of steps, 'done'; got {shown(state)}")
    found = state.get("controller", own)
    if found != own:
        raise ValueError(f"the state is that of {found}, not of {own}; make the same controllers in the same order")


def initial_lam(group: Group) -> float:
    """Return λ of a group before any controller."""
    return float(group["initial_lam"] if "initial_lam" in group else group["lam"])


class LambdaController(ABC):
    """A scheduler of ``lam``, as torch's are of ``lr``: call :meth:`step` after each ``optimizer.step()``.

    The factors of several controllers of one optimizer multiply: in every penalised group, ``lam`` is ``initial_lam``
    (its value before the first controller) times the numbers in ``lam_factors`` (one for each controller). So the
    ratios of the groups are kept. Where processes train together, make the same controllers in each and call them
    alike. With gradient accumulation, call them as often as the optimizer, not as the backward pass.

    To resume, make the same controllers in the same order, then load the optimizer's and their ``state_dict``.

    Args:
        optimizer: the proximal optimizer that has the groups, or a wrapper of Accelerate or Lightning around it.

    Raises:
        TypeError: the optimizer is not a proximal one.
    """

    def __init__(self, optimizer: Proximal) -> None:
        self.optimizer = proximal_of(optimizer, type(self).__name__)
        self.done = 0
        self._handle: RemovableHandle | None = None  # of the optimizer's hook, while this is attached
        self._slot = max((len(group.get("lam_factors", ())) for group, _ in self._groups()), default=0)

    def step(self) -> None:
        """Set λ for the next step of the optimizer.

        Raises:
            ValueError: the controller is attached, so that this step would count twice.
        """
        if self._is_attached:
            raise ValueError(
                f"{type(self).__name__} is attached and steps with its optimizer: leave out the calls of step(), or "
                "remove() the handle"
            )
        self._advance()

    def _advance(self) -> None:
        self.done += 1
        self._control()

    @property
    def _is_attached(self) -> bool:
        return self._handle is not None and self._handle.id in (self._handle.hooks_dict_ref() or {})

    def attach(self) -> RemovableHandle:
        """Step from now on at the end of each ``optimizer.step()``, and so before a scheduler's step.

        Use it where the loop is not yours. A step that a gradient scaler skips, or that a wrapper leaves out to
        accumulate gradients, does not count: where a target would not get all its steps for that reason, call
        :meth:`step` in every iteration instead. A copy that is made together with its optimizer, by ``deepcopy`` or
        ``torch.save``, is attached as well. A second call changes nothing.

        Returns:
            The handle whose ``remove()`` ends this.

        Examples:
            >>> import torch, torchlasso as tl
            >>> optimizer = tl.ProxSGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, penalty=tl.L1(), lam=0.5)
            >>> control = tl.Warmup(optimizer, steps=4)
            >>> handle = control.attach()
            >>> optimizer.step()
            >>> control.lam
            [0.125]
        """
        if self._handle is None or not self._is_attached:
            self._handle = self.optimizer.register_step_post_hook(lambda *_: self._advance())
        return self._handle

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": self._is_attached}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _handle=None)
        if state.get("_handle"):  # torch copies no hooks
            self.attach()

    @abstractmethod
    def _control(self) -> None:
        """Set λ for the step that follows ``done`` steps."""

    @property
    def lam(self) -> list[float]:
        """λ of each penalised group, as it is now."""
        return [group["lam"] for group, _ in self._groups()]

    @property
    def described(self) -> str:
        """The class and the target, if there is one: a state goes on only in a controller for which they are equal."""
        return type(self).__name__

    def state_dict(self) -> dict[str, Any]:
        """Return all that :meth:`load_state_dict` needs beside the state of the optimizer.

        Tensors are whole where parameters are sharded. Where processes train together, call this on each of them.
        """
        return {"controller": self.described, "done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. Load the optimizer's first. The number of steps of the whole training may differ.

        Raises:
            ValueError: the state is that of a controller of another class, or with another target.
        """
        check_owner(state, self.described)
        self.done = int(state["done"])

    @property
    def missed(self) -> str | None:
        """A sentence that says how far training ended from the target, and why; None if there is nothing to say."""
        return None

    @property
    def can_lose(self) -> bool:
        """Return whether present zeros may be removed from the model for good."""
        return True

    def resize(self, smaller: Callable[[Tensor, Any], Any]) -> None:  # noqa: B027 most keep nothing of the kind
        """Keep of all tensors like the parameters the part that belongs to the model, which became smaller.

        Args:
            smaller: (parameter, tensor of its former shape) ↦ the part of the tensor that stays.
        """

    def _groups(self) -> list[tuple[Group, Penalty]]:
        """Return the penalised groups, including groups that were added to the optimizer later."""
        groups, penalties = self.optimizer.param_groups, self.optimizer.penalties
        if len(groups) != len(penalties):
            raise ValueError(
                f"{type(self).__name__}: the optimizer has {len(groups)} groups and {len(penalties)} penalties; where "
                "a group is deleted from param_groups, delete its entry in optimizer.penalties, too"
            )
        return [(group, penalty) for group, penalty in zip(groups, penalties, strict=True) if penalty is not None]

    def _write(self, group: Group, factor: float) -> None:
        """Set the factor of this controller in ``group``."""
        group.setdefault("initial_lam", group["lam"])
        factors = group.setdefault("lam_factors", [])
        factors.extend([1.0] * (self._slot + 1 - len(factors)))
        factors[self._slot] = factor
        group["lam"] = group["initial_lam"] * prod(factors)
        balance(group, self.optimizer.param_groups)

    def _others(self, group: Group) -> float:
        """Return the factor of the other controllers on λ of ``group``."""
        factors: list[float] = group.get("lam_factors", [])
        return prod(factor for slot, factor in enumerate(factors) if slot != self._slot)
