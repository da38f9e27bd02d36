"""The interface of a metric: how far an optimizer's own update moves a coordinate under a constant unit gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor
from torch.optim import Optimizer

from torchlasso._core.registry import Registry
from torchlasso.optim.unseen import Number, State
from torchlasso.selection import Group


class Metric(ABC):
    """The metric of a torch optimizer, which the proximal step needs. It has no state.

    In its methods ``group`` is a parameter group with the options of the present step (``lam`` is λ of the group),
    ``state`` the parameter's state after the optimizer's update, and ``gain`` the gain after it.

    Examples:
        A metric for sign descent, whose updates have the length of the rate whatever the gradient:

        >>> import torch
        >>> import torchlasso as tl
        >>> class SignSGD(torch.optim.Optimizer):
        ...     def __init__(self, params, lr=0.01):
        ...         super().__init__(params, {"lr": lr, "foreach": None, "fused": None})
        ...     @torch.no_grad()
        ...     def step(self):
        ...         for group in self.param_groups:
        ...             for p in group["params"]:
        ...                 p.sub_(group["lr"] * p.grad.sign())
        >>> class SignMetric(tl.optim.Metric):
        ...     diagonal = False
        ...     def step_size(self, group, state, gain):
        ...         return group["lr"]
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 0.1]))
        >>> optimizer = tl.proximal(SignSGD, metric=SignMetric())([w], penalty=tl.L1(), lam=0.5)
        >>> w.grad = torch.tensor([-2.0, 0.0])
        >>> optimizer.step()
        >>> w.data  # one rate up, half a rate down; half a rate down
        tensor([1.0050, 0.0950])
    """

    diagonal: ClassVar[bool] = True  # whether τ differs from coordinate to coordinate
    aged: ClassVar[bool] = True  # whether a step depends on how many there have been
    form: ClassVar[str] = "proximal"  # the form of a step where none is asked for
    sees: ClassVar[bool] = False  # whether τ follows from more than the state, see seen()
    reach_steps: ClassVar[float] = 10.0  # t of the normal-map form, in units of the optimizer's first step
    averages_weights: ClassVar[bool] = False  # whether the weights of a trained model are an average over its steps
    takes_complex: ClassVar[bool] = True  # whether the optimizer steps complex parameters, and correctly

    @abstractmethod
    def step_size(self, group: Group, state: State, gain: float) -> float | Tensor:
        """Return τ: a number if it is the same for all coordinates, else a tensor like the parameter."""

    def seen(self, p: Tensor, group: Group) -> State:
        """Return what τ follows from besides the state, before the update; ``state`` of the other methods has it, too.

        Args:
            p: the parameter, with its gradient.
            group: the options of the step.
        """
        return {}

    def options(self, group: Group) -> Group:
        """Return the options of a step with the types that the optimizer's own step asks for."""
        return group

    def rate(self, group: Group) -> float:
        """Return the rate of the step that these are the options of, after the optimizer's update."""
        return float(group["lr"])

    def check_options(self, group: Group) -> None:  # noqa: B027 — most take all
        """Raise ``ValueError`` if a group has options with which τ is not known."""

    def reach(self, group: Group, state: State, gain: float) -> float:
        """Return τ·d, how far the update moves a coordinate whose constant gradient has the size of its metric d.

        It is one number for all coordinates: the rate, in most optimizers. The latent form needs it.
        """
        return float(self.step_size(group, state, gain))

    def check_form(self, form: str) -> None:
        """Raise ``ValueError`` if a form of the step is not possible.

        The latent form needs the parts of a τ that differs from coordinate to coordinate.
        """
        if form == "latent" and self.diagonal and type(self).reach is Metric.reach:
            raise ValueError(
                f"form='latent' needs the methods reach and scale of {type(self).__name__}, whose τ = reach/scale"
            )

    def scale(self, group: Group, state: State) -> Tensor | None:
        """Return d, the size by which the update divides the gradient of each coordinate; None where it is 1."""
        return None

    def averaging(self, group: Group) -> Number:
        """Return β, the coefficient of the averaging of gradients, or 0 without averaging."""
        return 0.0

    def with_averaging(self, group: Group, share: Number, age: Number, gain: Number, plain: Number) -> Group:
        """Return the options to change for one step in which 1 − β is multiplied by ``share``.

        They correct for the optimizer's assumption of a constant β, so that the update under a constant gradient keeps
        the length that it would have with the β of the group.

        Args:
            group: the options of the group.
            share: in (0, 1].
            age: the number of updates of the parameter before this one.
            gain: the gain before this step.
            plain: the gain after this step if β had always been that of the group.
        """
        return {}

    def gain(self, group: Group, before: Number) -> Number:
        """Return the gain after one more step: the recursion of the averaging buffer, fed with ones."""
        return 1.0

    def first_gain(self, group: Group, state: State) -> float:
        """Return the gain of a state in a file of the plain optimizer, whose β was constant."""
        return 1.0

    def guard(self, group: Group, state: State) -> None:  # noqa: B027 — most need none
        """Change the state before the optimizer's update, so that rounding does not make its denominator NaN."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)  # instances have no state

    def __hash__(self) -> int:
        return hash(type(self))


class DiagonalMetric(Metric):
    """A metric whose τ is a number over a tensor d, by which the update divides each coordinate's gradient."""

    def step_size(self, group: Group, state: State, gain: float) -> float | Tensor:
        return self.reach(group, state, gain) / self.scale(group, state)

    @abstractmethod
    def reach(self, group: Group, state: State, gain: float) -> float: ...

    @abstractmethod
    def scale(self, group: Group, state: State) -> Tensor: ...


