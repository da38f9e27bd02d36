"""Objects that options name by text: penalties, blocks, optimizers, losses and devices."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from torchlasso import penalties
from torchlasso._core.functions import import_function, is_function_name
from torchlasso._core.specs import parse_spec, unknown
from torchlasso._core.text import first_line
from torchlasso.distributed.processes import own_device
from torchlasso.optim import metrics
from torchlasso.penalties import Penalty
from torchlasso.penalties.blocks import Blocks
from torchlasso.penalties.blocks import registry as blocks_registry
from torchlasso.runs.model_blocks import OF_MODELS
from torchlasso.training.augmentation import AUGMENTATIONS
from torchlasso.training.class_weights import WeightedCrossEntropy
from torchlasso.training.losses import LOSSES, Loss
from torchlasso.training.regularisation import Transform
from torchlasso.training.row_weights import CoxWeights, RowLosses, RowWeights
from torchlasso.training.rows import InputRows

BLOCKS = blocks_registry()
CLASS_WEIGHTS = (NONE, BALANCED) = ("none", "balanced")
COX = "cox"
OPTIMIZERS: Mapping[str, type[torch.optim.Optimizer]] = {cls.__name__.lower(): cls for cls in metrics.known_metrics()}


def parse_penalty(text: str, over: str | None, of_model: Callable[..., Blocks] | None = None) -> Penalty:
    """Make the penalty named by a text such as ``mcp:gamma=3``, over the blocks named by one such as ``heads:n=4``.

    ``of_model``: makes the blocks that depend on a model, given their name and their options.

    >>> parse_penalty("mcp:gamma=2.5", "filters")
    MCP(over=Filters(weighted=True, transposed=False, groups=1), gamma=2.5)
    """
    name, options = parse_spec(text)
    known = penalties.registry()
    if name not in known:
        raise unknown("penalty", name, known)
    if "over" in options:
        raise ValueError(f"penalty {text!r}: give the groups that it acts on with --over")
    blocks_given = {} if over is None else {"over": _over(over, of_model)}
    return _make("penalty", name, known[name], options, **blocks_given)  # type: ignore[no-any-return]


def _over(text: str, of_model: Callable[..., Blocks] | None) -> Blocks:
    name, options = parse_spec(text)
    if of_model is None or name not in OF_MODELS:
        return parse_blocks(text)
    _check_options("blocks", name, options, OF_MODELS[name])
    return of_model(name, **options)


def parse_blocks(text: str) -> Blocks:
    """Make the blocks named by a text such as ``filters`` or ``chunks:n=8``."""
    name, options = parse_spec(text)
    if name not in BLOCKS:
        raise unknown("kind of blocks", name, (*OF_MODELS, *BLOCKS))
    return _make("blocks", name, BLOCKS[name], options)  # type: ignore[no-any-return]


def parse_optimizer(text: str) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """Return the torch optimizer named by a text such as ``adamw`` or ``sgd:momentum=0.9``, and its options."""
    name, options = parse_spec(text)
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    parameters = inspect.signature(OPTIMIZERS[name].__init__).parameters
    _check_options("optimizer", name, options, [key for key in parameters if key not in ("self", "params", "lr")])
    return OPTIMIZERS[name], options


def parse_loss(text: str | None, outputs_are_classes: bool, is_survival: bool = False) -> Loss:
    """Return the loss of this name or a function ``package.module:function``; without a name, choose by the targets."""
    if is_survival or text == COX:
        if not is_survival:
            raise ValueError("the loss 'cox' needs times and events: give --time and --event")
        return LOSSES[COX]
    if text is None:
        return LOSSES["cross-entropy" if outputs_are_classes else "mse"]
    if is_function_name(text):
        return import_function(text)
    if text not in LOSSES:
        raise unknown("loss", text, LOSSES)
    if (text == "cross-entropy") != outputs_are_classes:
        kind = "classes" if outputs_are_classes else "numbers"
        raise ValueError(f"the loss {text!r} does not suit targets that are {kind}")
    return LOSSES[text]


def minimised_loss(
    text: str | None, smoothing: float, class_weight: str, y: Tensor, classes: int
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return the loss named by a text with label smoothing and class weights; None without both.

    Args:
        text: see :func:`parse_loss`.
        smoothing: the share of each label that is spread evenly over all classes.
        class_weight: one of ``CLASS_WEIGHTS``.
        y: the training targets.
        classes: the number of classes; 0 for regression.
    """
    flag = "--class-weight balanced" if class_weight == BALANCED else "--label-smoothing"
    if not smoothing and class_weight != BALANCED:
        return None
    if parse_loss(text, bool(classes)) is not LOSSES["cross-entropy"]:
        what = "the targets here are numbers" if text is None else f"the loss here is {text}"
        raise ValueError(f"{flag} needs classes and their loss, cross-entropy; {what}")
    if class_weight == BALANCED:
        return WeightedCrossEntropy(WeightedCrossEntropy.balanced(y, classes), smoothing)
    return partial(torch.nn.functional.cross_entropy, label_smoothing=smoothing)


