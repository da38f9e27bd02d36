"""Weights that are computed from other parameters: by torch's parametrizations, its older hooks, or a pruning mask.

A penalty drives a parameter to zero, but whether the weight is zero then depends on the computation. If the magnitude
of a weight normalisation is zero, the weight is zero; if its direction is zero, the weight is 0/0; and if a low-rank
correction is zero, the weight is the uncorrected one. So this module runs the computation to find out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


class _Hooked(nn.Module):
    """A wrapper for a module that computes a weight in a hook; its forward pass is only that computation."""

    def __init__(self, module: nn.Module, hook: WeightNorm | SpectralNorm | BasePruningMethod, name: str) -> None:
        super().__init__()
        self.module, self.hook, self.name = module, hook, name

    def forward(self) -> Tensor:
        kept = getattr(self.module, self.name)
        try:
            self.hook(self.module, ())
            return getattr(self.module, self.name)  # type: ignore[no-any-return]
        finally:
            setattr(self.module, self.name, kept)


@dataclass(frozen=True, eq=False)
class ComputedWeight:
    """A weight that is computed from parameters.

    Attributes:
        name: the name of the weight, such as ``"0.weight"``.
        computation: a module whose forward pass, without arguments, returns the weight.
        parameters: the parameters of the computation, by their names there.
    """

    name: str
    computation: nn.Module
    parameters: Mapping[str, nn.Parameter]

    def keeps_zeros_of(self, params: Collection[Tensor]) -> bool:
        """Return whether the weight is zero if these parameters are zero, whatever the others are."""
        found = self._where_zero(params)
        return found is not None and not bool(found.any())

    def breaks_at_zeros_of(self, params: Collection[Tensor]) -> bool:
        """Return whether the weight or its gradient is not finite if these parameters are zero."""
        return self._where_zero(params) is None

    def _where_zero(self, params: Collection[Tensor]) -> Tensor | None:
        """Return the weight for zeros in these parameters and random values in the others; None if it is not finite."""
        zeroed = {id(p) for p in params}
        generator = torch.Generator().manual_seed(0)
        values = {
            name: (torch.zeros_like(p) if id(p) in zeroed else torch.randn(p.shape, generator=generator).to(p))
            for name, p in self.parameters.items()
        }
        values = {name: value.detach().requires_grad_() for name, value in values.items()}
        buffers = {name: buffer.clone() for name, buffer in self.computation.named_buffers()}
        with torch.enable_grad(), torch.random.fork_rng(self._devices):
            try:
                w = functional_call(self.computation, {**values, **buffers}, ())
                grads = torch.autograd.grad(w.sum(), list(values.values()), allow_unused=True)
                finite = all(bool(t.isfinite().all()) for t in (w, *grads) if t is not None)
            except Exception:  # any exception: the user's code may refuse such values
                return None
        return w.detach() if finite else None

    @cached_property
    def _devices(self) -> list[torch.device]:
        return list({p.device for p in self.parameters.values() if p.device.type == "cuda"})

    @cached_property
    def penalisable(self) -> frozenset[nn.Parameter]:
        """The parameters that each make the weight zero by being zero."""
        return frozenset(p for p in self.parameters.values() if self.keeps_zeros_of([p]))

    @cached_property
    def together(self) -> frozenset[nn.Parameter]:
        """The parameters that together make the weight zero by being zero; empty if there are none."""
        sound = frozenset(p for p in self.parameters.values() if not self.breaks_at_zeros_of([p]))
        return sound if sound and self.keeps_zeros_of(sound) else frozenset()


def computed_weights(model: nn.Module) -> Iterator[ComputedWeight]:
    """Find the weights of a model that are computed from parameters.

    >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    >>> [(weight.name, list(weight.parameters)) for weight in computed_weights(layer)]
    [('weight', ['original0', 'original1'])]
    """
    for prefix, module in model.named_modules():
        dot = f"{prefix}." if prefix else ""
        if is_parametrized(module):
            for name, computation in module.parametrizations.items():
                yield ComputedWeight(f"{dot}{name}", computation, dict(computation.named_parameters()))
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm | SpectralNorm | BasePruningMethod):
                name = hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name
                own = {f"module.{key}": p for key, p in module.named_parameters() if key.startswith(f"{name}_")}
                yield ComputedWeight(f"{dot}{name}", _Hooked(module, hook, name), own)


def computed_from(model: nn.Module) -> dict[Tensor, ComputedWeight]:
    """Map each parameter of a computed weight to that weight."""
    return {p: weight for weight in computed_weights(model) for p in weight.parameters.values()}
