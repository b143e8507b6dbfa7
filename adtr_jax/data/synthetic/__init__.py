"""Anomalies drawn on normal images, with exact masks: what ADTR+ learns from (Eq. 7).

A kind is a file here with a function `draw(rng, seen) -> image`: `seen` [k s s 3] ends with the
image that gets the anomaly, and those before it may lend it texture. Masks are made here, from what
really changed. Nothing here imports JAX.
"""

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, UInt8

from adtr_jax.data.synthetic import confetti, cutpaste, perlin
from adtr_jax.errors import unknown

Kind = Literal["confetti", "cutpaste", "perlin"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# A pixel is anomalous if some channel changed by more than this, of 255. Lesser changes, as in the
# tails of a blur, are taken back.
THRESHOLD = 8
# Share of the pixels that an anomaly changes, at least: 10 pixels at 224 px. The thinnest of
# CutPaste's scars has 3e-4; below are specks left of a piece pasted where it looks the same.
SMALLEST = 2e-4
# How often an anomaly is drawn anew because it is smaller, as coloured confetti on a white image.
ATTEMPTS = 32

_DRAW: dict[str, Callable[[np.random.Generator, np.ndarray], np.ndarray]] = {
    "confetti": confetti.draw,
    "cutpaste": cutpaste.draw,
    "perlin": perlin.draw,
}


def synthesise(
    kind: str, images: UInt8[np.ndarray, "n s s 3"], seed: int
) -> tuple[UInt8[np.ndarray, "n s s 3"], Bool[np.ndarray, "n s s"]]:
    """Draw one anomaly, or a few of one kind, on a copy of each image.

    Image i has a random stream of its own, from `seed` and i, and depends on no image after it: the
    first k results are those of the first k images alone. Parts of a set that are made by separate
    calls need seeds of their own, or the i-th images of all parts get the same draw.

    Args:
        kind: One of `KINDS`: "confetti", "cutpaste" or "perlin".
        images: RGB in [0, 255], s at least 8.
        seed: 0 or greater.

    Returns:
        The images with anomalies, and their masks. True is anomalous: some channel differs by more
        than `THRESHOLD` from the original. Elsewhere the image is the original, bit for bit. No
        mask is empty: an anomaly below `SMALLEST` is drawn again, and should `ATTEMPTS` draws all
        be too small, it is a square of side s / 8 whose values are moved by 128, half their range.

    Raises:
        InputError: if there is no such kind.
    """
    if kind not in _DRAW:
        raise unknown("no synthetic anomaly", kind, KINDS)
    results = np.empty_like(images)
    masks = np.empty(images.shape[:3], bool)
    for i in range(len(images)):
        rng = np.random.default_rng([seed, i])
        results[i], masks[i] = _anomalous(kind, rng, images[: i + 1])
    return results, masks


def _anomalous(
    kind: str, rng: np.random.Generator, seen: UInt8[np.ndarray, "k s s 3"]
) -> tuple[UInt8[np.ndarray, "s s 3"], Bool[np.ndarray, "s s"]]:
    """The last image of `seen` with an anomaly, and its mask, large enough."""
    for _ in range(ATTEMPTS):
        result, mask = _keep_changes(seen[-1], _DRAW[kind](rng, seen))
        if mask.mean() >= SMALLEST:
            return result, mask
    return _keep_changes(seen[-1], _move_square(rng, seen[-1]))


def _keep_changes(
    before: UInt8[np.ndarray, "s s 3"], after: UInt8[np.ndarray, "s s 3"]
) -> tuple[UInt8[np.ndarray, "s s 3"], Bool[np.ndarray, "s s"]]:
    """`after` where it differs by more than the threshold, else `before`; and where that is."""
    mask = (np.abs(after.astype(np.int16) - before) > THRESHOLD).any(-1)
    return np.where(mask[..., None], after, before), mask


def _move_square(
    rng: np.random.Generator, image: UInt8[np.ndarray, "s s 3"]
) -> UInt8[np.ndarray, "s s 3"]:
    """Flip the highest bit in a square: every value moves by 128, whatever it was."""
    side = len(image) // 8
    y, x = rng.integers(len(image) - side + 1, size=2)
    moved = image.copy()
    moved[y : y + side, x : x + side] ^= 128
    return moved
