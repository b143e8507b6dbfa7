"""Opens one image file by Pillow, within limits of pixels and of memory, and without its noise.

A file of some kilobytes may hold millions of pixels, so limits are on what is decoded: on the
pixels of an image, and on the memory of all images that are being decoded at the same time.
"""

import ctypes
import io
import logging
import math
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile
from PIL.ExifTags import Base as ExifTag

from adtr_jax.data.budget import Budget
from adtr_jax.data.samples import File
from adtr_jax.errors import InputError, one_line

MEGAPIXELS = 150.0  # of one image; the largest industrial and medium-format cameras have as many
LIMIT = "ADTR_JAX_MEGAPIXELS"  # the environment variable that sets another limit
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

# Pillow's log and libtiff's handlers write to stderr what is wrong with a file, without its name.
# What is wrong enough for the image not to be decoded is an exception, too.
logging.getLogger("PIL").addHandler(logging.NullHandler())
with suppress(AttributeError, OSError):  # where libtiff is linked into Pillow it cannot be reached
    for _handler in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        getattr(ctypes.CDLL(Image.core.__file__), _handler)(None)


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
        with _naming(self.file), _quiet():
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
    _require_regular(file)
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(file.open("rb"))
        except OSError as error:
            raise _unreadable(file, error) from error
        yield _opened(file, stream, b"")


def upright_size(file: File) -> tuple[int, int]:
    """The decoded image's width and height, from the file's header alone.

    Raises:
        InputError: as `open_image`.
    """
    with image_header(file) as opened:
        return opened.size


def read_bytes(file: File) -> bytes:
    """The bytes of a file.

    Raises:
        InputError: it cannot be read, or is a pipe or device, which may never end; or it is larger
            than any image within the limit on pixels.
    """
    if isinstance(file, Path):
        _require_regular(file)
    try:
        return file.read_bytes()
    except OSError as error:
        raise _unreadable(file, error) from error


def limit_on_pixels() -> float:
    """The pixels that an image may have.

    Raises:
        InputError: the environment variable is no positive number.
    """
    text = os.environ.get(LIMIT, "")
    try:
        limit = float(text) if text else MEGAPIXELS
    except ValueError:
        limit = 0
    if not limit > 0:
        raise InputError(f"{LIMIT}={text} is no number of megapixels above 0: correct it")
    return 1e6 * limit


def _require_regular(path: Path) -> None:
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        # Reading a pipe would wait for ever, and reading a device need not end.
        raise InputError(f"{path} is neither a file nor a folder: leave it out")
    if found.st_size > 8 * limit_on_pixels():
        raise InputError(
            f"{path} has {found.st_size:,} bytes, more than any image of {_limit()} has: cut it or "
            f"scale it down, or set {LIMIT} to more"
        )


def _unreadable(file: File, error: OSError) -> InputError:
    return InputError(f"cannot read {file}: {error.strerror or error}")


def _limit() -> str:
    return f"{limit_on_pixels() / 1e6:g} megapixels"


def _opened(file: File, stream: io.BytesIO | io.BufferedReader, data: bytes) -> OpenedImage:
    with _naming(file), _within_memory(file), _quiet():
        header = _open(stream)
        orientation = _orientation(header)
    width, height = header.size
    pixels = width * height
    if pixels > limit_on_pixels():
        raise InputError(
            f"{file} is too large ({width} x {height} pixels, and the limit is {_limit()}): cut it "
            f"or scale it down, or set {LIMIT}={math.ceil(pixels / 1e6)}"
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


class _Quiet:
    """Without Pillow's warnings and its limit on pixels, while any thread is in such a block.

    Both are settings of the whole process, which the first to enter changes and the last restores.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._restore: Callable[[], None] = lambda: None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._change()
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._restore()

    def _change(self) -> None:
        stack = ExitStack()
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"PIL\.")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None

        def restore() -> None:
            Image.MAX_IMAGE_PIXELS = limit
            stack.close()

        self._restore = restore


_quiet = _Quiet()
