"""Decodes an image to 8-bit RGB or grey.

Images are turned upright by their EXIF orientation, as viewers show them and as masks are drawn on
them; an orientation that makes no sense is ignored. Of several frames or pages the first is used.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from adtr_jax.config import Bits
from adtr_jax.data import bit_depth
from adtr_jax.data.image_file import OpenedImage, open_image
from adtr_jax.data.samples import File
from adtr_jax.errors import InputError

_BAND = 2**22  # pixels that are blended at a time


def decode_image(file: File, bits: Bits | None = None) -> Image.Image:
    """Decodes an image to mode "RGB", or "L" if it is grey, with 8 bits a channel.

    Transparent pixels are blended with black, because the colours that editors store under a
    transparent background are arbitrary.

    Args:
        file: the image.
        bits: how many bits of a 16-bit image are used (`bit_depth`); None: it is one of 8 bits.

    Raises:
        InputError: the file cannot be read or decoded, exceeds the limit on pixels, is of another
            depth, or holds 32-bit integers or floats, whose range is unknown.
    """
    with decoding(open_image(file), bits) as image:
        return image


@contextmanager
def decoding(opened: OpenedImage, bits: Bits | None = None) -> Iterator[Image.Image]:
    """As `decode_image`; holds the memory for the image until the block ends."""
    sixteen = bit_depth.is_16_bit(opened.header.mode, opened.raw_mode)
    bit_depth.require(sixteen, bits, opened.file)
    raw_modes = bit_depth.raw_modes(opened, bits)
    with opened.decoded(raw_modes, work=16 if raw_modes else 4) as (upper, *lower):
        whole = bit_depth.colour(upper, lower[0], bits, opened.file) if lower and bits else upper
        yield eight_bit(whole, bits, opened.file)


def eight_bit(image: Image.Image, bits: Bits | None, name: object) -> Image.Image:
    """A decoded image as `decode_image` returns it.

    Raises:
        InputError: as `decode_image`; `name` is the image's in its message.
    """
    if image.mode.startswith("I;16"):
        bit_depth.require(True, bits, name)
        assert bits is not None
        return Image.fromarray(bit_depth.eight_bits(np.asarray(image), bits, name))
    if image.mode in ("I", "F"):
        raise InputError(
            f"{name} holds 32-bit values, whose range is unknown: convert it to 8 or 16 bits"
        )
    if image.has_transparency_data:
        return _on_black(image, name)
    return image if image.mode in ("L", "RGB") else convert(image, "RGB", name)


def convert(image: Image.Image, mode: str, name: object) -> Image.Image:
    """Converts to another mode; raises InputError where there is no way."""
    try:
        return image.convert(mode)
    except ValueError as error:
        raise InputError(
            f"{name} has the colour mode {image.mode}, which cannot be converted: save it as RGB"
        ) from error


def _on_black(image: Image.Image, name: object) -> Image.Image:
    """Blends a transparent image with black, band by band: in one piece it takes thrice as much."""
    blended = Image.new("RGB", image.size)
    width, height = image.size
    rows = max(1, _BAND // width)
    for top in range(0, height, rows):
        band = convert(image.crop((0, top, width, min(top + rows, height))), "RGBA", name)
        black = Image.new("RGBA", band.size, (0, 0, 0, 255))
        blended.paste(Image.alpha_composite(black, band).convert("RGB"), (0, top))
    return blended
