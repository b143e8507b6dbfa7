"""The scores of many images, from those of some at a time."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from adtr_jax.files.scratch import scratch

# Some images' score maps and scores, and which images they are of.
ScoredPart = tuple[slice, Float[np.ndarray, "b s s"], Float[np.ndarray, "b"]]


def collect(
    parts: Iterator[ScoredPart], images: int, side: int, directory: Path
) -> tuple[Float[np.ndarray, "n s s"], Float[np.ndarray, "n"]]:
    """Returns the score maps and scores of all images.

    Args:
        parts: as `Detector.scores_in_parts` yields them.
        images: n.
        side: s.
        directory: for a temporary file, should the maps be many.
    """
    maps, scores = (
        scratch(directory, (images, side, side), np.float32),
        np.empty(images, np.float32),
    )
    for part, some, values in parts:
        maps[part], scores[part] = some, values
    return maps, scores
