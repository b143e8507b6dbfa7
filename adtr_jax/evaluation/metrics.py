"""Exact evaluation metrics in float64: every threshold counts, there is no histogram.

All metrics are computed from one pair of sorted arrays. Let t be a distinct score of an anomalous
sample, TP(t) the number of anomalous samples scored at least t, and FP(t) that of normal ones.
Between two such t the recall (or the region overlap) is constant, so the ROC and AUPRO curves are
horizontal there, precision and F1 only fall, and no other thresholds are needed. There are few
anomalous scores, which are held; the normal ones are counted in parts (`curve`).
"""

from adtr_jax.devices import hosts
from adtr_jax.errors import InputError
from adtr_jax.evaluation.curve import Curve, Labels, Scores

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

# AUPRO's false-positive-rate limit in the MVTec-AD papers.
FPR_LIMIT = 0.3


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
        score_maps: `[n s s]`, higher is more anomalous; only used with masks. Of several processes
            each gives the maps and masks of its share of the images (`hosts.share`).
        masks: `[n s s]`, the ground truth, 1 or True for anomalous.

    Returns:
        The metrics in [0, 1] by name, in the order of `METRICS`; without masks, only those of
        `IMAGE_METRICS`.

    Raises:
        InputError: shapes that differ, scores that are NaN or infinite, or one class only.
    """
    own = hosts.share(len(image_scores))
    labels = image_labels[hosts.share(len(image_labels))]
    image = Curve.of(image_scores[own], labels, "images", IMAGE_METRICS)
    image_values = (image.auroc(), image.average_precision(), *image.f1_max())
    values = dict(zip(IMAGE_METRICS, image_values, strict=True))
    if masks is not None:
        if score_maps is None:
            raise InputError("masks are given without score maps; give both or neither")
        if len(score_maps) != own.stop - own.start:
            raise InputError(
                f"{len(score_maps)} score maps for {own.stop - own.start} image scores; "
                "give one map an image"
            )
        pixel = Curve.of(score_maps, _stack(masks), "pixels", PIXEL_METRICS)
        pixel_values = (
            pixel.auroc(),
            pixel.aupro(FPR_LIMIT),
            pixel.average_precision(),
            pixel.f1_max()[0],
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
    return Curve.of(scores, labels, "samples", ("AUROC",)).auroc()


def average_precision(scores: Scores, labels: Labels) -> float:
    """Computes the sum over thresholds of (increase in recall) * precision.

    Tied scores are one threshold, and there is no interpolation, as in scikit-learn's
    `average_precision_score`. Arguments and errors as in `auroc`.
    """
    return Curve.of(scores, labels, "samples", ("AP",)).average_precision()


def f1_max(scores: Scores, labels: Labels) -> float:
    """Computes the maximum F1 = 2 TP / (TP + FP + positives) over all thresholds.

    Tied scores are one threshold. Arguments and errors as in `auroc`.
    """
    return Curve.of(scores, labels, "samples", ("F1-max",)).f1_max()[0]


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
    return Curve.of(score_maps, _stack(masks), "pixels", ("AUPRO",)).aupro(limit)


def _stack(masks: Labels) -> Labels:
    """The masks; raises InputError if they are not one for each image."""
    if len(masks.shape) != 3:
        raise InputError(f"AUPRO: masks of shape {masks.shape}; give a stack [n s s] of masks")
    return masks
