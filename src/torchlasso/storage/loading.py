"""Load a model."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from torchlasso._core.wrappers import plain_name, unwrapped
from torchlasso.compaction.low_rank import LayerError, with_layers_as_two
from torchlasso.storage.container import Outline, Stored
from torchlasso.storage.records import as_bytes
from torchlasso.storage.state import members_of, tensors_of, tied

SHOWN = 3  # names, or differences, in an error
PARALLEL = "module."  # the prefix of all names in the state of a DistributedDataParallel


def load(path: str | Path, *, into: nn.Module) -> None:
    """Load the parameters and buffers of ``into`` from a file of :func:`save`, or from any safetensors file.

    Names, shapes and dtypes have to match ``into.state_dict()``; for a tensor with several names there, one is enough.
    The whole file is checked before the first tensor changes, and sizes are checked before anything is allocated: at
    most another copy of the sparse tensors of ``into``, and less for plain parameters, into which the nonzeros are
    written. Nothing is unpickled.

    If the saved model was made smaller by :func:`torchlasso.compact` or :func:`torchlasso.shrink_`, ``into`` may be a
    fresh model of the full size. The same units are removed from it first: its parameters stay the same objects, and
    numbers in its modules, such as ``out_features`` or numbers in a config, become those of the smaller model. Tensors
    on the meta device get their values on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: ``into`` is not a module, or its ``state_dict()`` has an entry that is not a plain tensor.
        ValueError: the file is damaged or does not fit, and the message names it and says why; or ``into`` is sharded,
            has tensors without values that the file lacks, or has to become smaller while a wrapper such as
            ``DistributedDataParallel`` holds its parameters.

    Examples:
        >>> import tempfile
        >>> from torchlasso.storage import load, save
        >>> file = Path(tempfile.mkdtemp()) / "layer.safetensors"
        >>> save(nn.Linear(3, 2), file)
        >>> load(file, into=nn.Linear(3, 2))
        >>> load(file, into=nn.Linear(4, 2))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: ... 'weight' is float32 of shape (2, 3), and float32 of shape (2, 4) in the model
    """
    tensors_of(into, "into", without_values=True)
    stored = Stored.open(path)
    try:
        with with_layers_as_two(unwrapped(into), _layers_as_two(stored)):
            _load(path, stored, into)
    except LayerError as error:
        raise ValueError(f"{path} does not fit the model: {error}") from error


def _load(path: str | Path, stored: Stored, into: nn.Module) -> None:
    ours = tensors_of(into, "into", without_values=True)
    model, groups = unwrapped(into), tied(ours)
    members, found = members_of(model), _found(_plain(stored.names, ours), groups)
    cut = stored.cut
    changes = cut.changes(model, {name: stored.outlines[found[name]].shape for name in cut.tensors if name in found})
    aside = {name: w for name, w in members.items() if name in cut.tensors and name in found and name not in ours}
    misfits = [*_misfits(found, stored, {**ours, **aside}, changes.tensors), *changes.misfits]
    if misfits:
        raise ValueError(f"{path} does not fit the model: {_some(misfits, '; ')}")
    for name in [name for name, w in members.items() if w.is_meta]:
        if name not in found:
            raise ValueError(f"{name!r} of into has no values yet, and {path} has none for it")
        changes.tensors[name] = members[name]
    elsewhere = {*changes.tensors, *aside, *(name for group in groups for name in group)}
    places = {
        name: members[name]
        for name, w in ours.items()
        if found[name] in stored.sparse and name not in elsewhere and _is_memory_of(members.get(name), w)
    }
    nonzeros = {name: stored.nonzeros(found[name]) for name in places}
    whole = dict.fromkeys(found[name] for name in (*ours, *aside) if name not in places)
    tensors = {name: stored.tensor(name) for name in whole}
    values = {name: places[name] if name in places else tensors[found[name]] for name in (*ours, *aside)}
    for first, *others in groups:
        for other in others:
            if not np.array_equal(as_bytes(values[first]), as_bytes(values[other])):
                raise ValueError(f"{path} does not fit the model, where {first!r} and {other!r} are one tensor")
    with changes.applied(model, values), torch.no_grad():
        for name, w in places.items():  # into the model's own memory, so that nothing is left to copy
            nonzeros[name].write_to(w)
        model.load_state_dict({name: values[plain_name(name)] for name in model.state_dict()})
        for name, w in aside.items():
            w.copy_(values[name])


def _is_memory_of(w: Tensor | None, state: Tensor) -> bool:
    """True if an entry of the state is a plain parameter or buffer of numbers, on the CPU and without gaps."""
    if w is None or type(w) not in (Tensor, nn.Parameter) or w.device.type != "cpu" or w.dtype == torch.bool:
        return False
    return w.is_contiguous() and w.data_ptr() == state.data_ptr() and not (w.is_conj() or w.is_neg())


def _layers_as_two(stored: Stored) -> dict[str, tuple[int, int, int]]:
    """Return the rank, the inputs and the outputs of the layers that became two."""
    shapes = {name: [stored.outlines[f"{name}.{i}.weight"].shape for i in (0, 1)] for name in stored.low_rank}
    return {name: (first[0], first[1], second[0]) for name, (first, second) in shapes.items()}


def read(path: str | Path, *, limit: int = 2**32) -> dict[str, Tensor]:
    """Read the tensors of a file of :func:`save`, or of any safetensors file, by name and on the CPU.

    A tensor with several names is one object. A few bytes can encode any number of zeros, hence the limit.

    Args:
        path: the path of the file.
        limit: the most bytes for the tensors that are stored sparse; dense tensors take their size in the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or its sparse tensors take more than ``limit``; the message names it.

    Examples:
        >>> import tempfile
        >>> from torchlasso.storage import read, save
        >>> file = Path(tempfile.mkdtemp()) / "layer.safetensors"
        >>> save(nn.Linear(3, 2), file)
        >>> {name: tuple(w.shape) for name, w in read(file).items()}
        {'bias': (2,), 'weight': (2, 3)}
    """
    stored = Stored.open(path)
    needed = sum(stored.outlines[name].nbytes for name in stored.sparse)
    if needed > limit:
        raise ValueError(f"{path} has {needed:,} bytes of sparse tensors, more than the limit of {limit:,}")
    # dense tensors are cloned: their memory is mapped from the file, and would change with it
    tensors = {
        name: stored.tensor(name) if name in stored.sparse else stored.tensor(name).clone() for name in stored.outlines
    }
    return {name: tensors[entry] for name, entry in stored.names.items()}


def _plain(names: Mapping[str, str], ours: Mapping[str, Tensor]) -> dict[str, str]:
    """Remove the prefix of a wrapper from the names of the saved model."""
    names = {plain_name(name): entry for name, entry in names.items()}
    if all(name.startswith(PARALLEL) for name in names) and not any(name.startswith(PARALLEL) for name in ours):
        names = {name.removeprefix(PARALLEL): entry for name, entry in names.items()}
    return names


def _found(names: Mapping[str, str], groups: list[list[str]]) -> dict[str, str]:
    """Find the stored name of each tensor; a tied tensor may be stored under another of its names."""
    found = dict(names)
    for group in groups:
        for entry in [names[name] for name in group if name in names][:1]:
            found = {**dict.fromkeys(group, entry), **found}
    return found


def _misfits(
    found: Mapping[str, str], stored: Stored, ours: Mapping[str, Tensor], resized: Container[str]
) -> Iterator[str]:
    lacking = [f"{name!r}" for name in ours if name not in found]
    if lacking:
        yield f"it lacks {_some(lacking, ', ')}"
    more = [f"{name!r:.80}" for name in found if name not in ours]
    if more:
        yield f"the model lacks {_some(more, ', ')}"
    for name, w in ours.items():
        here, there = Outline(w.dtype, tuple(w.shape)), stored.outlines.get(found.get(name, ""))
        if there is not None and there != (Outline(w.dtype, there.shape) if name in resized else here):
            cut = f", originally {stored.cut.tensors[name]!s:.80}" if name in stored.cut.tensors else ""
            yield f"{name!r} is {there!s:.80}{cut}, and {here} in the model"


def _some(items: list[str], separator: str) -> str:
    rest = len(items) - SHOWN
    return separator.join(items[:SHOWN]) + (f"{separator}and {rest} more" if rest > 0 else "")
