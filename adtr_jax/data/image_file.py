"""Opens one image file by Pillow, within limits of pixels and of memory, and without its noise.

A file of some kilobytes may hold millions of pixels, so limits are on what is decoded: on the
pixels of an image, and on the memory of all images that are being decoded at the same time.
"""

import io
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile
from PIL.ExifTags import Base as ExifTag

from adtr_jax.data.budget import Budget
from adtr_jax.data.encoded import (
    LIMIT,
    limit_on_pixels,
    megapixels,
    read_bytes,
    require_regular,
    unreadable,
)
from adtr_jax.data.quiet_pillow import quiet
from adtr_jax.data.samples import File
from adtr_jax.errors import InputError, one_line

MEMORY = 2**31  # bytes, of all images that are being decoded

# The only Pillow decoders applied to a user's file, whatever its suffix.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# What one byte of a file can become at most, in bytes, by compression; those that are not listed
# know no bound. JPEG spends a bit at least on a block of 64 pixels.
_EXPANSION = {
    **{"PNG": 1032, "JPEG": 1024, "BMP": 1, "raw": 1, "packbits": 64, "tiff_lzw": 4096},
    **{"tiff_adobe_deflate": 1032, "tiff_deflate": 1032, "jpeg": 1024},
}
# Bits that a pixel of a mode takes at least in a file.
_BITS = {"1": 1, "P": 1, "L": 2, "I;16": 12, "I;16B": 16, "RGB": 15}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_budget = Budget(MEMORY)


@dataclass(eq=False)
class OpenedImage:
    """An image of which the header has been read, and nothing decoded.

    Attributes:
        file: where it comes from, for messages.
        data: the file's bytes.
        header: the image as Pillow opens it.
        orientation: EXIF's, 1 to 8.
    """

    file: File
    data: bytes = field(repr=False)
    header: ImageFile.ImageFile
    orientation: int

    @property
    def format(self) -> str:
        """Pillow's name of the format."""
        return str(self.header.format)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright image."""
        width, height = self.header.size
        # Pillow reports those of an upright TIFF.
        turned = self.orientation >= 5 and self.format != "TIFF"
        return (height, width) if turned else (width, height)

    @property
    def raw_mode(self) -> str:
        """Pillow's name of how the pixels lie in the file; "" where there is none."""
        args = self.header.tile[0].args if self.header.tile else None
        return str(args[0] if isinstance(args, tuple) else args or "")

    @contextmanager
    def decoded(
        self, raw_modes: tuple[str, ...] = (), work: int = 4
    ) -> Iterator[list[Image.Image]]:
        """Decodes the image, upright, and holds the memory for it until the block ends.

        Args:
            raw_modes: decode the file once for each of these, as if it were written so; default:
                once, as it is.
            work: bytes a pixel that are needed in the block beside the image.

        Raises:
            InputError: the file is corrupt or there is not enough memory.
        """
        width, height = self.size
        need = width * height * (self._bytes_a_pixel() + work) + len(self.data)
        with _budget.of(need), _within_memory(self.file):
            yield [self._load(raw_mode) for raw_mode in raw_modes or ("",)]

    def _bytes_a_pixel(self) -> int:
        """What decoding takes: the image, and what its decoder needs beside it."""
        if self.format == "WEBP":
            return 16  # as measured: the canvases of an animation, and a copy
        return 12 if "progressive" in self.header.info else 8

    def _load(self, raw_mode: str) -> Image.Image:
        with _naming(self.file), quiet():
            image = _open(io.BytesIO(self.data))
            if image.mode in ("P", "PA") and image.palette is None:
                raise ValueError("colours of a palette that it lacks")
            if raw_mode:
                image.tile = [
                    tile._replace(args=_read_as(raw_mode, tile.args)) for tile in image.tile
                ]
            if self.format == "TIFF":
                # Pillow would turn the image, and fail at metadata that make no sense.
                image.load_end = lambda: None  # type: ignore[method-assign]
            image.load()
            turn = _TURNS.get(self.orientation)
            return image if turn is None else image.transpose(turn)