def weighted_loss(weights: Tensor, loss: Loss) -> RowWeights | CoxWeights:
    """Return a loss in which each training row has a weight.

    Raises:
        ValueError: it is a loss whose rows are not known one by one.
    """
    return CoxWeights(weights) if loss is LOSSES[COX] else RowWeights(weights, row_losses(loss))


def row_losses(loss: Loss) -> RowLosses:
    """Return the function that gives the loss of each row, whose mean is a loss of the names above.

    Raises:
        ValueError: it is another loss.
    """
    if isinstance(loss, WeightedCrossEntropy):
        return loss.losses
    function = loss.func if isinstance(loss, partial) else loss
    if function not in (LOSSES["cross-entropy"], LOSSES["mse"]):
        raise ValueError("--weight needs the loss cross-entropy, mse or cox, whose value for each row is known")

    def losses(outputs: Tensor, y: Tensor) -> Tensor:
        found: Tensor = loss(outputs, y, reduction="none")  # type: ignore[call-arg]
        return found if found.dim() == 1 else found.flatten(1).mean(1)

    return losses


def parse_augmentation(text: str, x: InputRows) -> Transform:
    """Make the augmentation named by a text such as ``crop:padding=2``, for batches of the training inputs ``x``.

    A function ``package.module:function`` is an augmentation as it is.
    """
    if is_function_name(text):
        return import_function(text)
    name, options = parse_spec(text)
    check_augmentation(name)
    _check_options("augmentation", name, options, list(inspect.signature(AUGMENTATIONS[name]).parameters)[1:])
    return AUGMENTATIONS[name](x, **options)


def check_augmentation(text: str) -> None:
    """Raise ``ValueError`` unless a text names an augmentation."""
    name = text.partition(":")[0].strip()
    if name not in AUGMENTATIONS and not is_function_name(text):
        raise unknown("augmentation", name, AUGMENTATIONS)


def parse_device(text: str) -> torch.device:
    """Return the device of this name; ``auto`` is an accelerator if there is one, else the CPU."""
    if text == "auto":
        return own_device(torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu"))
    try:
        chosen = own_device(torch.device(text))
        torch.zeros(1, device=chosen).item()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the device {text!r} cannot be used here: {first_line(error)}") from error
    return chosen


def _make(kind: str, name: str, cls: Callable[..., Any], options: Mapping[str, Any], **fixed: Any) -> Any:
    known = [field.name for field in dataclasses.fields(cls) if field.name != "over"]  # type: ignore[arg-type]
    _check_options(kind, name, options, known)
    for key, value in options.items():
        if not isinstance(value, bool | int | float):
            raise ValueError(f"{kind} {name!r}: {key} must be a number; got {value!r}")
    return cls(**options, **fixed)


def _check_options(kind: str, name: str, options: Iterable[str], known: Collection[str]) -> None:
    for key in options:
        if not known:
            raise ValueError(f"{kind} {name!r} has no options; got {key!r}")
        if key not in known:
            raise ValueError(f"{kind} {name!r}: {unknown('option', key, known)}")
