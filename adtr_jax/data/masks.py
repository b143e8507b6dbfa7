"""Masks at the score maps' size, and what becomes of small defects there."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from adtr_jax.config import MaskFilter
from adtr_jax.data.image_file import upright_size
from adtr_jax.data.images import centre_crop, in_threads
from adtr_jax.data.mask_file import decode_mask
from adtr_jax.data.samples import Sample
from adtr_jax.errors import InputError

_TOUCHING = np.ones((3, 3), bool)  # at a side or a corner


class Found(NamedTuple):
    """What there is of each image's defect regions in its mask at the score maps' size.

    Attributes:
        share: how much of the mask is marked, 0 to 1.
        lost: regions that nearest neighbour loses. If they are kept, they are marked.
        cut: regions that lie outside the centre that is kept of the image.
    """

    share: Float[np.ndarray, " n"]
    lost: Int[np.ndarray, " n"]
    cut: Int[np.ndarray, " n"]

    @classmethod
    def none(cls) -> "Found":
        """That of no images."""
        return cls(np.zeros(0), np.zeros(0, int), np.zeros(0, int))

    def warnings(
        self, samples: Sequence[Sample], size: int, mask_filter: MaskFilter
    ) -> Iterator[str]:
        """What to know before anything is measured, a line each.

        Args:
            samples, size, mask_filter: what `load_masks` was given.
        """
        anomalous = [index for index, sample in enumerate(samples) if sample.label]
        if mask_filter == "nearest" and self.lost.any():
            yield (
                f"{_regions(self.lost, samples)} vanish at {size} x {size} pixels by nearest "
                "neighbour, and count as normal: leave out --mask_filter=nearest, or take a larger "
                "--image_size"
            )
        if self.cut.any():
            yield (
                f"{_regions(self.cut, samples)} lie outside the centre that --crop keeps, and are "
                "not measured: --crop=1 keeps all of an image"
            )
        if not self.share.any():
            yield (
                "no pixel is marked in any mask at the score maps' size, so there are no pixel "
                "metrics"
            )
        elif (self.share[anomalous] > 0.5).all():
            yield (
                "over half of the image is marked in every mask, as in "
                f"{samples[anomalous[0]].mask}: if the defects are black in them, invert the masks"
            )


class Masks(NamedTuple):
    """Masks at the score maps' size; True is anomalous."""

    marked: Bool[np.ndarray, "n s s"]
    found: Found


class Shrunk(NamedTuple):
    """As `Masks` and `Found`, of one image."""

    marked: Bool[np.ndarray, "s s"]
    lost: int
    cut: int


def load_masks(
    samples: Sequence[Sample], size: int, crop: float = 1.0, mask_filter: MaskFilter = "keep"
) -> Masks:
    """Loads the masks at `size` x `size` (see `shrunk`).

    Args:
        samples: the anomalous ones must have a mask (`Category.has_masks`).
        size, crop: as in `load_images`.
        mask_filter: what becomes of regions that nearest neighbour loses.

    Returns:
        All False for a normal sample.

    Raises:
        InputError: for the first file, in the order of `samples`, that `decode_mask` rejects or
            whose size differs from its image's; or for an anomalous sample without a mask.
    """

    def load(sample: Sample) -> Shrunk:
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
        return shrunk(marked, size, crop, mask_filter)

    n = len(samples)
    marked, lost, cut = np.zeros((n, size, size), bool), np.zeros(n, int), np.zeros(n, int)
    anomalous = [index for index, sample in enumerate(samples) if sample.label]
    drawn = in_threads(load, [samples[index] for index in anomalous], "mask")
    for index, mask in zip(anomalous, drawn, strict=True):
        marked[index], lost[index], cut[index] = mask
    return Masks(marked, Found(marked.mean((1, 2)), lost, cut))


def _regions(counts: Int[np.ndarray, " n"], samples: Sequence[Sample]) -> str:
    found = np.flatnonzero(counts)
    total, images = int(counts.sum()), len(found)
    return (
        f"{total} defect region{'s' * (total != 1)} in {images} image{'s' * (images != 1)} "
        f"(the first is {samples[found[0]].mask})"
    )


def shrunk(
    marked: Bool[np.ndarray, "h w"], size: int, crop: float, mask_filter: MaskFilter
) -> Shrunk:
    """Brings a mask to the score map's size by nearest neighbour, as an image by `images.resized`.

    A region is of marked pixels that touch at a side or a corner. Nearest neighbour takes one pixel
    of many, and loses a region of which it takes none.

    Args:
        marked: the mask at the image's size.
        size: side s of the result.
        crop: the share of each side that is kept.
        mask_filter: keep: what touches a lost region is marked, too; nearest: it stays lost.
    """
    whole, before = centre_crop(size, crop)
    kept = slice(before, before + size)
    rows, columns = (_nearest(length, whole) for length in marked.shape)
    found = marked[rows[kept, None], columns[kept]]
    if max(marked.shape) <= whole == size:
        return Shrunk(found, 0, 0)  # every pixel is taken
    from scipy import ndimage  # takes a quarter of a second, and prediction needs no masks

    regions, count = ndimage.label(marked, _TOUCHING)
    spans = [_spans(length, whole)[kept] for length in marked.shape]
    (top, bottom), (left, right) = ((span[0, 0], span[-1, 1]) for span in spans)
    taken = _among(regions[rows[:, None], columns], count)
    shown = _among(regions[rows[kept, None], columns[kept]], count)
    lost = ~taken & _among(regions[top:bottom, left:right], count)
    if lost.any() and mask_filter == "keep":
        found = found | _touched(lost[regions], *spans)
    return Shrunk(found, int(lost.sum()), int((~shown & ~lost).sum()))


def _among(regions: Int[np.ndarray, "h w"], count: int) -> Bool[np.ndarray, " m"]:
    """Which of the numbers 0 to `count` there are; always 0, which is no region."""
    there = np.zeros(count + 1, bool)
    there[regions] = True
    there[0] = True
    return there


def _nearest(length: int, whole: int) -> Int[np.ndarray, " whole"]:
    """Which of `length` pixels Pillow's nearest neighbour takes for each of `whole`."""
    line = Image.fromarray(np.arange(length, dtype=np.int32)[None])
    return np.asarray(line.resize((whole, 1), Image.Resampling.NEAREST))[0]


def _spans(length: int, whole: int) -> Int[np.ndarray, "whole 2"]:
    """The first of `length` pixels that each of `whole` touches, and the one after the last."""
    edges = np.arange(whole + 1) * length
    return np.stack([edges[:-1] // whole, -(-edges[1:] // whole)], axis=1)


def _touched(
    marked: Bool[np.ndarray, "h w"], rows: Int[np.ndarray, "s 2"], columns: Int[np.ndarray, "s 2"]
) -> Bool[np.ndarray, "s s"]:
    """Which pixels of the result touch a marked one."""
    lines = np.stack([marked[first:end].any(0) for first, end in rows])
    return np.stack([lines[:, first:end].any(1) for first, end in columns], axis=1)
