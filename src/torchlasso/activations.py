"""Penalties on activations: few units are active for each example."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from torchlasso._core.arguments import check_kind, check_whole, shown
from torchlasso.penalties import check_strength

# λ begins at this share of the root mean square of the loss's gradient with respect to an activation.
SHARE = 0.1


@dataclass(frozen=True)
class Activity:
    """The activity of penalised units.

    Attributes:
        lam: λ; None before it was chosen.
        l0: the mean number of active units per example, in the last penalised batch.
        units: how many there are.
        dead: how many of them no example of the last ``window`` made active.
    """

    lam: float | None
    l0: float
    units: int
    dead: int

    def __str__(self) -> str:
        lam = "not chosen yet" if self.lam is None else f"{self.lam:.3g}"
        share = 100 * self.dead / max(1, self.units)
        return f"{self.l0:.4g} of {self.units} units active per example, {self.dead} dead ({share:.2g} %), λ {lam}"


class ActivationL1:
    """The loss term λ·Σ|a| of activations a, per example: with it few units are active for each, as in an autoencoder.

    For the outputs a of modules, (examples, …, units) or with the units in dimension ``dim``, and the columns v_i of
    the layers that read them, it is

        λ · (1/examples) · Σ |a_i|·‖v_i‖₂          ‖v_i‖ = 1 without readers

    Without readers, a network that is trained with it shrinks its activations and lets the next layer grow by as much,
    so that λ does nothing; give them wherever a linear layer reads the activations.

    A unit that no example makes active has no gradient, and stays dead. With ``revive``, |a_i| of a dead unit is
    replaced by |z_i|, z the input of the module (of the ReLU): z_i goes up to zero, until some examples make it active.

    Outputs are recorded by a forward hook while gradients are enabled and the module is in training mode. A copy of the
    model has no recorder. Call :meth:`close`, or use it in a ``with`` statement, to remove the hooks.

    Args:
        modules: a module or several, whose outputs are penalised; such as the ``nn.ReLU`` of an autoencoder.
        readers: for each of them the ``nn.Linear`` that reads its output; None for none.
        lam: λ; None to choose it at the first backward pass, as a tenth of the root mean square of the gradient of
            the loss, which makes it independent of the scales of activations and loss.
        dim: the dimension of the units: −1 for linear layers, 1 for convolutions, whose units are channels. All other
            dimensions count as examples.
        window: a unit is dead that was not active in so many examples.
        revive: whether dead units are drawn back, where the modules are activation functions that keep their inputs,
            such as ``nn.ReLU()``.

    Raises:
        TypeError: a module or a reader is not one.
        ValueError: λ is negative, there is not one reader for each module, or a module works in place, with ``revive``.

    Examples:
        >>> import torchlasso as tl
        >>> _ = torch.manual_seed(0)
        >>> coder = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> x = torch.randn(16, 3)
        >>> with tl.ActivationL1(coder[1], coder[2], lam=0.5) as term:
        ...     loss = nn.functional.mse_loss(coder(x), x) + term()
        ...     loss.backward()
        >>> a = coder[1](coder[0](x))
        >>> bool(torch.isclose(term.value, 0.5 * (a * coder[2].weight.norm(dim=0)).sum(dim=1).mean()))
        True
        >>> print(term.activity())
        3.25 of 8 units active per example, 0 dead (0 %), λ 0.5

    Sources: Bricken et al. 2023 (sparse autoencoders); Conerly et al. 2024 (norms of the readers).
    """

    def __init__(
        self,
        modules: nn.Module | Iterable[nn.Module],
        readers: nn.Linear | Iterable[nn.Linear | None] | None = None,
        *,
        lam: float | None = None,
        dim: int = -1,
        window: int = 10_000,
        revive: bool = True,
    ) -> None:
        self.modules = [modules] if isinstance(modules, nn.Module) else list(modules)
        for module in self.modules:
            check_kind("ActivationL1: modules", module, nn.Module, "a module, or several")
        given = [readers] * len(self.modules) if readers is None or isinstance(readers, nn.Module) else list(readers)
        for reader in given:
            check_kind("ActivationL1: readers", reader, nn.Linear | None, "the nn.Linear that reads a module's output")
        if not self.modules or len(given) != len(self.modules):
            raise ValueError(
                f"ActivationL1: give at least one module, and a reader for each; got {len(self.modules)} modules and "
                f"{len(given)} readers"
            )
        check_kind("ActivationL1: revive", revive, bool, "True or False")
        if revive and any(getattr(module, "inplace", False) for module in self.modules):
            raise ValueError(
                "ActivationL1: a module with inplace=True overwrites its input, which revive=True needs: make it with "
                "inplace=False, or give revive=False"
            )
        if lam is not None:
            check_strength(lam, "ActivationL1: lam")
        if type(dim) is not int:
            raise TypeError(f"ActivationL1: dim must be a whole number; got {shown(dim)}")
        check_whole("ActivationL1: window", window)
        self.readers: Sequence[nn.Linear | None] = given
        self.lam, self.dim, self.window, self.revive = lam, dim, window, revive
        self.l0 = math.nan
        self.value: Tensor | None = None
        self._silent: list[Tensor | None] = [None] * len(self.modules)  # examples since each unit was active
        self._recorded: list[tuple[int, Tensor, Tensor | None]] = []
        self._hooks = [m.register_forward_hook(_Recorder(self, i)) for i, m in enumerate(self.modules)]

    def __call__(self) -> Tensor:
        """Return the term for the forward passes since the last call, and count their active units.

        Raises:
            ValueError: there was none.
        """
        if not self._recorded:
            raise ValueError(
                "ActivationL1: no output was recorded: run the model in training mode, with gradients, before the call"
            )
        recorded, self._recorded = self._recorded, []
        active, terms = 0.0, []
        for i, output, before in recorded:
            rows = self._rows(output)
            self._check_width(i, rows.shape[1])
            active += self._count(i, rows.detach())
            if self.lam is None:
                output.register_hook(self._choose(i, len(rows)))  # type: ignore[no-untyped-call]
            if before is not None:
                rows = torch.where(self.dead()[i], self._rows(before), rows)
            terms.append((rows.abs() * self._norms(i, rows)).sum() / len(rows))
        self.l0 = active / (len(recorded) / len({i for i, *_ in recorded}))
        self.value = (0.0 if self.lam is None else self.lam) * torch.stack(terms).sum()
        return self.value

    def activity(self) -> Activity:
        """Return how many units are active, and how many are dead."""
        known = [silent for silent in self._silent if silent is not None]
        dead = sum(int((silent >= self.window).sum()) for silent in known)
        return Activity(self.lam, self.l0, sum(len(silent) for silent in known), dead)

    def dead(self) -> list[Tensor]:
        """Return a mask of the dead units of each module; an empty one before its first forward pass."""
        return [torch.zeros(0, dtype=torch.bool) if s is None else s >= self.window for s in self._silent]

    def close(self) -> None:
        """Remove the hooks from the modules."""
        for hook in self._hooks:
            hook.remove()

    def __enter__(self) -> ActivationL1:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Return λ and the counts of examples."""
        silent = [None if s is None else s.clone() for s in self._silent]
        return {"lam": self.lam, "l0": self.l0, "silent": silent}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.lam, self.l0 = state["lam"], float(state["l0"])
        self._silent = [None if s is None else s.clone() for s in state["silent"]]

    def _record(self, i: int, inputs: Sequence[Any], output: Tensor) -> None:
        if self.modules[i].training and output.requires_grad:
            before = inputs[0] if self.revive and inputs and isinstance(inputs[0], Tensor) else None
            alike = before is not None and before.shape == output.shape
            self._recorded.append((i, output, before if alike else None))

    def _rows(self, output: Tensor) -> Tensor:
        """Return an output with all examples in one dimension, (examples, units)."""
        if not -output.dim() <= self.dim < output.dim():
            raise ValueError(f"ActivationL1: an output of shape {tuple(output.shape)} has no dimension {self.dim}")
        rows = output.movedim(self.dim, -1)
        return rows.reshape(-1, rows.shape[-1])

    def _check_width(self, i: int, width: int) -> None:
        """Raise ``ValueError`` if an output has another width than its reader, or than the outputs before."""
        reader, silent = self.readers[i], self._silent[i]
        if reader is not None and reader.in_features != width:
            raise ValueError(
                f"ActivationL1: a module gives {width} units, and its reader reads {reader.in_features}: give the "
                "nn.Linear that reads its output"
            )
        if silent is not None and len(silent) != width:
            raise ValueError(
                f"ActivationL1: a module gave {len(silent)} units, and now {width}: give each place in the model a "
                "module of its own"
            )

    def _norms(self, i: int, rows: Tensor) -> Tensor:
        """Return the norm of the column that reads each unit."""
        reader = self.readers[i]
        return torch.ones_like(rows[0]) if reader is None else torch.linalg.vector_norm(reader.weight, dim=0)

    @torch.no_grad()
    def _count(self, i: int, rows: Tensor) -> float:
        """Return the mean number of active units of a batch, and count for how long each has been silent."""
        active = rows != 0
        before = self._silent[i]
        before = torch.zeros(rows.shape[1], dtype=torch.long, device=rows.device) if before is None else before
        self._silent[i] = torch.where(active.any(dim=0), 0, before.to(rows.device) + len(rows))
        return active.sum().item() / len(rows)

    def _choose(self, i: int, examples: int) -> Any:
        """Return the hook of a gradient that chooses λ."""

        def choose(grad: Tensor) -> None:
            if self.lam is None:
                size = grad.detach().double().square().mean().sqrt().item() * examples
                norm = self._norms(i, self._rows(grad)).detach().mean().item()
                self.lam = SHARE * size / norm if norm else SHARE * size

        return choose


class _Recorder:
    """The forward hook of a module. A copy, by copying or pickling the model, records nothing."""

    def __init__(self, term: ActivationL1 | None = None, i: int = 0) -> None:
        self.term, self.i = term, i

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self.term is not None:
            check_kind("ActivationL1: the output of a module", output, Tensor, "a tensor")
            self.term._record(self.i, inputs, output)

    def __reduce__(self) -> Any:
        return _Recorder, ()
