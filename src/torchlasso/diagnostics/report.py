"""Count the zeros of a model, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from torchlasso._core.arguments import check_inputs, check_model
from torchlasso._core.flops import flops_of_modules
from torchlasso._core.running import ExampleInputs
from torchlasso.diagnostics.record import LayerReport, SparsityReport
from torchlasso.distributed.sharding import plain_class, reshard, whole
from torchlasso.penalties.blocks import Blocks, Filters, InputChannels
from torchlasso.selection import Group, check_groups
from torchlasso.weights import named_parameters, weights_of


@torch.no_grad()
def report(
    model: nn.Module, groups: Iterable[Group] | None = None, example_inputs: ExampleInputs | None = None
) -> SparsityReport:
    """Count the zeros of ``model``, layer by layer.

    Args:
        model: any module.
        groups: the groups of the training (from ``param_groups``, or ``optimizer.penalised_groups()``), which determine
            the penalised weights; without them, every weight counts as penalised.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments; the model runs on them to count
            the FLOPs of its layers.

    Raises:
        ValueError: the model cannot be run on ``example_inputs``.

    A model that is sharded over several processes is counted as a whole, one weight after the other; every process has
    to call this function.

    Examples:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> _ = nn.init.zeros_(model[0].weight[2]), nn.init.zeros_(model[0].weight[:, 3])  # a unit and an input
        >>> _ = nn.init.zeros_(model[2].weight[1, :2])
        >>> print(report(model))
        layer     shape  weights   zeros  live units  live inputs  size
        0.weight  3×4         12  50.0 %         2/3          3/4  48 B
        2.weight  2×3          6  33.3 %         2/2          3/3  24 B
        ───────────────────────────────────────────────────────────────
        total                 18  44.4 %                           92 B
    """
    check_model("report: model", model)
    groups = None if groups is None else check_groups("report: groups", groups)
    if example_inputs is not None:
        check_inputs("report: example_inputs", example_inputs)
    reshard(model)  # so that its parameters are the same objects as in the groups
    parameters = list(named_parameters(model))
    weights = {p for _, _, p in weights_of(model)}
    chosen = (
        weights if groups is None else {p for group in groups if group["penalty"] is not None for p in group["params"]}
    )
    flops = {} if example_inputs is None else flops_of_modules(model, example_inputs)
    layers = [
        _layer(name, module, whole(p), p in chosen, flops.get(module))
        for name, module, p in parameters
        if (p in chosen or p in weights) and p.numel()
    ]
    everything = [p for _, _, p in parameters]
    return SparsityReport(
        tuple(layers), sum(p.numel() for p in everything), sum(p.numel() * p.element_size() for p in everything)
    )


def _layer(name: str, module: nn.Module, w: Tensor, penalised: bool, flops: float | None) -> LayerReport:
    shape, w, short = tuple(w.shape), w if w.dim() else w.reshape(1), name.rpartition(".")[2]
    units, live_units, made = _live(Filters().fit(module, short), w)
    inputs, live_inputs, read = 1, int(bool(w.any())), w.any().expand_as(w)
    if w.dim() > 1:
        inputs, live_inputs, read = _live(InputChannels().fit(module, short), w)
    if flops is not None:  # they are of the module's weights, each by its size, and not of its biases
        matrices = sum(p.numel() for p in module.parameters(recurse=False) if p.dim() > 1)
        flops = flops * w.numel() / matrices if w.dim() > 1 else 0.0
    return LayerReport(
        name=name,
        kind=plain_class(module).__name__,
        shape=shape,
        weights=w.numel(),
        zeros=int((w == 0).sum()),
        units=units,
        live_units=live_units,
        inputs=inputs,
        live_inputs=live_inputs,
        bytes=w.numel() * w.element_size(),
        penalised=penalised,
        live_weights=int((made & read).sum()),
        flops=flops,
    )


def _live(over: Blocks, w: Tensor) -> tuple[int, int, Tensor]:
    """Count the units or inputs and the live ones among them, and mark the weights of the live ones."""
    rows, rebuild = over.rows(w)
    live = (rows != 0).any(dim=1, keepdim=True)
    return len(rows), int(live.sum()), rebuild(live.to(rows.dtype).expand_as(rows)) != 0
