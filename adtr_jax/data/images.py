"""Loads samples as arrays of one size, decoded in threads, in the order of the samples.

Files are decoded nowhere else, so loading training images, test images and masks before training
(`lazy.digests`) ensures that every file is sound.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image
from tqdm.auto import tqdm

from adtr_jax.data.decode import decode_image, decode_mask, upright_size
from adtr_jax.data.lazy import PART
from adtr_jax.data.samples import Sample
from adtr_jax.errors import InputError

_Result = TypeVar("_Result")


def load_images(
    samples: Sequence[Sample], size: int, crop: float = 1.0
) -> UInt8[np.ndarray, "n {size} {size} 3"]:
    """Load the images as RGB, at `size` x `size` by Pillow's bilinear filter.

    Args:
        size: Side s of the result in pixels.
        crop: The share of each side that is kept, as `resized` does.

    Returns:
        Values in 0..255.

    Raises:
        InputError: for the first file, in the order of `samples`, that `decode_image` rejects.
    """

    def load(sample: Sample) -> UInt8[np.ndarray, "s s 3"]:
        return resized(decode_image(sample.image), size, crop)

    images = np.empty((len(samples), size, size, 3), np.uint8)
    for index, image in enumerate(_in_threads(load, samples, "image")):
        images[index] = image
    return images


def load_masks(
    samples: Sequence[Sample], size: int, crop: float = 1.0
) -> Bool[np.ndarray, "n {size} {size}"]:
    """Load the masks, at `size` x `size` by nearest neighbour; True is anomalous.

    Args:
        samples: The anomalous ones must have a mask (`Category.has_masks`).
        size, crop: As in `load_images`.

    Returns:
        Masks; all False for a normal sample.

    Raises:
        InputError: for the first file, in the order of `samples`, that `decode_mask` rejects or
            whose size differs from its image's; or for an anomalous sample without a mask.
    """

    def load(sample: Sample) -> Bool[np.ndarray, "s s"]:
        if sample.mask is None:
            raise InputError(f"{sample.image} is anomalous and has no mask: add one")
        marked = decode_mask(sample.mask)
        height, width = marked.shape
        expected = upright_size(sample.image)
        if (width, height) != expected:
            raise InputError(
                f"{sample.mask} is {width} x {height} pixels, but its image {sample.image} is "
                f"{expected[0]} x {expected[1]}: draw the mask at the image's size"
            )
        return np.asarray(_centre(Image.fromarray(marked), size, crop, Image.Resampling.NEAREST))

    masks = np.zeros((len(samples), size, size), bool)
    anomalous = [index for index, sample in enumerate(samples) if sample.label]
    drawn = _in_threads(load, [samples[index] for index in anomalous], "mask")
    for index, mask in zip(anomalous, drawn, strict=True):
        masks[index] = mask
    return masks


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
    return np.asarray(_centre(image, size, crop, Image.Resampling.BILINEAR).convert("RGB"))


def centre_crop(size: int, crop: float) -> tuple[int, int]:
    """The side of the whole image in pixels of which `size` are kept, and those cut off before."""
    whole = round(size / crop)
    return whole, (whole - size) // 2


def _centre(image: Image.Image, size: int, crop: float, filter_: Image.Resampling) -> Image.Image:
    """The image at `size / crop`, of which the centre is kept."""
    whole, before = centre_crop(size, crop)
    scaled = image.resize((whole, whole), filter_)
    return scaled.crop((before, before, before + size, before + size))


def _in_threads(
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
