"""The parameters of a model, and those among them that are weights: the ones that a penalty applies to by default."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from torchlasso._core.parametrized import computed_from

NORMALISATIONS = (
    nn.modules.batchnorm._NormBase,  # batch and instance norms, synchronised and lazy ones included
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


def is_weight(name: str, module: nn.Module, parameter: Tensor) -> bool:
    """Return whether a parameter is a weight: at least two dimensions, not a bias, not in a normalisation layer.

    For parameters from which a weight is computed, use :func:`weights_of`, which sees the model.

    >>> is_weight("0.weight", nn.Linear(2, 3), nn.Linear(2, 3).weight)
    True
    """
    return parameter.dim() >= 2 and not isinstance(module, NORMALISATIONS) and "bias" not in name.rpartition(".")[2]


def named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """Yield every parameter once, shared ones where they come first, with its full name and the module that owns it."""
    seen: set[nn.Parameter] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in seen:
                seen.add(parameter)
                yield f"{prefix}.{name}" if prefix else name, module, parameter


def weights_of(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """Yield the weights of a model as :func:`named_parameters` does.

    A parameter from which a weight is computed counts as a weight if it makes the weight zero by being zero.

    >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    >>> [name for name, _, _ in weights_of(layer)]  # the magnitude, not the direction
    ['parametrizations.weight.original0']
    """
    computed = computed_from(model)
    for name, module, p in named_parameters(model):
        if is_weight(name, module, p) and (p not in computed or p in computed[p].penalisable):
            yield name, module, p
