"""What the ADTR paper reports, to stand beside a run's own results.

You et al., "ADTR: Anomaly Detection Transformer with Feature Reconstruction", Tables 1 and 3. Only
what the source at hand shows legibly is here: of Table 1 the two means, of Table 2 (image AUROC on
MVTec-AD) nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from adtr_jax.data.mvtec_ad import CATEGORIES


@dataclass(frozen=True)
class PaperRow:
    """One method's row of a table in a paper.

    Attributes:
        method: the method's name in the paper.
        metric: the metric's name as in `adtr_jax.metrics.METRICS`.
        categories: all categories that `mean` is over.
        values: category -> value in [0, 1], for the categories that are known.
        mean: the mean as printed, in [0, 1].
    """

    method: str
    metric: str
    categories: tuple[str, ...]
    values: Mapping[str, float]
    mean: float


CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def _mvtec_row(method: str, mean: float) -> PaperRow:
    return PaperRow(method, "pixel_auroc", CATEGORIES, {}, mean)


def _cifar10_row(method: str, per_cent: str) -> PaperRow:
    *values, mean = (round(float(value) / 100, 3) for value in per_cent.split())
    by_class = dict(zip(CIFAR10_CLASSES, values, strict=True))
    return PaperRow(method, "image_auroc", CIFAR10_CLASSES, by_class, mean)


# Table 1 (ADTR's mean is repeated in Table 4) and Section 4.2 (ADTR+ is better by 0.3 points).
MVTEC_AD = {
    "ADTR": _mvtec_row("ADTR", 0.972),
    "ADTR+": _mvtec_row("ADTR+", 0.975),
}
# Table 3: the classes in order, then their mean.
CIFAR10 = {
    "ADTR": _cifar10_row("ADTR", "94.1 97.4 92.3 89.0 93.2 94.4 97.4 95.8 96.3 96.7 94.7"),
    "ADTR+": _cifar10_row("ADTR+", "96.2 98.0 94.5 91.7 95.1 95.6 98.0 97.1 98.0 96.9 96.1"),
}
