"""Images in a page: PNG files as text, made with the standard library only."""

from __future__ import annotations

import base64
import struct
import zlib
from html import escape


def png(width: int, height: int, pixels: bytes) -> bytes:
    """Encode a PNG file; ``pixels``: red, green, blue and opacity of each pixel, row by row.

    >>> png(1, 1, bytes([255, 0, 0, 255]))[:8]
    b'\\x89PNG\\r\\n\\x1a\\n'
    """
    if len(pixels) != 4 * width * height:
        raise ValueError(f"a picture of {width}×{height} has {4 * width * height} numbers; got {len(pixels)}")
    rows = b"".join(b"\0" + pixels[i : i + 4 * width] for i in range(0, len(pixels), 4 * width))
    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)  # 8 bits for each of the four channels
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, chunks))


def _chunk(entry: tuple[bytes, bytes]) -> bytes:
    kind, data = entry
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def picture(width: int, height: int, pixels: bytes, label: str, scale: int = 1) -> str:
    """Make an image as an element of a page.

    Args:
        width, height, pixels: see :func:`png`.
        label: a description of the image, in words and numbers.
        scale: the number of screen pixels along each side of a pixel, if there is room.
    """
    data = base64.b64encode(png(width, height, pixels)).decode("ascii")
    size = f'width="{scale * width}" height="{scale * height}"'
    return f'<img src="data:image/png;base64,{data}" alt="{escape(label)}" {size}>'
