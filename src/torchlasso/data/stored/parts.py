"""Parts whose rows stay on a disk: of tables, of columns of images, and of files of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torchlasso._core.extras import require
from torchlasso.data.distinct import narrowed
from torchlasso.data.image_decoding import ImageDecoder
from torchlasso.data.image_part import part_of_kept
from torchlasso.data.images import BYTES
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.precision import notes_of_coarse
from torchlasso.data.records import Labels, Part
from torchlasso.data.roles import Roles, part_of, roles_of
from torchlasso.data.stored.cache import kept_file, key_of
from torchlasso.data.stored.columnar import Columnar
from torchlasso.data.stored.frame import StoredFrame
from torchlasso.data.stored.images import ArrowImages, EncodedImages, ImageFiles, ImageSource, write_images
from torchlasso.data.stored.options import StreamOptions
from torchlasso.data.stored.texts import StoredTexts, stored_text_columns
from torchlasso.data.tables import encoded_images, image_columns, is_image, refuse_other_roles
from torchlasso.data.texts_in_tables import is_text, notes_of, refuse_other_types

VALUE = 20  # bytes of memory for a value of a table, with the copies that are made while it is read
TEXT = 4  # bytes of memory for a byte of text: itself, a string of Python, and the numbers of its words, twice


def stored_table_part(table: Columnar, columns: ColumnSelection, stream: StreamOptions) -> Part:
    """Make a part of a table on a disk, as :func:`~torchlasso.data.tables.table_part` does of one in memory.

    Labels, groups and times are read into memory.

    Raises:
        ValueError: the table cannot be used; the message says why.
    """
    pa, origin = require("pyarrow", "data", "reading tables"), table.origin
    if not table.count:
        raise ValueError(f"{origin}: no rows; at least one is needed")
    roles = roles_of(pa, table.select, table.names, columns, origin)
    roles = roles if roles.y is None else replace(roles, y=narrowed(roles.y))
    pa.default_memory_pool().release_unused()  # what whole columns took
    if pictures := image_columns(pa, table.schema, roles.inputs, origin):
        source = _images_of(table, pictures[0])
        return stored_images_part(source, columns, stream, roles)
    if not roles.inputs:
        raise ValueError(f"{origin}: there are no columns besides the label; at least one is needed")
    if read := columns.text or stored_text_columns(table, roles.inputs):
        return _text_part(table, read, roles)
    frame = StoredFrame(table, roles.inputs, tuple(name for name in columns.categories if name in roles.inputs))
    pa.default_memory_pool().release_unused()
    return part_of(frame, roles, frame.names, notes_of_coarse(frame.coarse))


def _text_part(table: Columnar, read: tuple[str, ...], roles: Roles) -> Part:
    """Make a part of columns of texts, as :func:`~torchlasso.data.tables.text_part` does of those in memory."""
    refuse_other_roles(read, roles, table.origin)
    refuse_other_types(require("pyarrow", "data", "reading texts"), table.schema, read, table.origin)
    texts = StoredTexts(table, read)
    notes = notes_of(texts.empty(), table.count, read, roles.inputs, table.origin)
    return part_of(texts, roles, notes=tuple(notes))


def stored_files_part(paths: Sequence[Path], columns: ColumnSelection, stream: StreamOptions, y: Labels | None) -> Part:
    """Make a part of files of images."""
    return stored_images_part(ImageFiles(paths), columns, stream, Roles(y), tuple(map(str, paths)))


def stored_images_part(
    source: ImageSource,
    columns: ColumnSelection,
    stream: StreamOptions,
    roles: Roles,
    names: tuple[str, ...] = (),
) -> Part:
    """Make a part of encoded images, and leave out the labels of those that cannot be read."""
    x = EncodedImages(source, columns.images, stream.workers)
    return part_of_kept(x, x, roles, names)


def memory_of(table: Columnar, columns: ColumnSelection) -> int:
    """Return the bytes of memory that reading a whole table takes, about."""
    pa = require("pyarrow", "data", "reading tables")
    left = [name for name in table.names if name not in columns.ignore]
    pictures = [name for name in left if is_image(pa, table.schema.field(name).type)]
    if not pictures or not table.count:
        has_texts = any(is_text(pa, table.schema.field(name).type) for name in left)
        return VALUE * table.count * len(left) + TEXT * table.size * has_texts
    column = next(table.batches(pictures[:1])).column(0)
    first = next(encoded_images(column, pictures[0], table.origin, table.has_paths))
    return table.size + memory_of_images(table.count, first, columns)


def memory_of_images(count: int, first: bytes | Path, columns: ColumnSelection) -> int:
    """Return the bytes of memory that images like the first one take, about."""
    return count * BYTES * ImageDecoder(columns.images).bytes_of(first)


def _images_of(table: Columnar, name: str) -> ArrowImages:
    """Return the images of a column, in a file from which any can be read."""

    def some() -> Iterator[list[bytes]]:
        first = 0
        for batch in table.batches([name]):
            images = encoded_images(batch.column(0), name, table.origin, table.has_paths, first)
            yield [each if isinstance(each, bytes) else each.read_bytes() for each in images]
            first += batch.num_rows

    write = partial(write_images, some())
    path = kept_file(key_of("images", table.state, name), ".arrow", write, table.size, table.origin)
    return ArrowImages(path, table.origin, [table.state, name])