def open_image(file: File) -> OpenedImage:
    """Reads a file and the header of the image in it.

    Raises:
        InputError: the file cannot be read, is no image or corrupt, has more pixels than the limit,
            or fewer bytes than so many pixels take.
    """
    data = read_bytes(file)
    if not data:
        raise InputError(f"{file} is empty: replace it or remove it")
    return _opened(file, io.BytesIO(data), data)


@contextmanager
def image_header(file: File) -> Iterator[OpenedImage]:
    """Opens an image to look at its header alone: of a file on disc, no more than that is read.

    Raises:
        InputError: as `open_image`.
    """
    if not isinstance(file, Path):
        yield open_image(file)
        return
    require_regular(file)
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(file.open("rb"))
        except OSError as error:
            raise unreadable(file, error) from error
        yield _opened(file, stream, b"")


def upright_size(file: File) -> tuple[int, int]:
    """The decoded image's width and height, from the file's header alone.

    Raises:
        InputError: as `open_image`.
    """
    with image_header(file) as opened:
        return opened.size


def _opened(file: File, stream: io.BytesIO | io.BufferedReader, data: bytes) -> OpenedImage:
    with _naming(file), _within_memory(file), quiet():
        header = _open(stream)
        orientation = _orientation(header)
    width, height = header.size
    pixels = width * height
    if pixels > limit_on_pixels():
        raise InputError(
            f"{file} is too large ({width} x {height} pixels, and the limit is {megapixels()}): "
            f"cut it or scale it down, or set {LIMIT}={math.ceil(pixels / 1e6)}"
        )
    if data and pixels * _BITS.get(header.mode, 16) > 8 * len(data) * _expansion(header):
        raise InputError(
            f"{file} is corrupt (it claims to be {width} x {height} pixels, which do not fit into "
            f"its {len(data):,} bytes): replace it or remove it"
        )
    return OpenedImage(file, data, header, orientation)


def _open(stream: io.BytesIO | io.BufferedReader) -> ImageFile.ImageFile:
    return Image.open(stream, formats=_FORMATS)


def _read_as(raw_mode: str, args: tuple[Any, ...] | str | None) -> tuple[Any, ...] | str:
    return (raw_mode, *args[1:]) if isinstance(args, tuple) else raw_mode


def _expansion(header: ImageFile.ImageFile) -> int | float:
    kind = str(header.info.get("compression") if header.format == "TIFF" else header.format)
    if header.format == "BMP" and header.tile[0].codec_name != "raw":
        return float("inf")
    return _EXPANSION.get(kind, float("inf"))


def _orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1 to 8, without decoding the pixels; 1 where it makes no sense."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # getexif() would decode the file to look for it after the pixels
    try:
        # Pillow reads those of a TIFF file with its header.
        tags = getattr(image, "tag_v2", None) or image.getexif()
        found = tags.get(ExifTag.Orientation, 1)
    except Exception:  # the parser of damaged metadata raises almost any type
        return 1
    return found if type(found) is int and 1 <= found <= 8 else 1


@contextmanager
def _naming(file: File) -> Iterator[None]:
    """Turns whatever Pillow raises of a file into an InputError that names it."""
    try:
        yield
    except MemoryError:
        raise
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f"{file} is not a png, jpg, bmp, tif or webp image: replace or remove it"
        ) from error
    except Exception as error:  # on corrupt bytes Pillow's decoders raise almost any type
        reason = one_line(error)
        raise InputError(f"{file} is corrupt ({reason}): replace it or remove it") from error


@contextmanager
def _within_memory(file: File) -> Iterator[None]:
    """Turns a MemoryError, which has no text, into an InputError that names the file."""
    try:
        yield
    except MemoryError:
        raise InputError(f"{file} is too large for the memory: scale it down") from None
