"""Raw scores as they come: one, or an array of them; compared in float64."""

from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from adtr_jax.errors import InputError

Score = float | np.floating
Scores = Float[np.ndarray, "..."]


def as_float64(raw_score: Score | Scores) -> Float64[np.ndarray, "..."]:
    """The scores in float64, as the calibration's are: a threshold rounded to float32 is another.

    Raises:
        InputError: a score is NaN.
    """
    scores = np.asarray(raw_score, np.float64)
    if np.isnan(scores).any():
        raise InputError(
            "the score of an image is NaN, which is neither normal nor anomalous; a model that "
            "diverged gives such scores: train it again with a lower learning rate"
        )
    return scores


def unwrapped(values: np.ndarray) -> Any:
    """An array without axes as the Python number that it holds; any other as it is."""
    return values.item() if values.ndim == 0 else values
