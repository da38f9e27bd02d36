"""Save a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from torchlasso._core.wrappers import plain_name, unwrapped
from torchlasso.compaction.low_rank import LowRank
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
    """Save the parameters and buffers of ``model`` to a safetensors file in which zeros take almost no space.

    A sparse tensor is stored as its nonzero values and a code of their positions: about N·(d·b + H(d)) bits for N
    weights of b bits each, a share d of them nonzero, where H(d) = −d·log₂d − (1 − d)·log₂(1 − d) is the entropy of
    random positions. If this is not shorter, the tensor is stored dense. A tensor with several names is stored once.
    The file is written atomically, and equal models give equal bytes. ``docs/format.md`` describes how to read it
    without this library. If the model was made smaller by :func:`torchlasso.compact` or :func:`torchlasso.shrink_`, the
    file records the removed sizes, so that it can be loaded into a model of the full size.

    Nonzero values, including NaN and infinity, are restored to the last bit. −0.0 counts as zero: a sparse tensor
    restores it as 0.0.

    Args:
        model: any module; its ``state_dict()`` is stored. For a module compiled by ``torch.compile`` or wrapped for
            training, the names are those of the module inside.
        path: the path of the file; an existing file is replaced.
        values: ``torch.bfloat16`` or ``torch.float16``: round nonzero values to this dtype; :func:`load` converts them
            back. A tensor keeps all its bits if a value would become zero or infinite, or if its dtype has at most 16
            bits or is an integer or complex type.
        metadata: further texts for the metadata of the file.

    Raises:
        TypeError: an entry of the model's ``state_dict()`` is not a plain tensor, or has a dtype that cannot be stored;
            or a value in ``metadata`` is not a text.
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
        raise ValueError(f"values must be None, torch.bfloat16 or torch.float16; got {values}")
    texts = dict(metadata or {})
    if not all(isinstance(text, str) for pair in texts.items() for text in pair):
        raise TypeError(f"metadata must be a dictionary of texts; got {metadata!r:.80}")
    if KEY in texts:
        raise ValueError(f"metadata must not have the key {KEY!r}, which the format uses")
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
        # before version 0.7, safetensors does not support complex numbers
        if w.is_complex() or data.size + len(terse_json(terse_json({name: record.to_json()}))) < w.nbytes:
            sparse[name], entries[name] = record, Entry("U8", data.shape, data.data)
        else:
            entries[name] = Entry(NAMES[w.dtype], w.shape, as_bytes(w).data)
    low_rank = [plain_name(name) for name, layer in model.named_modules() if isinstance(layer, LowRank)]
    write(path, entries, sparse, also, cut, texts, low_rank)