class NoMetric(Metric):
    """The metric of an optimizer whose updates have no length per unit of gradient, which leaves the normal-map form.

    Such are the steps by the sign of a gradient, or by a matrix with its singular vectors; or an optimizer whose metric
    nobody has worked out. It is for optimizers whose ``step`` reads each gradient once and has a rate ``lr``.

    Examples:
        >>> import torch
        >>> import torchlasso as tl
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 0.1]))
        >>> optimizer = tl.proximal(torch.optim.Rprop, metric=tl.optim.NoMetric())([w], penalty=tl.L1(), lam=0.4)
        >>> for _ in range(200):
        ...     w.grad = w.detach() - torch.tensor([1.0, 0.2])
        ...     optimizer.step()
        >>> w.data
        tensor([0.6000, 0.0000])
    """

    diagonal: ClassVar[bool] = False
    aged: ClassVar[bool] = False
    form: ClassVar[str] = "normal-map"

    def step_size(self, group: Group, state: State, gain: float) -> float | Tensor:
        raise ValueError("the optimizer has no metric")

    def check_form(self, form: str) -> None:
        if form != "normal-map":
            raise ValueError(
                f"form={form!r} needs to know how far the update moves a coordinate under a unit gradient, which this "
                "optimizer does not have: leave it out, or give form='normal-map'"
            )


METRICS: Registry[type[Optimizer], Metric] = Registry("metric of")
# By module and name, so that none of the packages is imported.
OF_PACKAGES: Registry[str, Metric] = Registry("metric of")


def metric_of(*optimizers: type[Optimizer] | str) -> Callable[[type[Metric]], type[Metric]]:
    """Register the decorated class as the metric of these optimizer classes, but not of classes derived from them.

    Args:
        optimizers: classes; one of a package that need not be installed by its module and name,
            ``"lion_pytorch.lion_pytorch.Lion"``.
    """

    def entered(cls: type[Metric]) -> type[Metric]:
        for optimizer in optimizers:
            if isinstance(optimizer, str):
                OF_PACKAGES.enter(optimizer, cls())
            else:
                METRICS.enter(optimizer, cls())
        return cls

    return entered
