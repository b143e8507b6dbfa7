"""Exact evaluation metrics in float64: every threshold counts, there is no histogram.

All metrics are computed from one pair of sorted arrays. Let t be a distinct score of an anomalous
sample, TP(t) the number of anomalous samples scored at least t, and FP(t) that of normal ones.
Between two such t the recall (or the region overlap) is constant, so the ROC and AUPRO curves are
horizontal there, precision and F1 only fall, and no other thresholds are needed. There are few
anomalous scores; the normal scores only need one sort.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Integer
from scipy import ndimage

from adtr_jax.errors import InputError

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1_max", "image_f1_max_fpr")
PIXEL_METRICS = ("pixel_auroc", "aupro", "pixel_ap", "pixel_f1_max")
METRICS = (
    "image_auroc",
    "pixel_auroc",
    "aupro",
    "image_ap",
    "pixel_ap",
    "image_f1_max",
    "image_f1_max_fpr",
    "pixel_f1_max",
)

Scores = Float[np.ndarray, "..."]
Labels = Bool[np.ndarray, "..."] | Integer[np.ndarray, "..."]

# AUPRO's false-positive-rate limit in the MVTec-AD papers.
FPR_LIMIT = 0.3
# Pixels that touch at a side or a corner are connected; those of different images never are.
EIGHT_CONNECTED = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])


@dataclass(frozen=True)
class _Curve:
    """Counts at the k distinct anomalous scores t, in descending order."""

    tp: Int[np.ndarray, " k"]  # anomalous samples scored >= t
    fp: Int[np.ndarray, " k"]  # normal samples scored >= t
    fp_above: Int[np.ndarray, " k"]  # normal samples scored > t: the rest of fp are tied with t
    positives: int
    negatives: int
    order: Int[np.ndarray, " p"]  # the anomalous samples by descending score


def evaluate(
    image_scores: Scores,
    image_labels: Labels,
    score_maps: Scores | None = None,
    masks: Labels | None = None,
) -> dict[str, float]:
    """Computes all metrics of a test set.

    Args:
        image_scores: `[n]`, higher is more anomalous.
        image_labels: `[n]`, 0 or False for normal, 1 or True for anomalous.
        score_maps: `[n s s]`, higher is more anomalous; only used with masks.
        masks: `[n s s]`, the ground truth, 1 or True for anomalous.

    Returns:
        The metrics in [0, 1] by name, in the order of `METRICS`; without masks, only those of
        `IMAGE_METRICS`.

    Raises:
        InputError: shapes that differ, scores that are NaN or infinite, or one class only.
    """
    image = _curve(image_scores, image_labels, "images", IMAGE_METRICS)
    image_values = (_auroc(image), _ap(image), *_f1_max(image))
    values = dict(zip(IMAGE_METRICS, image_values, strict=True))
    if masks is not None:
        if score_maps is None:
            raise InputError("masks are given without score maps; give both or neither")
        if len(score_maps) != len(image_scores):
            raise InputError(
                f"{len(score_maps)} score maps for {len(image_scores)} image scores; "
                "give one map an image"
            )
        masks = _as_bool(masks, "pixels")
        pixel = _curve(score_maps, masks, "pixels", PIXEL_METRICS)
        pixel_values = (
            _auroc(pixel),
            _aupro(pixel, masks, FPR_LIMIT),
            _ap(pixel),
            _f1_max(pixel)[0],
        )
        values.update(zip(PIXEL_METRICS, pixel_values, strict=True))
    return {name: values[name] for name in METRICS if name in values}


def auroc(scores: Scores, labels: Labels) -> float:
    """Computes the area under the ROC curve.

    It is the probability that an anomalous sample scores above a normal one; ties count one half.
    Values below 0.5 are not flipped.

    Args:
        scores: any shape, images `[n]` or pixels `[n s s]`; higher is more anomalous.
        labels: the same shape, 0 or False for normal, 1 or True for anomalous.

    Raises:
        InputError: shapes that differ, scores that are NaN or infinite, or one class only.
    """
    return _auroc(_curve(scores, labels, "samples", ("AUROC",)))


def average_precision(scores: Scores, labels: Labels) -> float:
    """Computes the sum over thresholds of (increase in recall) * precision.

    Tied scores are one threshold, and there is no interpolation, as in scikit-learn's
    `average_precision_score`. Arguments and errors as in `auroc`.
    """
    return _ap(_curve(scores, labels, "samples", ("AP",)))


def f1_max(scores: Scores, labels: Labels) -> float:
    """Computes the maximum F1 = 2 TP / (TP + FP + positives) over all thresholds.

    Tied scores are one threshold. Arguments and errors as in `auroc`.
    """
    return _f1_max(_curve(scores, labels, "samples", ("F1-max",)))[0]


def aupro(score_maps: Scores, masks: Labels, limit: float = FPR_LIMIT) -> float:
    """Computes the area under the per-region-overlap curve up to an FPR, divided by that FPR.

    The per-region overlap at a threshold is the fraction of a region's pixels scored at least the
    threshold, averaged over all 8-connected regions of all masks with equal weights. The
    false-positive rate (FPR) is taken over all pixels outside the masks. The curve starts at (0,
    0), has one point per distinct score, is integrated by the trapezoidal rule and cut at the limit
    by linear interpolation. Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021,
    Section 4.2.

    Args:
        score_maps: `[n s s]`, higher is more anomalous.
        masks: `[n s s]`, the ground truth, 1 or True for anomalous.
        limit: the largest false-positive rate, in (0, 1].

    Raises:
        InputError: as in `auroc`, or a limit out of range.
    """
    if not 0 < limit <= 1:
        raise InputError(f"AUPRO's limit is {limit}; give a false-positive rate in (0, 1]")
    masks = _as_bool(masks, "pixels")
    return _aupro(_curve(score_maps, masks, "pixels", ("AUPRO",)), masks, limit)


def _curve(scores: Scores, labels: Labels, samples: str, metrics: tuple[str, ...]) -> _Curve:
    """Sorts the scores; `samples` and `metrics` name them in error messages."""
    if scores.shape != labels.shape:
        raise InputError(
            f"{samples}: scores of shape {scores.shape} but labels of shape {labels.shape}; "
            "give one label a score"
        )
    _check_finite(scores, samples)
    labels = _as_bool(labels, samples)
    positives = int(np.count_nonzero(labels))
    negatives = labels.size - positives
    if positives == 0 or negatives == 0:
        raise InputError(
            f"{', '.join(metrics)}: needs normal and anomalous {samples}, but the labels hold "
            f"{negatives} normal and {positives} anomalous; add the missing kind to the test set"
        )
    anomalous = scores[labels]
    order = np.argsort(anomalous)[::-1]
    descending = anomalous[order]
    last_of_tie = np.append(descending[1:] != descending[:-1], True)
    thresholds = descending[last_of_tie]
    normal = scores[~labels]
    normal.sort()
    return _Curve(
        tp=np.flatnonzero(last_of_tie) + 1,
        fp=negatives - np.searchsorted(normal, thresholds, side="left"),
        fp_above=negatives - np.searchsorted(normal, thresholds, side="right"),
        positives=positives,
        negatives=negatives,
        order=order,
    )


def _auroc(curve: _Curve) -> float:
    """Computes the Mann-Whitney statistic in integers, rounded once."""
    # A tied normal sample is in fp but not in fp_above, which makes it count one half.
    half_wins = 2 * curve.negatives - curve.fp - curve.fp_above
    return int(np.diff(curve.tp, prepend=0) @ half_wins) / (2 * curve.positives * curve.negatives)


def _ap(curve: _Curve) -> float:
    precision = curve.tp / (curve.tp + curve.fp)
    return float(np.diff(curve.tp, prepend=0) @ precision / curve.positives)


def _f1_max(curve: _Curve) -> tuple[float, float]:
    """The best F1, and the false-positive rate at its threshold: of several, the highest one."""
    f1 = 2 * curve.tp / (curve.tp + curve.fp + curve.positives)
    best = int(np.argmax(f1))
    return float(f1[best]), float(curve.fp[best] / curve.negatives)


def _aupro(curve: _Curve, masks: Bool[np.ndarray, "..."], limit: float) -> float:
    if masks.ndim != 3:
        raise InputError(f"AUPRO: masks of shape {masks.shape}; give a stack [n s s] of masks")
    overlap_of_pixel = _region_weights(masks)[curve.order]
    overlap = np.cumsum(overlap_of_pixel)[curve.tp - 1]
    # At each t the curve arrives horizontally at FP = fp_above and leaves from FP = fp.
    before = np.concatenate([[0.0], overlap[:-1]])
    x = np.column_stack([curve.fp_above, curve.fp]).ravel().astype(np.float64)
    y = np.column_stack([before, overlap]).ravel()
    x = np.concatenate([[0.0], x, [curve.negatives]]) / curve.negatives
    y = np.concatenate([[0.0], y, [overlap[-1]]])
    kept = int(np.searchsorted(x, limit, side="right"))
    if kept < len(x):
        share = (limit - x[kept - 1]) / (x[kept] - x[kept - 1])
        y_limit = y[kept - 1] + share * (y[kept] - y[kept - 1])
        x, y = np.append(x[:kept], limit), np.append(y[:kept], y_limit)
    return float(np.trapezoid(y, x) / limit)


def _region_weights(masks: Bool[np.ndarray, "n s1 s2"]) -> Float64[np.ndarray, " p"]:
    """Returns each anomalous pixel's share in the mean overlap of the regions; the sum is 1."""
    masks = masks[masks.any(axis=(1, 2))]
    regions, count = ndimage.label(masks, structure=EIGHT_CONNECTED)
    region = regions[masks]
    return 1 / (count * np.bincount(region)[region])


def _check_finite(scores: Scores, samples: str) -> None:
    finite = np.isfinite(scores)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        first = tuple(int(i) for i in np.unravel_index(bad[0], scores.shape))
        where = first[0] if len(first) == 1 else first
        raise InputError(
            f"{samples}: {len(bad)} of {scores.size} scores are NaN or infinite, the first at "
            f"index {where}; a model that diverged gives such scores: lower the learning rate"
        )


def _as_bool(labels: Labels, samples: str) -> Bool[np.ndarray, "..."]:
    if labels.dtype == bool:
        return labels
    if not ((labels == 0) | (labels == 1)).all():
        raise InputError(f"{samples}: labels other than 0 and 1; give 0 for normal, 1 for anomaly")
    return labels.astype(bool)
