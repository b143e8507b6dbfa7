"""CutPaste: a piece of the image, its colours slightly changed, pasted elsewhere in the image.

Li et al., "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization", CVPR 2021.
"""

import numpy as np
from jaxtyping import UInt8

from adtr_jax.data.lazy import LazyArray
from adtr_jax.data.synthetic.pixels import recolour

AREA = (0.02, 0.15)  # of a patch, as a fraction of the image
NARROWEST = 0.3  # aspect ratio, height by width, uniform in [0.3, 1] or in [1, 1 / 0.3]
# Of a scar, in pixels of an image of side 256; they scale with s.
SIDE, WIDTH, LENGTH = 256, (2, 16), (10, 25)
MAX_ANGLE = np.pi / 4
JITTER = 0.1  # turns, factors about 1, and a fraction of 255


def draw(
    rng: np.random.Generator,
    image: UInt8[np.ndarray, "s s 3"],
    earlier: UInt8[np.ndarray | LazyArray, "k s s 3"],
) -> UInt8[np.ndarray, "s s 3"]:
    """Paste a patch or, with equal probability, a scar: thin, long and rotated by up to 45 degrees.

    The patch lies inside the image; a rotated scar may lose a corner at the image's edge.
    """
    del earlier
    size = len(image)
    if rng.random() < 0.5:
        (h, w), angle = _patch_sides(rng, size), 0.0
    else:
        (h, w), angle = _scar_sides(rng, size), rng.uniform(-MAX_ANGLE, MAX_ANGLE)
    y, x = rng.integers((size - h + 1, size - w + 1))
    piece = recolour(
        image[y : y + h, x : x + w],
        turn=rng.uniform(-JITTER, JITTER),
        saturation=rng.uniform(1 - JITTER, 1 + JITTER),
        contrast=rng.uniform(1 - JITTER, 1 + JITTER),
        brightness=255 * rng.uniform(-JITTER, JITTER),
    )
    y, x = rng.integers((size - h + 1, size - w + 1))
    return _paste(image, piece, (y + h / 2, x + w / 2), angle)


def _patch_sides(rng: np.random.Generator, size: int) -> tuple[int, int]:
    aspect = rng.uniform(NARROWEST, 1) if rng.random() < 0.5 else rng.uniform(1, 1 / NARROWEST)
    area = rng.uniform(*AREA) * size**2
    return round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))


def _scar_sides(rng: np.random.Generator, size: int) -> tuple[int, int]:
    length, width = rng.uniform(*LENGTH) * size / SIDE, rng.uniform(*WIDTH) * size / SIDE
    return max(1, round(length)), max(1, round(width))


def _paste(
    image: UInt8[np.ndarray, "s s 3"],
    piece: UInt8[np.ndarray, "h w 3"],
    centre: tuple[float, float],
    angle: float,
) -> UInt8[np.ndarray, "s s 3"]:
    """Return a copy of `image` with `piece` at `centre`, rotated by `angle` radians (nearest)."""
    h, w, _ = piece.shape
    y, x = np.ogrid[: len(image), : len(image)]
    y, x = y + 0.5 - centre[0], x + 0.5 - centre[1]
    row = np.floor(np.cos(angle) * y + np.sin(angle) * x + h / 2).astype(int)
    column = np.floor(np.cos(angle) * x - np.sin(angle) * y + w / 2).astype(int)
    inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
    result = image.copy()
    result[inside] = piece[row[inside], column[inside]]
    return result
