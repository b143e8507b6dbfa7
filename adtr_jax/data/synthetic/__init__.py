"""Anomalies drawn on normal images, with exact masks, for ADTR+ (Eq. 7).

A kind is a module here with a function `draw(rng, image, earlier) -> image`: images before the one
that gets the anomaly [k s s 3] may lend it texture. Masks are computed here, from
the pixels that changed. Nothing here imports JAX.
"""

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, UInt8

from adtr_jax.data.lazy import LazyArray, Rows
from adtr_jax.data.synthetic import confetti, cutpaste, perlin
from adtr_jax.errors import unknown

Kind = Literal["confetti", "cutpaste", "perlin"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# A pixel is anomalous if a channel changed by more than this, of 255. Smaller changes, such as the
# tails of a blur, are undone.
THRESHOLD = 8
# Least fraction of the pixels that an anomaly changes: 10 pixels at 224 px. The thinnest of
# CutPaste's scars has 3e-4; anything below remains of a piece pasted where it looks the same.
SMALLEST = 2e-4
# Maximum draws of an anomaly that is smaller, such as coloured confetti on a white image.
ATTEMPTS = 32

_DRAW: dict[str, Callable[[np.random.Generator, np.ndarray, Rows], np.ndarray]] = {
    "confetti": confetti.draw,
    "cutpaste": cutpaste.draw,
    "perlin": perlin.draw,
}


def synthesise(
    kind: str, images: UInt8[np.ndarray, "n s s 3"], seed: int
) -> tuple[UInt8[np.ndarray, "n s s 3"], Bool[np.ndarray, "n s s"]]:
    """Draw one anomaly, or a few of one kind, on a copy of each image.

    Image i has its own random stream, from `seed` and i, and depends on no later image: the first k
    results are those of the first k images alone. Separate calls for parts of a set need different
    seeds, or the i-th images of all parts get the same draw.

    Args:
        images: RGB in [0, 255], s at least 8.
        seed: 0 or greater.

    Returns:
        The images with anomalies, and their masks, True where a channel differs by more than
        `THRESHOLD` from the original. Elsewhere the image is the original, bit for bit. No mask is
        empty: an anomaly below `SMALLEST` is drawn again; if all `ATTEMPTS` draws are too small, it
        is a square of side s / 8 whose values are shifted by 128, half their range.

    Raises:
        InputError: if there is no such kind.
    """
    if kind not in _DRAW:
        raise unknown("no synthetic anomaly", kind, KINDS)
    results = np.empty_like(images)
    masks = np.empty(images.shape[:3], bool)
    for i in range(len(images)):
        results[i], masks[i] = synthesise_one(kind, images, i, seed)
    return results, masks


def synthesise_one(
    kind: str, images: UInt8[np.ndarray | LazyArray, "n s s 3"], i: int, seed: int
) -> tuple[UInt8[np.ndarray, "s s 3"], Bool[np.ndarray, "s s"]]:
    """Draw on image i alone: what `synthesise` returns at i; decodes no more than it needs."""
    rng = np.random.default_rng([seed, i])
    image, earlier = images[i], images[:i]
    for _ in range(ATTEMPTS):
        result, mask = _keep_changes(image, _DRAW[kind](rng, image, earlier))
        if mask.mean() >= SMALLEST:
            return result, mask
    return _keep_changes(image, _move_square(rng, image))


def _keep_changes(
    before: UInt8[np.ndarray, "s s 3"], after: UInt8[np.ndarray, "s s 3"]
) -> tuple[UInt8[np.ndarray, "s s 3"], Bool[np.ndarray, "s s"]]:
    """Return `after` where it differs by more than the threshold, else `before`; and that mask."""
    mask = (np.abs(after.astype(np.int16) - before) > THRESHOLD).any(-1)
    return np.where(mask[..., None], after, before), mask


def _move_square(
    rng: np.random.Generator, image: UInt8[np.ndarray, "s s 3"]
) -> UInt8[np.ndarray, "s s 3"]:
    """Flip the highest bit in a square, which shifts every value by 128."""
    side = len(image) // 8
    y, x = rng.integers(len(image) - side + 1, size=2)
    moved = image.copy()
    moved[y : y + side, x : x + side] ^= 128
    return moved
