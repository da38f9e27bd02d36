"""The options of a run for the data: their columns, their division, their images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from torchlasso._core.specs import unknown
from torchlasso.data.dividing import VALIDATION_FRACTION
from torchlasso.data.encoding import ENCODINGS, ONE_HOT
from torchlasso.data.image_decoding import PAD, RESIZES, ImageOptions
from torchlasso.data.labels import TASKS, ColumnSelection
from torchlasso.data.splits import TEST_FRACTION
from torchlasso.data.stored.options import AUTO, STREAMS, StreamOptions
from torchlasso.data.text_options import MAX_LENGTH, VOCABULARY, WORDS, TextOptions
from torchlasso.runs.declared import TRAIN, Option
from torchlasso.runs.records import NEWER


@dataclass(frozen=True)
class DataOptions:
    """The data of ``torchlasso train`` and ``torchlasso path``."""

    data: Annotated[
        str, Option("Data: digits, hf:NAME, module:function, or a Parquet, CSV, JSON lines, NPZ or IDX file or folder.")
    ]
    label: Annotated[str | None, Option("Label column of a table, or several with commas between.")] = None
    ignore: Annotated[tuple[str, ...], Option("Columns of a table to ignore, separated by commas.")] = ()
    categories: Annotated[
        tuple[str, ...], Option("Columns of categories that are written as numbers, separated by commas.")
    ] = field(default=(), metadata=NEWER)
    encoding: Annotated[
        str,
        Option(f"How categories become inputs: {' or '.join(ENCODINGS)}, learned for each column."),
    ] = field(default=ONE_HOT, metadata=NEWER)
    task: Annotated[
        str | None, Option(f"What whole numbers as labels are: {' or '.join(TASKS)}; if not given, judged by them.")
    ] = None
    time: Annotated[str | None, Option("Column of the times, for survival: the loss is Cox's partial likelihood.")] = (
        None
    )
    event: Annotated[str | None, Option("Column of the events, for survival: 1, or 0 for a row that left.")] = None
    sparsity: Annotated[
        float | None, Option("Target share of zeros, such as 0.95: λ is found, starting at --lam.", TRAIN)
    ] = None
    validation: Annotated[
        float | str | None,
        Option(
            "Validation rows: a share of the training rows, or a file; if not given, the data's own, or else "
            f"{VALIDATION_FRACTION:g}."
        ),
    ] = None
    test: Annotated[
        float | str | None,
        Option(f"Test rows: a share, or a file; if not given, the data's own, or else {TEST_FRACTION:g}."),
    ] = None
    group: Annotated[
        str | None,
        Option("Column of a person or thing that rows are of, which are never divided; COLUMN:PATTERN takes a part."),
    ] = None
    time_order: Annotated[str | None, Option("Column of the time: validation and test rows are the last ones.")] = None
    weight: Annotated[
        str | None, Option("Column of the weights of the rows in the loss of training; figures count all rows alike.")
    ] = field(default=None, metadata=NEWER)
    size: Annotated[
        str | None, Option("Size that images are brought to, in pixels, as in 224 or, height first, 224x320.")
    ] = None
    resize: Annotated[
        str, Option(f"How images are brought to --size: {', '.join(RESIZES)}; pad adds black, crop keeps the middle.")
    ] = field(default=PAD, metadata=NEWER)
    skip_corrupt: Annotated[
        float, Option("Share of images that may be unreadable, and are then left out, such as 0.01.")
    ] = field(default=0.0, metadata=NEWER)
    text: Annotated[
        tuple[str, ...],
        Option("Columns of texts, separated by commas and joined; if not given, found by their names and values."),
    ] = field(default=(), metadata=NEWER)
    tokenizer: Annotated[
        str, Option(f"Tokenizer of texts: {WORDS}, or a file tokenizer.json of Hugging Face tokenizers.")
    ] = field(default=WORDS, metadata=NEWER)
    max_length: Annotated[int, Option("Most words, or tokens, that are read of a text.")] = field(
        default=MAX_LENGTH, metadata=NEWER
    )
    vocabulary: Annotated[int, Option("Most words of the vocabulary: the most frequent ones in training.")] = field(
        default=VOCABULARY, metadata=NEWER
    )
    stream: Annotated[
        str,
        Option(
            f"Rows that stay on the disk: {', '.join(STREAMS)}; auto, where they would take much of the free memory."
        ),
    ] = field(default=AUTO, metadata=NEWER)
    workers: Annotated[int, Option("Processes that read the batches of rows on the disk ahead.")] = field(
        default=0, metadata=NEWER
    )
    stratify: Annotated[bool, Option("Divide labels that are numbers evenly too; classes always are.")] = False

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            value = getattr(self, name)
            if isinstance(value, float | int) and not 0 <= value < 1:
                raise ValueError(f"--{name} must be a share, at least 0 and below 1, or a file; got {value!r}")
        if self.test == 0:
            raise ValueError("--test must be above 0: the figures of a run are of its test rows")
        if self.workers < 0:
            raise ValueError(f"--workers must be a number of processes, at least 0; got {self.workers}")
        try:
            _ = self.images, self.texts, self.streaming
        except ValueError as error:
            flag = "" if str(error).startswith("unknown") else "--"
            name, *rest = str(error).split(" ", 1)
            raise ValueError(" ".join([f"{flag}{name.replace('_', '-')}", *rest])) from error
        if (self.time is None) != (self.event is None):
            raise ValueError("--time and --event are given together: the columns of times, and of 1 for an event or 0")
        if self.time is not None and self.label is not None:
            raise ValueError("--label does not go with --time and --event, which are the targets")
        if self.group is not None and self.time_order is not None:
            raise ValueError(
                "--group and --time-order exclude each other: the last rows of every group are in two parts"
            )
        if self.encoding not in ENCODINGS:
            raise unknown("encoding", self.encoding, ENCODINGS)
        if self.task not in (None, *TASKS):
            raise unknown("task", str(self.task), TASKS)

    @property
    def streaming(self) -> StreamOptions:
        """The options of rows that stay on the disk."""
        return StreamOptions(self.stream, self.workers)

    @property
    def columns(self) -> ColumnSelection:
        """The columns that are no features, and the reading of the others."""
        return ColumnSelection(
            self.label,
            self.ignore,
            group=self.group,
            time=self.time_order,
            categories=self.categories,
            task=self.task,
            images=self.images,
            survival=self.survival,
            text=self.text,
            texts=self.texts,
            weight=self.weight,
        )

    @property
    def texts(self) -> TextOptions:
        """The options of the reading of texts."""
        return TextOptions(self.tokenizer, self.max_length, self.vocabulary)

    @property
    def survival(self) -> tuple[str, str] | None:
        """The columns of times and events."""
        return None if self.time is None or self.event is None else (self.time, self.event)

    @property
    def images(self) -> ImageOptions:
        """The options of the reading of images."""
        return ImageOptions(self.size, self.resize, self.skip_corrupt)
