"""Load a data set by its name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

import torchlasso.data.readers  # noqa: F401  (registers them)
from torchlasso.data.labels import ColumnSelection, class_indices, class_names
from torchlasso.data.records import Dataset, Labels, Part, kind_of, order_like, widen
from torchlasso.data.registry import Source, find_reader
from torchlasso.data.splits import split_test


def load(spec: str, *, label: str | None = None, ignore: Sequence[str] = ()) -> Dataset:
    """Read training and test rows.

    If there is no test part, 20 % of the rows become one, stratified by class and always the same. Labels that are
    whole numbers, booleans or text mean classification, decimal numbers mean regression.

    Args:
        spec: ``digits``, ``hf:NAME``, ``package.module:function`` (which returns
            ((x, y), (x_test, y_test)) or (x, y)), a Parquet, CSV, NPZ or IDX file, a folder with train
            and test files, or a folder with one folder of images per class.
        label: the label column; without it, the first of label, class, target and y.
        ignore: columns to leave out.

    Returns:
        A data set on the CPU.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: the data cannot be used; the message names the file, the fault and the remedy.

    >>> dataset = load("digits")
    >>> dataset.input_shape, dataset.outputs, len(dataset.x), len(dataset.test_x)
    ((1, 8, 8), 10, 1438, 359)
    """
    source = _open(spec, label, ignore, required=True)
    if source.train is None:
        raise ValueError(f"{spec}: no training part; one file must have 'train' in its name")
    train, origin = source.train.read(), source.train.origin
    if source.test is None:
        train, test = split_test(train)
        test_origin = origin
        if len(test.x) == 0:
            rows = len(train.x)
            raise ValueError(f"{origin}: {rows} rows are too few to split off test rows; add a test file")
    else:
        test, test_origin = source.test.read(), source.test.origin
    return _assemble(source.name, train, test, origin, test_origin)


def load_part(spec: str, *, label: str | None = None, ignore: Sequence[str] = ()) -> Part:
    """Read rows to predict: one file, or the test part of a folder or of a named data set.

    Args:
        spec: as for ``load``.
        label: the label column; it may be missing.
        ignore: columns to leave out; they may be missing.

    Returns:
        The rows, with labels as they were read, or None.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: the data cannot be used.

    >>> part = load_part("digits")
    >>> part.x.shape, part.y.dtype
    (torch.Size([359, 1, 8, 8]), dtype('int64'))
    """
    source = _open(spec, label, ignore, required=False)
    portion = source.test or source.train
    if portion is None:
        raise ValueError(f"{spec}: no rows to predict")
    return portion.read()


def load_rows(spec: str, *, label: str | None = None, ignore: Sequence[str] = (), group: str | None = None) -> Part:
    """Read the rows of a table with labels: a file, or the training part of a folder or of a named data set.

    Args:
        spec: as for ``load``.
        label: the label column; without it, the first of label, class, target and y.
        ignore: columns to leave out.
        group: the column that names the group of each row, such as a person.

    Returns:
        The rows, with labels and groups as they were read.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: the data cannot be used.

    >>> part = load_rows("digits")
    >>> part.x.shape, part.y.dtype
    (torch.Size([1438, 1, 8, 8]), dtype('int64'))
    """
    source = _open(spec, label, ignore, required=True, group=group)
    if source.train is None:
        raise ValueError(f"{spec}: no training part; one file must have 'train' in its name")
    part = source.train.read()
    _required(part.y, source.train.origin)
    return part


def _open(spec: str, label: str | None, ignore: Sequence[str], required: bool, group: str | None = None) -> Source:
    if isinstance(ignore, str):
        raise ValueError(f"ignore must be a sequence of column names, got the text {ignore!r}")
    return find_reader(spec).open(spec, ColumnSelection(label, tuple(ignore), required, group))


def _assemble(name: str, train: Part, test: Part, origin: str, test_origin: str) -> Dataset:
    test = order_like(test, train.features, test_origin)
    channels = max(train.x.shape[1], test.x.shape[1])
    x, test_x = widen(train.x, channels), widen(test.x, channels)
    if x.shape[1:] != test_x.shape[1:]:
        raise ValueError(
            f"{test_origin}: its rows have the shape {tuple(test_x.shape[1:])}, but the rows of the training part "
            f"({origin}) have the shape {tuple(x.shape[1:])}; the shapes must be the same"
        )
    y, test_y = _required(train.y, origin), _required(test.y, test_origin)
    classes = () if y.dtype.kind == "f" else class_names(y)
    if y.dtype.kind != "f" and len(classes) < 2:
        raise ValueError(f"{origin}: all labels are {classes[0]!r}; at least 2 classes are needed")
    if classes and test_y.dtype.kind == "f":
        kinds = f"{kind_of(test_y)}, but the labels of the training part ({origin}) are {kind_of(y)}"
        raise ValueError(f"{test_origin}: its labels are {kinds}; they must be of one kind")
    targets = [_targets(y, classes, origin), _targets(test_y, classes, test_origin)]
    if targets[0].shape[1:] != targets[1].shape[1:]:
        raise ValueError(
            f"{test_origin}: {targets[1].shape[1]} targets per row, but the training part has {targets[0].shape[1]}"
        )
    return Dataset(name, x.contiguous(), targets[0], test_x.contiguous(), targets[1], classes, train.features)


def _required(y: Labels | None, origin: str) -> Labels:
    if y is None:
        raise ValueError(f"{origin}: no labels; training and test rows need them")
    return y


def _targets(y: Labels, classes: tuple[str, ...], origin: str) -> Tensor:
    if classes:
        try:
            return class_indices(y, classes)
        except ValueError as error:
            raise ValueError(f"{origin}: {error} of the training part") from error
    if y.dtype.kind == "U":
        raise ValueError(f"{origin}: its labels are text, but the labels of the training part are decimal numbers")
    return torch.from_numpy(y.astype(np.float32).reshape(len(y), -1))
