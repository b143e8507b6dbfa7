"""Image files that Pillow does not write: of 16 bits in colour, or claiming what is not there."""

import struct
import zlib
from pathlib import Path

import numpy as np


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(path: Path, header: tuple[int, int, int, int], *chunks: bytes) -> Path:
    """Writes a PNG of width, height, bits and colour type, and of these chunks."""
    parts = (png_chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)), *chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + png_chunk(b"IEND", b""))
    return path


def sixteen_bit_png(path: Path, samples: np.ndarray) -> Path:
    """Writes a 16-bit PNG: [h w] grey, [h w 3] RGB or [h w 4] RGBA."""
    height, width = samples.shape[:2]
    kind = {2: 0, 3: 2}[samples.ndim] if samples.shape[2:] != (4,) else 6
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return png(path, (width, height, 16, kind), png_chunk(b"IDAT", zlib.compress(rows)))


def tiff(
    path: Path, samples: np.ndarray, order: str = "<", *, packed: bool = False, side: int = 0
) -> Path:
    """Writes [h w 3] values of 8 or 16 bits as a TIFF file of one strip.

    Args:
        order: of the bytes, "<" or ">".
        packed: compress by deflate, which Pillow leaves to libtiff.
        side: what the header claims to be the width and height, if not 0.
    """
    height, width = samples.shape[:2]
    raw = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    raw = zlib.compress(raw) if packed else raw
    begin = 8 + 2 + 12 * 9 + 4
    values = {
        **{256: side or width, 257: side or height, 258: begin, 259: 8 if packed else 1, 262: 2},
        **{273: begin + 6, 277: 3, 278: side or height, 279: len(raw)},
    }
    entries = b""
    for tag, value in values.items():
        entries += struct.pack(
            f"{order}HHII", tag, 3 if tag == 258 else 4, 3 if tag == 258 else 1, value
        )
    bits = struct.pack(f"{order}3H", *(8 * samples.itemsize,) * 3)
    mark = b"II" if order == "<" else b"MM"
    path.write_bytes(
        mark + struct.pack(f"{order}HIH", 42, 8, len(values)) + entries + bytes(4) + bits + raw
    )
    return path
