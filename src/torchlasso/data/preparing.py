"""Rows as tensors for a model: columns encoded, labels as class indices or numbers, and a card of what was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from torchlasso.data.card import DataCard, PartCard
from torchlasso.data.describing import (
    filled_gaps,
    inputs_in_words,
    notes_of_targets,
    rows_of_classes,
    targets_in_words,
)
from torchlasso.data.dividing import DataSplit, SplitData
from torchlasso.data.encoding import SHOWN, Encoding
from torchlasso.data.frame import Frame, refuse_other_columns
from torchlasso.data.labels import class_indices, class_names
from torchlasso.data.records import Labels, Part, alike, kind_of, order_like, widen
from torchlasso.data.splits import codes_of
from torchlasso.data.stored.frame import StoredFrame
from torchlasso.data.stored.rows import StoredRows
from torchlasso.data.suspicions import suspicions
from torchlasso.data.text_options import TextOptions
from torchlasso.data.texts import TextRows
from torchlasso.data.tokenised import tokenised
from torchlasso.data.tokenizing import TextEncoding
from torchlasso.training.token_rows import TokenRows

SplitInputs = Tensor | StoredRows | TokenRows
Pair = tuple[SplitInputs, Tensor]


@dataclass(frozen=True)
class PreparedData:
    """Rows that a model can be trained on, not yet scaled.

    Attributes:
        train, test: inputs and targets, as those of :class:`~torchlasso.data.records.Dataset`.
        validation: the same; without rows if there are none.
        classes: the class names in the order of their indices, () for regression.
        features: the names of the inputs of a table, else ().
        encoding: of a table with categories or gaps, else None.
        text: how texts become numbers, else None.
        card: what was read.
        groups: the number of the group of each training row, or None.
        held_groups: the same for the validation rows and for the test rows; None unless both have groups.
        weights: of the training rows, with the mean 1, float32 (n,), or None.
    """

    train: Pair
    validation: Pair
    test: Pair
    classes: tuple[str, ...]
    features: tuple[str, ...]
    encoding: Encoding | None
    text: TextEncoding | None
    card: DataCard
    groups: Tensor | None
    held_groups: tuple[Tensor, Tensor] | None
    weights: Tensor | None = None


def prepare(divided: SplitData, texts: TextOptions | None = None, *, embedded: bool = False) -> PreparedData:
    """Encode the parts of the data as the training rows ask for.

    Args:
        divided: the parts.
        texts: how texts become numbers.
        embedded: whether categories are for embeddings.

    Raises:
        ValueError: a part does not fit the training part, the message names it; there are no categories to embed.
    """
    train, origin = divided.train.rows, divided.train.origin
    encoding: Encoding | None = None
    text, notes, inputs = None, list[str](), ""
    xs: Mapping[str, SplitInputs]
    if isinstance(train.x, TextRows):
        xs, text, notes, inputs = tokenised(divided, train.x, texts or TextOptions())
    else:
        xs, encoding, notes = _numbers(divided, embedded)
    if embedded and (encoding is None or not encoding.rows):
        raise ValueError(f"{origin}: there are no columns of categories, of which embeddings could be learned")
    y = required_labels(train.y, origin)
    classes = () if y.dtype.kind == "f" else class_names(y)
    if y.dtype.kind != "f" and len(classes) < 2:
        raise ValueError(f"{origin}: all labels are {classes[0]!r}; at least 2 classes are needed")
    ys = {
        name: _ranked(split) if divided.is_survival else _targets(split, y, classes, origin)
        for name, split in divided.parts.items()
    }
    pairs: dict[str, Pair] = {name: (xs[name], ys[name]) for name in xs}
    nothing = (_none(xs["train"]), ys["train"][:0])
    features = train.features if encoding is None else encoding.features
    card = DataCard(
        name=divided.name,
        inputs=inputs or inputs_in_words(train, tuple(xs["train"].shape)),
        targets=targets_in_words(classes, ys["train"], divided.is_survival),
        parts=tuple(
            PartCard(name, len(xs[name]), split.how, rows_of_classes(ys[name], classes))
            for name, split in divided.parts.items()
        ),
        gaps={} if encoding is None else filled_gaps(train.columns, encoding),
        encoded={} if encoding is None or embedded else encoding.expanded,
        left_out={} if encoding is None else encoding.left_out,
        notes=(
            *divided.notes,
            *_of_reading(divided),
            *notes,
            *_of_embeddings(encoding),
            *suspicions(train),
            *([] if classes or divided.is_survival else notes_of_targets(y)),
        ),
    )
    return PreparedData(
        pairs["train"],
        pairs.get("validation", nothing),
        pairs["test"],
        classes,
        features,
        encoding,
        text,
        card,
        groups=None if train.groups is None else codes_of(train.groups),
        held_groups=_held_groups(divided),
        weights=_weights(divided.train),
    )


def _weights(train: DataSplit) -> Tensor | None:
    """Return the weights of the training rows, with the mean 1."""
    weights = train.rows.weights
    if weights is None:
        return None
    if not weights.any():
        raise ValueError(f"{train.origin}: all weights of the training rows are 0; some must be above")
    return torch.from_numpy((weights / weights.mean()).astype(np.float32))


def _held_groups(divided: SplitData) -> tuple[Tensor, Tensor] | None:
    """Return the numbers of the groups of the validation and of the test rows, if both have groups."""
    held = [split.rows.groups for name, split in divided.parts.items() if name != "train"]
    known = [codes_of(groups) for groups in held if groups is not None]
    return (known[0], known[1]) if len(held) == len(known) == 2 else None


def encoded_rows(part: Part, encoding: Encoding, origin: str) -> tuple[Part, list[str]]:
    """Encode the rows of a table; also say what the training rows did not have.

    Raises:
        ValueError: the columns are others than those of the training rows.
    """
    if isinstance(part.x, StoredFrame):
        return replace(part, x=part.x.encoded(encoding), features=encoding.features), encoding.notes(part.x)
    frame = encoding.aligned(part.frame, origin)
    return replace(part, x=encoding(frame), features=encoding.features), encoding.notes(frame)


def _numbers(divided: SplitData, embedded: bool) -> tuple[Mapping[str, SplitInputs], Encoding | None, list[str]]:
    """Return the parts of a table or of images as rows of one shape."""
    parts, encoding, notes = _encoded(divided, embedded)
    channels = max(part.inputs.shape[1] for part in parts.values())
    xs = {name: widened(part.inputs, channels) for name, part in parts.items()}
    for name, x in xs.items():
        if x.shape[1:] != xs["train"].shape[1:]:
            raise ValueError(
                f"{divided.parts[name].origin}: its rows have the shape {tuple(x.shape[1:])}, but the rows of the "
                f"training part ({divided.train.origin}) have the shape {tuple(xs['train'].shape[1:])}; the shapes "
                "must be the same"
            )
    return xs, encoding, notes


def _encoded(divided: SplitData, embedded: bool) -> tuple[dict[str, Part], Encoding | None, list[str]]:
    """Return the parts as numbers with the same columns, and the encoding if one is needed."""
    splits, train = divided.parts, divided.train
    for split in splits.values():
        if isinstance(split.rows.x, TextRows):
            raise ValueError(f"{split.origin}: its rows are texts, and those of the training part are not")
    if all(_is_plain(split.rows) for split in splits.values()):
        ordered = {name: _plain(s.rows, train.rows.features, s.origin) for name, s in splits.items()}
        return dict(zip(ordered, alike(list(ordered.values())), strict=True)), None, []
    encoding = Encoding.fit(train.rows.columns, train.origin, embedded=embedded)
    found, notes = dict[str, Part](), list[str]()
    for name, split in splits.items():
        found[name], said = encoded_rows(split.rows, encoding, split.origin)
        notes += [f"In the {name} part, {each}." for each in said]
    return found, encoding, notes


def _none(x: SplitInputs) -> SplitInputs:
    """Return none of the rows."""
    return x[:0] if isinstance(x, Tensor) else x.rows(torch.arange(0))


def widened(x: Tensor | StoredRows, channels: int) -> Tensor | StoredRows:
    """Repeat the channel of grey images ``channels`` times; return other images unchanged."""
    return widen(x, channels).contiguous() if isinstance(x, Tensor) else x.widened(channels)


def _is_plain(part: Part) -> bool:
    """Return whether the rows are images, or numbers without gaps."""
    return part.x.is_plain if isinstance(part.x, StoredFrame) else not isinstance(part.x, Frame)


def _plain(part: Part, features: tuple[str, ...], origin: str) -> Part:
    """Return images as they are, and numbers with the columns in the order of ``features``."""
    if not isinstance(part.x, StoredFrame):
        return order_like(part, features, origin)
    refuse_other_columns(part.features, features, origin)
    return replace(part, x=part.x.numbers(features), features=features)


def required_labels(y: Labels | None, origin: str) -> Labels:
    """Return labels that are there.

    Raises:
        ValueError: there are none.
    """
    if y is None:
        raise ValueError(f"{origin}: no labels; training and test rows need them")
    return y


def _targets(split: DataSplit, trained: Labels, classes: tuple[str, ...], training: str) -> Tensor:
    y, origin = required_labels(split.rows.y, split.origin), split.origin
    if classes and y.dtype.kind == "f":
        kinds = f"{kind_of(y)}, but the labels of the training part ({training}) are {kind_of(trained)}"
        raise ValueError(f"{origin}: its labels are {kinds}; they must be of one kind")
    if classes:
        try:
            return class_indices(y, classes)
        except ValueError as error:
            raise ValueError(f"{origin}: {error} of the training part") from error
    if y.dtype.kind == "U":
        raise ValueError(f"{origin}: its labels are text, but the labels of the training part are decimal numbers")
    targets = torch.from_numpy(y.astype(np.float32).reshape(len(y), -1))
    outputs = 1 if trained.ndim == 1 else trained.shape[1]
    if targets.shape[1] != outputs:
        raise ValueError(f"{origin}: {targets.shape[1]} targets per row, but the training part has {outputs}")
    return targets


def _ranked(split: DataSplit) -> Tensor:
    """Return the ranks of times, which single precision holds, beside the events, (n, 2)."""
    time, event = required_labels(split.rows.y, split.origin).T
    if not event.any():
        raise ValueError(f"{split.origin}: there is no event; every part needs some")
    return torch.from_numpy(np.stack([np.unique(time, return_inverse=True)[1], event], axis=1).astype(np.float32))


def _of_reading(divided: SplitData) -> list[str]:
    """Return what was said when the parts were read, each once."""
    return list(dict.fromkeys(note for split in divided.parts.values() for note in split.rows.notes))


def _of_embeddings(encoding: Encoding | None) -> list[str]:
    if encoding is None or not encoding.embedded:
        return []
    rows = encoding.rows
    named = [f"{encoding.features[place]} {count:,}" for place, count in rows.items()]
    shown = ", ".join(named[:SHOWN]) + (f" and {len(named) - SHOWN} more" if len(named) > SHOWN else "")
    return [f"Categories become embeddings, with a first row for values without one of their own. Rows: {shown}."]
