"""Where in an image its score map is above the threshold."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from adtr_jax.errors import InputError

# Of a noisy map only the largest peaks are kept: nobody looks at the hundred-and-first region.
MAX_REGIONS = 100
EIGHT_CONNECTED = np.ones((3, 3))


@dataclass(frozen=True)
class Region:
    """Pixels that touch at a side or a corner, all above the threshold.

    Attributes:
        box: (left, top, right, bottom) in pixels of the original image; right and bottom are the
            first column and row that are not in it.
        area: number of pixels of the original image, at least 1.
        peak: the largest raw score of the map in the region.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: float


def find_regions(
    score_map: Float[np.ndarray, "s s"],
    threshold: float,
    width: int,
    height: int,
    crop: float = 1.0,
) -> tuple[Region, ...]:
    """The 8-connected regions of the pixels above the threshold, the largest peak first.

    The map covers what the model saw: the image was resized to round(s / crop) pixels a side, and
    the s x s in its centre were kept. A pixel of the original image has the score of the map's
    pixel that its centre lies in. Where the image is smaller than the map, a pixel has the largest
    score of those that lie in it, so that no peak is lost.

    Args:
        score_map: raw scores, finite.
        threshold: `Decision.pixel_threshold`; a pixel that is tied with it is not in a region.
        width: of the original image, in pixels.
        height: of the original image, in pixels.
        crop: the share of each side that the map covers, in (0, 1].

    Returns:
        At most `MAX_REGIONS`, of largest peak; none if no pixel is above the threshold. Regions do
        not share pixels, so that their areas are at most width * height in all.

    Raises:
        InputError: scores that are NaN or infinite, an empty image, or a crop out of range.
    """
    _check(score_map, width, height, crop)
    scores = score_map.astype(np.float64)  # in float32 the threshold would be rounded
    if not (scores > threshold).any():
        return ()
    whole = round(len(scores) / crop)
    first_row, rows = _pixel_bounds(len(scores), whole, height)
    first_column, columns = _pixel_bounds(len(scores), whole, width)
    scores = np.maximum.reduceat(np.maximum.reduceat(scores, first_row, 0), first_column, 1)
    return _regions(scores, threshold, rows, columns)


def _regions(
    scores: Float[np.ndarray, "h w"],
    threshold: float,
    rows: Int[np.ndarray, " h+1"],
    columns: Int[np.ndarray, " w+1"],
) -> tuple[Region, ...]:
    """The regions of scores, each of which owns the pixels between two bounds in either axis."""
    labels, count = ndimage.label(scores > threshold, structure=EIGHT_CONNECTED)
    peaks = ndimage.maximum(scores, labels, np.arange(1, count + 1))
    areas = np.bincount(labels.ravel(), np.outer(np.diff(rows), np.diff(columns)).ravel())[1:]
    # The peaks from the largest down; of equal ones the first in reading order.
    kept = np.argsort(-np.asarray(peaks), kind="stable")[:MAX_REGIONS]
    boxes = ndimage.find_objects(labels)

    def region(i: int) -> Region:
        vertical, horizontal = boxes[i]
        corners = (
            columns[horizontal.start],
            rows[vertical.start],
            columns[horizontal.stop],
            rows[vertical.stop],
        )
        left, top, right, bottom = (int(corner) for corner in corners)
        return Region((left, top, right, bottom), int(areas[i]), float(peaks[i]))

    return tuple(region(i) for i in kept.tolist())


def _pixel_bounds(
    side: int, whole: int, length: int
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k+1"]]:
    """Groups of a map's columns (or rows), each of which owns pixels of the original image.

    Args:
        side: s, the columns of the map.
        whole: the columns of the whole image at the map's scale.
        length: the columns of the original image.

    Returns:
        The first column of the map in each of k groups, and the k + 1 bounds of the groups' pixels
        in the original image. A group is one column, or, where the original has fewer pixels than
        the map, all the columns in one pixel.
    """
    before = (whole - side) // 2
    columns = before + np.arange(side + 1)
    # Column x covers [a, b), a = x length / whole, and owns the pixels i with a <= i + 1/2 < b: the
    # first is ceil(a - 1/2), here in whole numbers.
    pixels = -((whole - 2 * columns * length) // (2 * whole))
    pixels[0] = min(pixels[0], length - 1)
    pixels[-1] = max(pixels[-1], pixels[0] + 1)  # of an image of a few pixels, one at least
    start = np.minimum(pixels[:-1], pixels[-1] - 1)
    first = np.flatnonzero(np.diff(start, prepend=-1))
    return first, np.append(start[first], pixels[-1])


def _check(score_map: Float[np.ndarray, "s s"], width: int, height: int, crop: float) -> None:
    if not np.isfinite(score_map).all():
        raise InputError(
            "a score map holds values that are NaN or infinite; a model that diverged gives such: "
            "train it again with a lower learning rate"
        )
    if width < 1 or height < 1:
        raise InputError(f"an image of {width} x {height} pixels is empty; give its original size")
    if not 0 < crop <= 1:
        raise InputError(f"a map that covers a share {crop} of its image; give one in (0, 1]")
