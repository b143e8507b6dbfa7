"""Which images of many are drawn, which the report shows, and the threshold that it starts at."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int

LIMIT = 2000  # images with pictures in one report


def starting_threshold(
    scores: Float64[np.ndarray, " n"], labels: Sequence[int | None], threshold: float | None
) -> tuple[float, str]:
    """The threshold that the report starts at, and where it comes from.

    Args:
        scores: raw scores, at least one.
        labels: 0 good, 1 defective, None not known.
        threshold: the model's; None: it is not calibrated.
    """
    if threshold is not None:
        return threshold, "the model's"
    if {*labels} != {0, 1}:
        return float(scores.max()), "none: the model is not calibrated"
    from sklearn.metrics import precision_recall_curve

    precision, recall, found = precision_recall_curve(np.asarray(labels), scores)
    both = (precision * recall / np.maximum(precision + recall, 1e-12))[:-1]
    lowest = float(found[int(np.argmax(both))])  # of those to be called anomalous
    below = scores[scores < lowest]
    between = lowest - 1 if len(below) == 0 else (lowest + float(below.max())) / 2
    return between, "of the highest F1 on these images, since the model is not calibrated"


def choose(
    scores: Float64[np.ndarray, " n"], threshold: float, limit: int = LIMIT
) -> Int[np.ndarray, " m"]:
    """At most `limit` images: the highest, the lowest, and those nearest to the threshold.

    A third each; where an image is among several of them, more that are near the threshold.

    Returns:
        Their indices, ascending.
    """
    if len(scores) <= limit:
        return np.arange(len(scores))
    order = np.argsort(-scores, kind="stable")
    nearest = np.argsort(np.abs(scores - threshold), kind="stable")
    third = limit // 3
    ends = np.concatenate([order[:third], order[len(order) - third :]])
    rest = nearest[~np.isin(nearest, ends)][: limit - len(ends)]
    return np.sort(np.concatenate([ends, rest]))


def choose_judged(
    scores: Float64[np.ndarray, " n"], labels: Sequence[int], threshold: float, limit: int
) -> Int[np.ndarray, " m"]:
    """At most `limit` images: those judged worst, those judged best, and those in between.

    A third each, by the distance of the score from the threshold, to the wrong or the right side.

    Returns:
        Their indices, ascending.
    """
    margin = np.where(np.asarray(labels) == 1, scores - threshold, threshold - scores)
    return choose(margin, 0.0, limit)
