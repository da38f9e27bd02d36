"""The rows of an experiment: read, divided, encoded and scaled, and what is needed to do the same with others."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from torchlasso import data
from torchlasso.data.card import DataCard
from torchlasso.data.dividing import SplitOptions
from torchlasso.data.encoding import EMBEDDING, Encoding
from torchlasso.data.frame import Frame, TableColumns
from torchlasso.data.loading import load_splits
from torchlasso.data.padded import PaddedRows
from torchlasso.data.preparing import PreparedData, SplitInputs, encoded_rows, widened
from torchlasso.data.records import order_like
from torchlasso.data.scaled import ScaledRows, scale_of_bytes
from torchlasso.data.stored.images import EncodedImages
from torchlasso.data.stored.rows import StoredRows
from torchlasso.data.stored.tokens import StoredTokens
from torchlasso.data.texts import TextRows
from torchlasso.data.tokenizing import TextEncoding
from torchlasso.path import folds_of
from torchlasso.runs import choices
from torchlasso.runs.data_options import DataOptions
from torchlasso.runs.declared import with_flags
from torchlasso.runs.options import Options
from torchlasso.runs.pretraining import fit
from torchlasso.training.rows import InputRows
from torchlasso.training.token_rows import TokenRows


@dataclass(frozen=True)
class InputSpec:
    """The inputs that a trained model expects, and the meaning of its outputs.

    Attributes:
        shape: of a row.
        outputs: the number of outputs.
        classes: their names, in the order of the outputs; () for regression.
        features: the names of the inputs of a table, else ().
        standardizer: the scaling of inputs.
        encoding: how columns become inputs; None for numbers without gaps, and for images.
        scale: the scaling of the targets of a regression, which the outputs are to predict; None for none.
        is_survival: whether the output is the log risk of an event, and targets are times and events.
        text: how texts become numbers of words; None for other rows. The shape is then (length, words).
    """

    shape: tuple[int, ...]
    outputs: int
    classes: tuple[str, ...]
    features: tuple[str, ...]
    standardizer: data.Standardizer
    encoding: Encoding | None = None
    scale: data.Standardizer | None = None
    is_survival: bool = False
    text: TextEncoding | None = None

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1 or self.outputs < 1:
            raise ValueError(f"inputs of shape {self.shape} and {self.outputs} outputs are not possible")
        if self.classes and len(self.classes) != self.outputs:
            raise ValueError(f"there are {len(self.classes)} classes and {self.outputs} outputs")
        if self.text is not None:
            if self.shape != self.text.shape or self.features or self.standardizer.mean:
                raise ValueError(f"texts of shape {self.text.shape} have the shape {self.shape}, or other inputs too")
            return
        for what, count in (("features", len(self.features)), ("means", len(self.standardizer.mean))):
            if count != self.shape[0] and (count or what == "means"):
                raise ValueError(f"there are {count} {what} for inputs of shape {self.shape}")

    def prepare(self, part: data.Part, origin: str, workers: int = 0) -> InputRows:
        """Prepare rows for the model: order the columns, match the number of channels, standardise; or tokenise.

        Args:
            part: the rows.
            origin: their name in messages.
            workers: processes that read the batches of rows on the disk ahead.

        Raises:
            ValueError: the rows have another shape or other columns.
        """
        if self.text is not None or isinstance(part.x, TextRows):
            rows, _ = self._tokenised(part, origin)
            return PaddedRows(rows, workers=workers) if isinstance(rows, StoredTokens) else rows
        if self.encoding is not None or isinstance(part.x, TableColumns):
            part, _ = encoded_rows(part, self._encoding, origin)
        if self.features:
            part = order_like(part, self.features, origin)
        x = widened(part.with_floats().inputs, self.shape[0])
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"{origin}: its rows have the shape {tuple(x.shape[1:])}; the model expects {self.shape}")
        return self.standardizer(x) if isinstance(x, Tensor) else ScaledRows(x, self.standardizer, workers=workers)

    @property
    def embedded(self) -> dict[int, int]:
        """The rows of the embedding of each input that holds their numbers, by its place."""
        return {} if self.encoding is None else self.encoding.rows

    @property
    def _encoding(self) -> Encoding:
        """The encoding of columns; gaps become the means of the training rows if those have none."""
        means = dict(zip(self.features, self.standardizer.mean, strict=True))
        return self.encoding or Encoding.of_numbers(means)

    def notes(self, part: data.Part, origin: str) -> list[str]:
        """Say what rows have that the training rows did not, such as gaps and categories, or is not read of texts."""
        if self.text is not None:
            return self._tokenised(part, origin)[1]
        if self.encoding is not None:
            columns = part.columns
            aligned = self.encoding.aligned(columns, origin) if isinstance(columns, Frame) else columns
            return self.encoding.notes(aligned)
        gaps = part.x.gaps if isinstance(part.x, TableColumns) else {}
        found = ", ".join(f"{name} {count:,}" for name, count in gaps.items())
        return [f"gaps become the mean of training, since it has none there ({found})"] if gaps else []

    def _tokenised(self, part: data.Part, origin: str) -> tuple[TokenRows | StoredTokens, list[str]]:
        if self.text is None:
            raise ValueError(f"{origin}: its rows are texts; the model expects inputs of shape {self.shape}")
        if not isinstance(part.x, TextRows):
            raise ValueError(f"{origin}: its rows are not texts, which the model expects")
        rows, counts = part.x.tokenised(self.text)
        return rows, self.text.notes(counts)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return outputs in the units of the targets; those for classes as they are."""
        return outputs if self.scale is None else self.scale.undone(outputs)

    def scaled(self, targets: Tensor) -> Tensor:
        """Return targets as the outputs are to predict them."""
        return targets if self.scale is None else self.scale(targets)


