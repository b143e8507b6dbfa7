"""Decodes one file: an image to 8-bit RGB or grey, a mask to booleans.

Images are turned upright by their EXIF orientation (Pillow does so for TIFF itself), as viewers
show them and as masks are drawn on them. Of several frames or pages the first is used.
"""

import io

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageOps
from PIL.ExifTags import Base as ExifTag

from adtr_jax.data.samples import File
from adtr_jax.errors import InputError

# The only Pillow decoders applied to a user's file, whatever its suffix.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")


def decode_image(file: File) -> Image.Image:
    """Decode an image to mode "RGB", or "L" if it is grey, with 8 bits per channel.

    16-bit grey is scaled by 255/65535, so a camera's 12 bits in a 16-bit file come out dark: scale
    such images up beforehand. Transparent pixels are blended with black, because the colours that
    editors store under a transparent background are arbitrary.

    Raises:
        InputError: if the file cannot be read or decoded, exceeds Pillow's size limit, or holds
            32-bit integers or floats, whose range is unknown.
    """
    image = _decode(file)
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        return Image.fromarray(grey.astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InputError(
            f"{file} holds 32-bit values, whose range is unknown: convert it to 8 or 16 bits"
        )
    if image.has_transparency_data:
        colour = _convert(image, "RGBA", file)
        black = Image.new("RGBA", colour.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, colour).convert("RGB")
    return image if image.mode == "L" else _convert(image, "RGB", file)


def decode_mask(file: File) -> Bool[np.ndarray, "h w"]:
    """Decode a mask: True where a colour channel is above 0 and the pixel is not transparent.

    In a JPEG file, where compression spreads small values around edges, the threshold is 127.

    Raises:
        InputError: as in `decode_image`, except for 32-bit values; and if no pixel is True.
    """
    image = _decode(file)
    limit = 127 if image.format == "JPEG" else 0
    if image.mode.startswith("I") or image.mode in ("1", "L", "F"):
        marked = np.asarray(image) > limit
    else:
        rgba = np.asarray(_convert(image, "RGBA", file))
        marked = (rgba[..., :3] > limit).any(-1) & (rgba[..., 3] > 0)
    if not marked.any():
        raise InputError(f"{file} marks no pixel: draw the defect in white, or move the image")
    return marked


def upright_size(file: File) -> tuple[int, int]:
    """Return the decoded image's width and height, from the file's header alone.

    Raises InputError if the header cannot be read.
    """
    with _open(file) as image:
        width, height = image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


def _decode(file: File) -> Image.Image:
    with _open(file) as opened:
        turned = _orientation(opened) != 1
        try:
            opened.load()
        except Exception as error:  # on corrupt bytes Pillow's decoders raise almost any type
            raise _corrupt(file, error) from error
        if turned:
            ImageOps.exif_transpose(opened, in_place=True)
        return opened


def _open(file: File) -> Image.Image:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error
    if not data:
        raise InputError(f"{file} is empty: replace it or remove it")
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = str(error).split(",")[0]
        raise InputError(f"{file} is too large ({reason}): cut it or scale it down") from error
    except Exception as error:  # as in _decode
        raise _corrupt(file, error) from error


def _corrupt(file: File, error: Exception) -> InputError:
    if isinstance(error, Image.UnidentifiedImageError):
        return InputError(f"{file} is not a png, jpg, bmp, tif or webp image: replace or remove it")
    reason = " ".join(str(error).split())
    return InputError(f"{file} is corrupt ({reason}): replace it or remove it")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, without decoding the pixels."""
    if image.format == "TIFF":
        return 1  # Pillow turns TIFF upright, and reports the upright size
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # getexif() would decode the file to look for it after the pixels
    return int(image.getexif().get(ExifTag.Orientation, 1))


def _convert(image: Image.Image, mode: str, file: File) -> Image.Image:
    try:
        return image.convert(mode)
    except ValueError as error:
        raise InputError(
            f"{file} has the colour mode {image.mode}, which cannot be converted: save it as RGB"
        ) from error
