"""Loads samples as arrays of one size, decoded in threads, in the order of the samples.

Files are decoded nowhere else, so loading training images, test images and masks before training
(`lazy.digests`) ensures that every file is sound.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from tqdm.auto import tqdm

from adtr_jax.config import Bits
from adtr_jax.data.decode import decoding
from adtr_jax.data.image_file import open_image
from adtr_jax.data.lazy import PART
from adtr_jax.data.samples import Sample

_Result = TypeVar("_Result")


def load_images(
    samples: Sequence[Sample], size: int, crop: float = 1.0, bits: Bits | None = None
) -> UInt8[np.ndarray, "n {size} {size} 3"]:
    """Load the images as RGB, at `size` x `size` by Pillow's bilinear filter.

    Args:
        size: Side s of the result in pixels.
        crop: The share of each side that is kept, as `resized` does.
        bits: How many bits of 16-bit images are used (`bit_depth`); None: they have 8.

    Returns:
        Values in 0..255.

    Raises:
        InputError: for the first file, in the order of `samples`, that `decode_image` rejects.
    """

    def load(sample: Sample) -> UInt8[np.ndarray, "s s 3"]:
        with decoding(open_image(sample.image), bits) as image:
            return resized(image, size, crop)

    images = np.empty((len(samples), size, size, 3), np.uint8)
    for index, image in enumerate(in_threads(load, samples, "image")):
        images[index] = image
    return images


def resized(image: Image.Image, size: int, crop: float) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """What a model sees of a decoded image: RGB at `size` x `size` by Pillow's bilinear filter.

    The filter averages over the pixels it shrinks. The aspect ratio is not kept. The image is
    resized to `size / crop`, rounded, and its centre is cut out (`centre_crop`).

    Args:
        image: Of mode "RGB" or "L" and any size.
        size: Side s of the result in pixels.
        crop: The share of each side that is kept, above 0 and at most 1.

    Returns:
        Values 0 to 255.
    """
    return np.asarray(_centre(image, size, crop).convert("RGB"))


def centre_crop(size: int, crop: float) -> tuple[int, int]:
    """The side of the whole image in pixels of which `size` are kept, and those cut off before."""
    whole = round(size / crop)
    return whole, (whole - size) // 2


def in_threads(
    load: Callable[[Sample], _Result], samples: Sequence[Sample], noun: str
) -> Iterator[_Result]:
    """Yield `load(sample)` in order; Pillow decodes and resizes without holding the GIL."""
    pool = ThreadPoolExecutor()
    try:
        results = pool.map(load, samples)
        few = len(samples) <= PART or None  # None: where no one looks at it
        yield from tqdm(
            results, f"Reading {noun}s", len(samples), unit=noun, leave=False, disable=few
        )
    finally:
        # After an error or Ctrl-C the rest need not be read.
        pool.shutdown(cancel_futures=True)


def _centre(image: Image.Image, size: int, crop: float) -> Image.Image:
    """The image at `size / crop`, of which the centre is kept."""
    whole, before = centre_crop(size, crop)
    scaled = image.resize((whole, whole), Image.Resampling.BILINEAR)
    return scaled.crop((before, before, before + size, before + size))
