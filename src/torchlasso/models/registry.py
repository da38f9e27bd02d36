"""The registry of models, and building a model by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from torchlasso._core.arguments import check_whole
from torchlasso._core.functions import import_function, is_function_name
from torchlasso._core.memory import need_memory
from torchlasso._core.registry import Registry
from torchlasso._core.specs import unknown
from torchlasso._core.text import first_line
from torchlasso.models.parts import LARGEST

Builder = Callable[..., nn.Module]
BuilderT = TypeVar("BuilderT", bound=Builder)

_builders: Registry[str, Builder] = Registry("model")
_of_texts: set[str] = set()


def register(name: str, *, of_texts: bool = False) -> Callable[[BuilderT], BuilderT]:
    """Register a function ``(input_shape, outputs, *, option=default, ...) -> nn.Module`` under ``name``.

    ``of_texts``: whether its inputs are texts.

    Raises ``ValueError`` if the name is taken.
    """

    def entered(builder: BuilderT) -> BuilderT:
        _builders.enter(name, builder)
        _of_texts.update([name] if of_texts else [])
        return builder

    return entered


def names() -> tuple[str, ...]:
    """Return the sorted names that :func:`build` knows.

    >>> "lenet-5" in names()
    True
    """
    return tuple(sorted(_builders))


def reads_texts(name: str) -> bool:
    """Return whether the inputs of the model ``name`` are texts.

    >>> reads_texts("text-cnn"), reads_texts("lenet-5")
    (True, False)
    """
    return name in _of_texts


def build(name: str, input_shape: tuple[int, ...], outputs: int, **options: Any) -> nn.Module:
    """Build the model ``name`` for inputs of shape (batch, *input_shape) and outputs of (batch, outputs).

    Arguments:
        name: one of :func:`names`, or ``package.module:function``, which is called as
            ``function(input_shape, outputs, **options)`` and returns an ``nn.Module``.
        input_shape: (channels, height, width) of an image, (features,) of a row of a table, or (length, words) of a
            text: the most words of one, and the words of the vocabulary.
        outputs: the number of outputs for each input, such as the number of classes.
        options: further options of the model.

    Raises ``ValueError`` for a name, shape or option that cannot be used.

    The initial weights come from torch's global generator, so ``torch.manual_seed`` fixes them. The
    last layer of every model in the zoo is called ``head``.

    >>> import torch
    >>> model = build("mlp", (1, 8, 8), 10, depth=1, width=32)
    >>> model(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """
    if is_function_name(name):
        builder = import_function(name)
    elif name in _builders:
        builder = _builders[name]
    else:
        raise unknown("model", name, names())
    check_whole("outputs", outputs, most=LARGEST)
    for size in input_shape:
        check_whole(f"every size in input_shape {input_shape}", size, most=LARGEST)
    _check_options(name, builder, options)
    if builder is _builders.get(name):
        _need_memory(name, builder, tuple(input_shape), outputs, options)
    model = builder(tuple(input_shape), outputs, **options)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {name!r} must return a torch.nn.Module; it returned {type(model).__name__}")
    return model


def _need_memory(name: str, builder: Builder, shape: tuple[int, ...], outputs: int, options: dict[str, Any]) -> None:
    """Refuse a model that is too large before allocating it, since its sizes may come from a file.

    Raises:
        MemoryError: the model needs more memory than is free.
        ValueError: a size is larger than torch supports.
    """
    try:
        with torch.device("meta"):
            model = builder(shape, outputs, **options)
    except (RuntimeError, TypeError) as error:  # for sizes beyond 64 bits
        raise ValueError(f"model {name!r} for inputs of shape {shape}: {first_line(error)}") from error
    need_memory(sum(w.nbytes for w in model.state_dict().values()), f"model {name!r}")


def _check_options(name: str, builder: Builder, options: dict[str, Any]) -> None:
    signature = inspect.signature(builder)
    try:
        signature.bind_partial((), 0)
    except TypeError as error:
        raise ValueError(
            f"model {name!r} is called with the shape of the inputs and the number of outputs: it has to be "
            f"def {name.rpartition(':')[2]}(input_shape, outputs)"
        ) from error
    parameters = list(signature.parameters.values())
    known = [parameter.name for parameter in parameters[2:]]  # the first two are input_shape and outputs
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    for option in options:
        if option not in known and not open_ended:
            if not known:
                raise ValueError(f"model {name!r} takes no options; got {option!r}")
            raise ValueError(f"model {name!r}: {unknown('option', option, known)}")
    try:
        signature.bind((), 0, **options)
    except TypeError as error:  # a required option is missing, say
        raise ValueError(f"model {name!r}: {error}") from error
