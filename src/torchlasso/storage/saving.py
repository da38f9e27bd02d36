"""Writing a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from torchlasso._core.wrappers import unwrapped
from torchlasso.compaction.resizing import Resizing
from torchlasso.storage.container import KEY, METADATA, Entry, terse_json, write
from torchlasso.storage.records import NAMES, NARROW, Record, as_bytes, pack
from torchlasso.storage.state import members_of, tensors_of, tied


def save(
    model: nn.Module,
    path: str | Path,
    *,
    values: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the parameters and buffers of ``model`` to a safetensors file in which zeros cost next to nothing.

    A tensor with zeros is stored as its other values and a code of where they are: about N·(d·b + H(d)) bits for N
    weights, a share d of them not zero, of b bits each, where H(d) = −d·log₂d − (1 − d)·log₂(1 − d) is the entropy of
    zeros that are anywhere. Where that is not shorter the tensor is stored as it is, and a tensor with several names
    once. The file is written whole or not at all; the same model gives the same bytes. ``docs/format.md`` tells how
    to read it without this library. Of a model that was made smaller, by :func:`torchlasso.compact` or
    :func:`torchlasso.shrink_`, the file says what it lost, so that it can be loaded into a model of the full size.

    What is not zero, NaN and infinity too, comes back to the last bit; −0.0 is a zero, and comes back as 0.0 where its
    tensor is stored as values and places.

    Args:
        model: any module; what is stored is its ``state_dict()``. Where it is compiled by ``torch.compile`` or wrapped
            for training, the names are those of the module inside.
        path: of the file; one that exists is replaced.
        values: ``torch.bfloat16`` or ``torch.float16``: round what is not zero to this type, and load it in its own.
            A tensor in which a value would become zero or infinite by this keeps all its bits, as do those of 16 bits
            and less, of integers and of complex numbers.
        metadata: texts that the file has in its metadata as well.

    Raises:
        TypeError: something in the model's ``state_dict()`` is no plain tensor, or of a dtype that cannot be stored; or
            something in ``metadata`` is no text.
        ValueError: the model is sharded, or has tensors without values; ``values`` is another dtype; or ``metadata``
            has the key that this library uses.

    Examples:
        >>> import tempfile
        >>> from torchlasso.storage import load, save
        >>> layer = nn.Linear(1000, 100)
        >>> _ = nn.init.sparse_(layer.weight, 0.99)
        >>> file = Path(tempfile.mkdtemp()) / "layer.safetensors"
        >>> save(layer, file)
        >>> file.stat().st_size < 0.02 * 4 * (100_000 + 100)
        True
        >>> other = nn.Linear(1000, 100)
        >>> load(file, into=other)
        >>> torch.equal(other.weight, layer.weight)
        True
    """
    if values not in (None, *NARROW):
        raise ValueError(f"values is None, torch.bfloat16 or torch.float16, got {values}")
    texts = dict(metadata or {})
    if not all(isinstance(text, str) for pair in texts.items() for text in pair):
        raise TypeError(f"metadata is a dictionary of texts, got {metadata!r:.80}")
    if KEY in texts:
        raise ValueError(f"the key {KEY!r} of the metadata is taken")
    state, model = tensors_of(model, "model"), unwrapped(model)
    cut, members = Resizing.of(model), members_of(model)
    state |= {name: members[name].detach() for name in cut.tensors if name not in state}
    also = {name: first for first, *others in tied(state) for name in others}
    entries: dict[str, Entry] = {}
    sparse: dict[str, Record] = {}
    for name in [name for name in state if name not in also]:
        w = state[name].cpu().resolve_conj().resolve_neg().contiguous()
        if w.dtype not in NAMES or name == METADATA:
            raise TypeError(f"a safetensors file cannot hold {w.dtype} under the name {name!r}")
        record, data = pack(w, values)
        # safetensors knows no complex numbers before version 0.7
        if w.is_complex() or data.size + len(terse_json(terse_json({name: record.to_json()}))) < w.nbytes:
            sparse[name], entries[name] = record, Entry("U8", data.shape, data.data)
        else:
            entries[name] = Entry(NAMES[w.dtype], w.shape, as_bytes(w).data)
    write(path, entries, sparse, also, cut, texts)
