"""Decodes one mask: which pixels of an image are marked as anomalous."""

import numpy as np
from jaxtyping import Bool, Shaped
from PIL import Image

from adtr_jax.data.decode import convert
from adtr_jax.data.image_file import OpenedImage, open_image
from adtr_jax.data.samples import File
from adtr_jax.errors import InputError

# Pillow's names of formats, and of compressions in TIFF, that put small values around edges.
_LOSSY = ("JPEG", "jpeg", "tiff_jpeg", "webp")
# So many pixels between black and half of the maximum tell whether a mask is soft...
_FEW = 8
# ... which it is where such a share of them lies on a slope. Measured: 0.35 and more for JPEG saved
# as PNG and for whatever was resized or blurred, at most 0.04 for numbers of classes.
_SLOPING = 0.25


def decode_mask(file: File) -> Bool[np.ndarray, "h w"]:
    """Decodes a mask: True where a colour channel is above 0 and the pixel is not transparent.

    Where the values are no numbers of classes but soft, as those of a mask that was resized, or
    blurred, or compressed with losses, it is True above half of their maximum. A mask is soft if
    its file is compressed with losses, or if at least a quarter of the pixels up to that half lie
    on a slope: strictly between the smallest and the largest of their neighbours.

    Raises:
        InputError: as in `decode_image`, except for 32-bit values; and if no pixel is True.
    """
    opened = open_image(file)
    with opened.decoded(work=16) as (image,):
        values = _values(image, file)
        marked = values > _limit(values, lossy=_is_lossy(opened))
    if not marked.any():
        raise InputError(f"{file} marks no pixel: draw the defect in white, or move the image")
    return marked


def _values(image: Image.Image, file: File) -> Shaped[np.ndarray, "h w"]:
    """A mask's values; of colours the largest channel, and of transparent ones times opacity."""
    if image.mode.startswith("I") or image.mode in ("1", "L", "F"):
        return np.asarray(image)
    if not image.has_transparency_data:
        return np.asarray(convert(image, "RGB", file)).max(-1)
    rgba = np.asarray(convert(image, "RGBA", file))
    return rgba[..., :3].max(-1).astype(np.uint16) * rgba[..., 3]


def _is_lossy(opened: OpenedImage) -> bool:
    if opened.format == "WEBP":
        return b"VP8 " in opened.data[12:]
    return opened.format in _LOSSY or opened.header.info.get("compression") in _LOSSY


def _limit(values: Shaped[np.ndarray, "h w"], *, lossy: bool) -> float:
    """The value above which a pixel is marked."""
    from scipy import ndimage  # as in `masks`

    top = float(values.max())
    if lossy:
        return top / 2
    low = (values > 0) & (values <= top / 2)
    count = np.count_nonzero(low)
    if count < _FEW:
        return 0.0
    smallest, largest = (f(values, 3) for f in (ndimage.minimum_filter, ndimage.maximum_filter))
    sloping = np.count_nonzero(low & (smallest < values) & (values < largest))
    return top / 2 if sloping >= _SLOPING * count else 0.0
