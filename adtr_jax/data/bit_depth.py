"""How many bits of 16-bit images are used, which is a property of a category, and their 8-bit form.

Cameras of 10, 12 or 14 bits write their values into 16-bit files as they are: to read these as 16
bits leaves a few dark grey levels.
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Int, UInt8, UInt16
from PIL import Image

from adtr_jax.config import BITS, Bits
from adtr_jax.data.image_file import OpenedImage, image_header, open_image
from adtr_jax.data.samples import File
from adtr_jax.errors import InputError

# The raw modes of 16-bit colour, of which Pillow keeps the upper bytes, and those that keep the
# lower ones instead.
_LOWER = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBX", "RGBA")
    for order, other in ("BL", "LB", ("N", "B" if sys.byteorder == "little" else "L"))
}
_BAND = 2**22  # pixels that are converted at a time
EIGHT = 0  # the depth of an 8-bit file


def depth(file: File, bits: Bits | None = None) -> int:
    """The bits that an image uses: `EIGHT` for an 8-bit file, else the fewest of `BITS`.

    Args:
        file: of an 8-bit one the header alone is read.
        bits: taken for every 16-bit file, of which the header alone is read then, too.

    Raises:
        InputError: the file cannot be read.
    """
    with image_header(file) as opened:
        if not is_16_bit(opened.header.mode, opened.raw_mode):
            return EIGHT
    return fewest(open_image(file)) if bits is None else bits


def depths(files: Sequence[File], bits: Bits | None = None) -> Int[np.ndarray, " n"]:
    """`depth` of each; raises its InputError for the first file that cannot be read."""
    with ThreadPoolExecutor() as pool:
        return np.array(list(pool.map(lambda file: depth(file, bits), files)), int)


def common(found: Int[np.ndarray, " n"], names: Sequence[object], bits: Bits | None) -> Bits | None:
    """The bits of all images; None for 8-bit files.

    Args:
        found: `depth` of each.
        names: of the files, for messages.
        bits: what the user says, if anything.

    Raises:
        InputError: 8-bit files and others, or `bits` of 8-bit ones.
    """
    eight, sixteen = np.flatnonzero(found == EIGHT), np.flatnonzero(found != EIGHT)
    if len(eight) and len(sixteen):
        raise InputError(
            f"{names[eight[0]]} has 8 bits a channel and {names[sixteen[0]]} has 16: convert the "
            "images of a category to one depth"
        )
    if len(eight) and bits is not None:
        raise InputError(f"--bits={bits} is of 16-bit images, and {names[0]} has 8: leave it out")
    if not len(sixteen):
        return bits
    return bits or next(depth for depth in BITS if depth == found.max())


def describe(bits: Bits) -> str:
    """What is said of 16-bit images where a training begins."""
    return (
        f"16-bit images, of which {bits} bits are used (values up to {2**bits - 1:,}); "
        "--bits sets another number"
    )


def is_16_bit(mode: str, raw_mode: str = "") -> bool:
    """Whether an image has 16 bits a channel, by Pillow's names of how it and its file are."""
    return mode.startswith("I;16") or ";16" in raw_mode or ";12" in raw_mode


def fewest(opened: OpenedImage) -> int:
    """The fewest of `BITS` that hold the largest value of a 16-bit image."""
    with opened.decoded() as (image,):
        # Of colours Pillow has the upper bytes, which tell between the depths.
        values = np.asarray(image)
        grey = values.ndim == 2
        largest = int(values.max()) if grey else 256 * int(values[..., :3].max()) + 255
    return holding(largest)


def holding(value: int) -> Bits:
    """The fewest of `BITS` that hold a value."""
    return next(bits for bits in BITS if value < 2**bits)


def eight_bits(
    values: UInt16[np.ndarray, "h w *c"], bits: Bits, name: object
) -> UInt8[np.ndarray, "h w *c"]:
    """Scales values of `bits` bits to 8, each to the nearest.

    Raises:
        InputError: a value does not fit into the bits.
    """
    top = 2**bits - 1
    largest = int(values.max(initial=0))
    if largest > top:
        raise InputError(
            f"{name} has the value {largest:,}, and the images of its category are taken to have "
            f"{bits} bits, up to {top:,}: give images of the same camera, or train with "
            f"--bits={holding(largest)}"
        )
    table = ((2 * 255 * np.arange(top + 1) + top) // (2 * top)).astype(np.uint8)
    scaled = np.empty(values.shape, np.uint8)
    rows = max(1, _BAND // max(1, values[:1].size))
    for begin in range(0, len(values), rows):  # an index takes four times as much as a value
        scaled[begin : begin + rows] = table[values[begin : begin + rows]]
    return scaled


def require(sixteen: bool, bits: Bits | None, name: object) -> None:
    """Raises InputError for an 8-bit image among 16-bit ones, or the other way round."""
    if sixteen and bits is None:
        raise InputError(
            f"{name} has 16 bits a channel where 8 are expected: convert it, or train with "
            "--bits=12, or as many as the camera has"
        )
    if not sixteen and bits is not None:
        raise InputError(
            f"{name} has 8 bits a channel where 16-bit images are expected, of which {bits} bits "
            "are used: give images as the model was trained on"
        )


def raw_modes(opened: OpenedImage, bits: Bits | None) -> tuple[str, ...]:
    """How a 16-bit image in colour is to be decoded, twice: to its upper bytes, and to the lower.

    Pillow has no such images, and keeps the upper bytes, which are all of it at 16 bits: then, and
    for all other images, this is empty.

    Raises:
        InputError: it is in a form of which only the upper bytes can be read.
    """
    raw_mode = opened.raw_mode
    if bits in (None, 16) or opened.header.mode.startswith("I;16") or ";16" not in raw_mode:
        return ()
    if raw_mode not in _LOWER:
        raise InputError(
            f"{opened.file} holds 16-bit colours in a form of which only the upper 8 bits can be "
            f"read, and {bits} bits are used: convert it to 8 bits, or to RGB"
        )
    return raw_mode, _LOWER[raw_mode]


def colour(upper: Image.Image, lower: Image.Image, bits: Bits, name: object) -> Image.Image:
    """An 8-bit image of the two halves of a 16-bit one in colour; transparency is as it was."""
    high, low = (np.asarray(part)[..., :3].astype(np.uint16) for part in (upper, lower))
    scaled = Image.fromarray(eight_bits(high << 8 | low, bits, name))
    if upper.mode == "RGBA":
        scaled.putalpha(upper.getchannel("A"))
    return scaled
