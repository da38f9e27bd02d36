"""Load a data set by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

import torchlasso.data.readers  # noqa: F401  (registers them)
from torchlasso._core.specs import unknown
from torchlasso.data.card import DataCard
from torchlasso.data.describing import card_of_rows
from torchlasso.data.dividing import SplitOptions, split_data
from torchlasso.data.encoding import Encoding
from torchlasso.data.frame import Frame
from torchlasso.data.image_decoding import ImageOptions
from torchlasso.data.labels import TASKS, ColumnSelection
from torchlasso.data.preparing import PreparedData, encoded_rows, prepare, required_labels
from torchlasso.data.records import Dataset, Part, unit_interval
from torchlasso.data.registry import find_reader
from torchlasso.data.roles import required_weights
from torchlasso.data.stored.options import StreamOptions
from torchlasso.data.streaming import choose_stream, read_portion
from torchlasso.data.text_options import TextOptions
from torchlasso.data.texts import TextRows


def load(
    spec: str,
    *,
    label: str | None = None,
    ignore: Sequence[str] = (),
    group: str | None = None,
    time: str | None = None,
    categories: Sequence[str] = (),
    task: str | None = None,
    test: float | str | None = None,
    images: ImageOptions | None = None,
    text: Sequence[str] = (),
    texts: TextOptions | None = None,
) -> Dataset:
    """Read training and test rows.

    Labels that are whole numbers, booleans or text mean classification, decimal numbers mean regression. Columns of
    categories become one-hot, gaps are filled with the median of the training rows and marked
    (:class:`~torchlasso.data.encoding.Encoding`).

    Args:
        spec: ``digits``, ``hf:NAME``, ``package.module:function`` (which returns
            ((x, y), (x_test, y_test)) or (x, y)), a Parquet, CSV, JSON lines, NPZ or IDX file, a folder with train
            and test files, or a folder with one folder of images per class.
        label: the label column, or several with commas between; without it, the first of label, class, target and y.
        ignore: columns to leave out.
        group: the column of the group of each row, such as a person: all rows of a group are in the same part.
            ``COLUMN:PATTERN`` takes the part of its text that a regular expression matches.
        time: the column of the time of each row: the last rows are the test rows.
        categories: columns of categories that are written as numbers.
        task: ``"classification"`` or ``"regression"``, for labels that are whole numbers.
        test: the share of the rows that are test rows, or a file with them. By default the data's own test part, or
            20 % of the rows, always the same and stratified by class.
        images: how images are read, such as the size to which they are brought.
        text: columns of texts, which are joined; if there are none, a column that is called text, sentence, content or
            review, or the only column, if it holds texts.
        texts: how texts become numbers.

    Returns:
        A data set on the CPU. Texts are rows of numbers of words, padded with 0 to the longest one.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: the data cannot be used; the message names the file, the fault and the remedy.

    >>> dataset = load("digits")
    >>> dataset.input_shape, dataset.outputs, len(dataset.x), len(dataset.test_x)
    ((1, 8, 8), 10, 1438, 359)
    """
    columns = selected(
        label=label,
        ignore=ignore,
        group=group,
        time=time,
        categories=categories,
        task=task,
        images=images,
        text=text,
        texts=texts,
    )
    found = load_splits(spec, columns, SplitOptions(validation=0.0, test=test))
    (x, y), (test_x, test_y) = found.train, found.test
    x, test_x = unit_interval(x[:]), unit_interval(test_x[:])
    return Dataset(found.card.name, x, y, test_x, test_y, found.classes, found.features, found.text)


def load_splits(spec: str, columns: ColumnSelection, division: SplitOptions, *, embedded: bool = False) -> PreparedData:
    """Read training, validation and test rows, as numbers; if ``embedded``, categories as rows of embeddings.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: the data cannot be used.
    """
    return prepare(split_data(spec, columns, division), columns.texts, embedded=embedded)


def load_part(
    spec: str,
    *,
    label: str | None = None,
    ignore: Sequence[str] = (),
    group: str | None = None,
    time: str | None = None,
    categories: Sequence[str] = (),
    task: str | None = None,
    images: ImageOptions | None = None,
    survival: tuple[str, str] | None = None,
    text: Sequence[str] = (),
    stream: StreamOptions | None = None,
) -> Part:
    """Read rows to predict: one file, or the test part of a folder or of a named data set.

    Args:
        spec: as for ``load``.
        label: the label column; it may be missing.
        ignore: columns to leave out; they may be missing.
        group, time: columns of groups and times, which are no inputs; they may be missing.
        categories: columns of categories that are written as numbers.
        task, images: as for ``load``.
        survival: the columns of times and events, in the place of labels; they may be missing.
        text: columns of texts.
        stream: whether the rows stay on the disk; by default they do not.

    Returns:
        The rows, with labels as they were read, or None. A table with categories or gaps, or texts, are not encoded.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: the data cannot be used.

    >>> part = load_part("digits")
    >>> part.x.shape, part.y.dtype
    (torch.Size([359, 1, 8, 8]), dtype('int64'))
    """
    columns = selected(
        label=label,
        ignore=ignore,
        required=False,
        group=group,
        time=time,
        categories=categories,
        task=task,
        images=images,
        survival=survival,
        text=text,
    )
    source = find_reader(spec).open(spec, columns)
    portion = source.test or source.validation or source.train
    if portion is None:
        raise ValueError(f"{spec}: no rows to predict")
    stream, notes = choose_stream(stream or StreamOptions(), [portion])
    part = read_portion(portion, stream).with_floats()
    return replace(part, notes=(*notes, *part.notes))


def load_rows(
    spec: str,
    *,
    label: str | None = None,
    ignore: Sequence[str] = (),
    group: str | None = None,
    weight: str | None = None,
    categories: Sequence[str] = (),
    task: str | None = None,
) -> Part:
    """Read the rows of a table with labels: a file, or the training part of a folder or of a named data set.

    Args:
        spec: as for ``load``.
        label: the label column; without it, the first of label, class, target and y.
        ignore: columns to leave out.
        group: the column that names the group of each row, such as a person.
        weight: the column of the weights of the rows; those of weight 0 are left out.
        categories: columns of categories that are written as numbers.
        task: as for ``load``.

    Returns:
        The rows, with labels, groups and weights as they were read; categories are one-hot, and gaps filled.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: the data cannot be used.

    >>> part = load_rows("digits")
    >>> part.x.shape, part.y.dtype
    (torch.Size([1438, 1, 8, 8]), dtype('int64'))
    """
    columns = selected(label=label, ignore=ignore, group=group, categories=categories, task=task)
    return load_described(spec, replace(columns, weight=weight))[0]


def load_described(spec: str, columns: ColumnSelection) -> tuple[Part, DataCard]:
    """Read the rows of :func:`load_rows`, and describe them.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: the data cannot be used.
    """
    source = find_reader(spec).open(spec, columns)
    portion, weight = source.training(spec), columns.weight
    part = portion.read()
    required_labels(part.y, portion.origin)
    required_weights(part, weight, portion.origin)
    if part.weights is not None and not part.weights.all():
        if not part.weights.any():
            raise ValueError(f"{portion.origin}: column {weight!r} is 0 everywhere; some rows need a weight")
        part = part.rows(torch.from_numpy(part.weights.nonzero()[0]))
    if isinstance(part.x, TextRows):
        raise ValueError(f"{portion.origin}: its rows are texts, and a table of numbers or categories is needed")
    encoding = Encoding.fit(part.x, portion.origin) if isinstance(part.x, Frame) else None
    rows = part.with_floats() if encoding is None else encoded_rows(part, encoding, portion.origin)[0]
    return rows, card_of_rows(source.name, portion.origin, part, tuple(rows.tensor.shape), encoding)


def selected(
    *,
    label: str | None = None,
    ignore: Sequence[str] = (),
    required: bool = True,
    group: str | None = None,
    time: str | None = None,
    categories: Sequence[str] = (),
    task: str | None = None,
    images: ImageOptions | None = None,
    survival: tuple[str, str] | None = None,
    text: Sequence[str] = (),
    texts: TextOptions | None = None,
) -> ColumnSelection:
    """Make a selection of columns.

    Raises:
        ValueError: ``ignore``, ``categories`` or ``text`` is a text instead of a list, or there is no such task.
    """
    for name, value in (("ignore", ignore), ("categories", categories), ("text", text)):
        if isinstance(value, str):
            raise ValueError(f"{name} must be a sequence of column names, got the text {value!r}")
    if task not in (None, *TASKS):
        raise unknown("task", str(task), TASKS)
    return ColumnSelection(
        label,
        tuple(ignore),
        required,
        group,
        time,
        tuple(categories),
        task,
        images or ImageOptions(),
        survival,
        tuple(text),
        texts or TextOptions(),
    )