@dataclass(frozen=True)
class RowSplits:
    """The rows of an experiment, standardised and on its device.

    Attributes:
        train, validation, test: inputs and targets.
        card: what was read.
        groups: the number of the group of each training row, or None.
        held_groups: the same for the validation rows and for the test rows; None unless both have groups.
        weights: of the training rows, with the mean 1, (n,), or None.
    """

    train: tuple[InputRows, Tensor]
    validation: tuple[InputRows, Tensor]
    test: tuple[InputRows, Tensor]
    card: DataCard
    groups: Tensor | None = None
    held_groups: tuple[Tensor, Tensor] | None = None
    weights: Tensor | None = None

    def folds(self, k: int, seed: int) -> list[tuple[Tensor, Tensor]]:
        """Divide the training rows into folds; return the training and the held-out rows of each."""
        return folds_of(len(self.train[0]), k, seed, self.groups)


def read_data(options: Options) -> tuple[InputSpec, RowSplits]:
    """Read the data of the options, and divide them into training, validation and test rows."""
    division = SplitOptions(options.validation, options.test, options.seed, options.stratify, options.streaming)
    found = load_splits(options.data, options.columns, division, embedded=options.encoding == EMBEDDING)
    x, y = found.train
    fitted, notes = (None, ()) if options.pretrained is None else fit(options.pretrained, found, options.data)
    _refuse_unused(options, found)
    is_survival = options.survival is not None
    is_scaled = y.is_floating_point() and options.loss in (None, "mse") and not is_survival
    scale = data.Standardizer.fit(y) if is_scaled else None
    shape = tuple(x.shape[1:]) if found.text is None else found.text.shape
    inputs = InputSpec(
        shape=shape if fitted is None else (fitted.channels, *shape[1:]),
        outputs=1 if is_survival else len(found.classes) or y.shape[1],
        classes=found.classes,
        features=found.features,
        standardizer=_scale_of(x, found.encoding) if fitted is None else data.Standardizer(fitted.mean, fitted.std),
        encoding=found.encoding,
        scale=scale,
        is_survival=is_survival,
        text=found.text,
    )
    device = choices.parse_device(options.device)

    def ready(pair: tuple[SplitInputs, Tensor]) -> tuple[InputRows, Tensor]:
        x, y = pair[0], inputs.scaled(pair[1]).to(device)
        if isinstance(x, TokenRows):
            return x.to(device), y
        if isinstance(x, StoredTokens):
            return PaddedRows(x, device, options.workers), y
        x = widened(x, inputs.shape[0])
        if isinstance(x, StoredRows):
            return ScaledRows(x, inputs.standardizer, device, options.workers), y
        is_bytes = x.dtype == torch.uint8
        return ScaledRows(x.to(device), inputs.standardizer) if is_bytes else inputs.standardizer(x).to(device), y

    train, validation, test = map(ready, (found.train, found.validation, found.test))
    weights = None if found.weights is None else found.weights.to(device)
    names = [each.name for each in fields(DataOptions)]
    left_out = {column: with_flags(why, names) for column, why in found.card.left_out.items()}
    card = replace(found.card, left_out=left_out, notes=(*(with_flags(one, names) for one in found.card.notes), *notes))
    return inputs, RowSplits(train, validation, test, card, found.groups, found.held_groups, weights)


def _refuse_unused(options: Options, found: PreparedData) -> None:
    """Refuse options of images and of texts for other rows, which would change nothing."""
    of_images, of_texts = ("size", "resize", "skip_corrupt"), ("tokenizer", "max_length", "vocabulary")
    for kind, names, suits in (
        ("images", of_images, len(found.train[0].shape) == 4),
        ("texts", of_texts, found.text is not None),
    ):
        given = [each.name for each in fields(DataOptions) if getattr(options, each.name) != each.default]
        for name in given:
            if name in names and not suits:
                raise ValueError(f"--{name.replace('_', '-')} is for {kind}, and {options.data} has other rows")


def _scale_of(x: SplitInputs, encoding: Encoding | None) -> data.Standardizer:
    if isinstance(x, TokenRows | StoredTokens):
        return data.Standardizer((), ())
    if encoding is not None:
        return encoding.standardizer(x)
    if isinstance(x, Tensor | EncodedImages) and x.dtype == torch.uint8:
        return scale_of_bytes(x)
    return data.Standardizer.fit(x)


def read_data_again(options: Options, known: InputSpec) -> RowSplits:
    """Read the data of a run again.

    Raises:
        ValueError: the data have changed since the run began: other columns, classes, means or deviations.
    """
    inputs, rows = read_data(options)
    if inputs.text != known.text:
        raise ValueError(f"{options.data} has changed since the run began: its words, or its tokenizer, are others")
    for what in ("shape", "outputs", "classes", "features", "encoding"):
        found, wanted = getattr(inputs, what), getattr(known, what)
        if found != wanted:
            raise ValueError(f"{options.data} has changed since the run began: its {what} is {found}, and was {wanted}")
    pairs = ((inputs.standardizer, known.standardizer), (inputs.scale, known.scale))
    if not all(was is None or (now is not None and now.is_close(was)) for now, was in pairs):
        raise ValueError(f"{options.data} has changed since the run began: its values have other means or deviations")
    return rows
