"""Exact image and pixel AUROC and AUPRO, against scikit-learn and a plain exact AUPRO."""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from adtr_jax.evaluation import metrics
from benchmarks.rows import Row
from benchmarks.sizes import Sizes
from benchmarks.timing import Way, compare

TARGET = 10.0
LIMIT = 0.3  # AUPRO's false-positive rate


def measure(sizes: Sizes) -> Iterator[Row]:
    """Yields one row; ours computes all seven metrics, the other only three."""
    maps, masks = test_set(sizes.maps, sizes.image_size)
    scores, labels = maps.max(axis=(1, 2)), np.arange(sizes.maps) % 2 == 0
    ways: dict[str, Way | str] = {
        "jax": lambda: metrics.evaluate(scores, labels, maps, masks),
        "eager": lambda: plain(scores, labels, maps, masks),
        "compiled": "none: scikit-learn and NumPy",
    }
    what = f"AUROC and AUPRO, {sizes.maps} maps of {sizes.image_size} px, against scikit-learn"
    yield compare(what, ways, sizes.repeats, TARGET)


def test_set(count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns score maps and masks `[n s s]`; every second image has two or three round defects."""
    rng = np.random.default_rng(0)
    maps = rng.gamma(4.0, 1.0, (count, side // 4, side // 4)).repeat(4, axis=1).repeat(4, axis=2)
    maps = ndimage.gaussian_filter(maps, (0, 2, 2)).astype(np.float32)
    masks = np.zeros(maps.shape, bool)
    y, x = np.mgrid[:side, :side]
    for index in range(0, count, 2):
        for _ in range(rng.integers(2, 4)):
            (row, column), radius = rng.integers(0, side, 2), side / rng.integers(10, 25)
            masks[index] |= (y - row) ** 2 + (x - column) ** 2 < radius**2
    return maps + masks, masks


def plain(
    scores: np.ndarray, labels: np.ndarray, maps: np.ndarray, masks: np.ndarray
) -> tuple[float, float, float]:
    """Computes image AUROC, pixel AUROC and AUPRO in the usual way."""
    pixel = float(roc_auc_score(masks.ravel(), maps.ravel()))
    return float(roc_auc_score(labels, scores)), pixel, plain_aupro(maps, masks)


def plain_aupro(maps: np.ndarray, masks: np.ndarray) -> float:
    """Sorts all pixels, and accumulates the contribution of each to both rates.

    Like MVTec's own evaluation code: exact, every distinct score is a threshold.
    """
    overlap = np.zeros(maps.shape)
    regions = 0
    for mask, share in zip(masks, overlap, strict=True):
        labelled, count = ndimage.label(mask, structure=np.ones((3, 3)))
        for region in range(1, count + 1):
            inside = labelled == region
            share[inside] = 1 / inside.sum()
        regions += count
    order = np.argsort(maps, axis=None)[::-1]
    descending = maps.ravel()[order]
    fpr = np.cumsum(~masks.ravel()[order]) / (~masks).sum()
    pro = np.cumsum(overlap.ravel()[order]) / regions
    last_of_tie = np.append(descending[1:] != descending[:-1], True)
    x, y = np.append(0.0, fpr[last_of_tie]), np.append(0.0, pro[last_of_tie])
    y_limit = np.interp(LIMIT, x, y)
    kept = x < LIMIT
    return float(np.trapezoid(np.append(y[kept], y_limit), np.append(x[kept], LIMIT)) / LIMIT)
