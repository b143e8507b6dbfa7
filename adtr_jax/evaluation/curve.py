"""Counts of normal and anomalous samples at every threshold, and the metrics that they give.

The scores are looked at in parts, so that they may lie in a file and the labels be read when they
are wanted. Only the anomalous scores are held, of which there are few; the normal ones are counted
against them, in a second pass. Of several processes each has its share, and the counts are summed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int32, Integer
from scipy import ndimage

from adtr_jax.devices import hosts
from adtr_jax.errors import InputError

Scores = Float[Any, "..."]  # NumPy's, or what NumPy makes an array of, such as `LazyMasks`
Labels = Bool[Any, "..."] | Integer[Any, "..."]

# Pixels that touch at a side or a corner are connected; those of different images never are.
EIGHT_CONNECTED = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])
PART = 2**24  # scores that are looked at together
BLOCK = 2**22  # thresholds; a sum over more is rounded once a block
_LIMB = 21  # bits


@dataclass(frozen=True)
class Curve:
    """Counts at the k distinct anomalous scores t, in descending order."""

    tp: Int[np.ndarray, " k"]  # anomalous samples scored >= t
    fp: Int[np.ndarray, " k"]  # normal samples scored >= t
    fp_above: Int[np.ndarray, " k"]  # normal samples scored > t: the rest of fp are tied with t
    positives: int
    negatives: int
    order: Int[np.ndarray, " p"]  # the anomalous samples by descending score
    region: Int32[np.ndarray, " q"]  # of the anomalous pixels; empty, if they are none

    @classmethod
    def of(cls, scores: Scores, labels: Labels, samples: str, metrics: Sequence[str]) -> "Curve":
        """Counts, in every process, the samples of all of them.

        Args:
            scores: this process's, `[n]` or `[n s s]`; higher is more anomalous.
            labels: of the same shape, 0 or False for normal, 1 or True for anomalous.
            samples, metrics: name them in error messages.

        Raises:
            InputError: shapes that differ, other labels, scores that are NaN or infinite, or one
                class only.
        """
        with hosts.together():
            if scores.shape != labels.shape:
                raise InputError(
                    f"{samples}: scores of shape {scores.shape} but labels of shape "
                    f"{labels.shape}; give one label a score"
                )
            _check_finite(scores, samples)
            found, region = _anomalous(scores, labels, samples)
        anomalous = hosts.concatenate(found)
        positives = len(anomalous)
        negatives = hosts.total(int(np.prod(scores.shape))) - positives
        if positives == 0 or negatives == 0:
            raise InputError(
                f"{', '.join(metrics)}: needs normal and anomalous {samples}, but the labels hold "
                f"{negatives} normal and {positives} anomalous; add the missing kind to the test "
                "set"
            )
        order = np.argsort(anomalous)[::-1]
        descending = anomalous[order]
        last_of_tie = np.append(descending[1:] != descending[:-1], True)
        thresholds = descending[last_of_tie]
        del found, anomalous, descending
        fp, fp_above = np.zeros((2, len(thresholds)), np.int64)
        for part, mask in _parts(scores, labels, samples):
            normal = part[~mask]
            normal.sort()
            for block in _blocks(len(thresholds)):
                fp[block] += len(normal) - np.searchsorted(normal, thresholds[block], "left")
                fp_above[block] += len(normal) - np.searchsorted(normal, thresholds[block], "right")
        for block in _blocks(len(thresholds)):
            fp[block], fp_above[block] = hosts.total(fp[block]), hosts.total(fp_above[block])
        tp = np.flatnonzero(last_of_tie) + 1
        return cls(tp, fp, fp_above, positives, negatives, order, _of_all(region))

    def auroc(self) -> float:
        """Computes the Mann-Whitney statistic in integers, rounded once."""
        total = 0
        for block, gained in self._gains():
            # A tied normal sample is in fp but not in fp_above, which makes it count one half.
            half_wins = 2 * self.negatives - self.fp[block] - self.fp_above[block]
            # The products of ten thousand maps of 1024 x 1024 exceed 64 bits.
            for shift in (0, _LIMB, 2 * _LIMB):
                total += int(gained @ (half_wins >> shift & 2**_LIMB - 1)) << shift
        return total / (2 * self.positives * self.negatives)

    def average_precision(self) -> float:
        """Computes the sum over thresholds of (increase in recall) * precision."""
        total = 0.0
        for block, gained in self._gains():
            total += gained @ (self.tp[block] / (self.tp[block] + self.fp[block]))
        return float(total / self.positives)

    def f1_max(self) -> tuple[float, float]:
        """The best F1, and the false-positive rate at its threshold: of several, the highest."""
        best, rate = -1.0, 0.0
        for block in _blocks(len(self.tp)):
            tp, fp = self.tp[block], self.fp[block]
            f1 = 2 * tp / (tp + fp + self.positives)
            i = int(np.argmax(f1))
            if f1[i] > best:
                best, rate = float(f1[i]), float(fp[i] / self.negatives)
        return best, rate

    def aupro(self, limit: float) -> float:
        """Computes the area under the per-region-overlap curve up to an FPR, over that FPR."""
        weights = _weights(self.region)
        area, last_x, last_y = 0.0, 0.0, 0.0  # x is a number of normal pixels
        for block in _blocks(len(self.tp)):
            first = self.tp[block.start - 1] if block.start else 0
            tp = self.tp[block]
            gained = weights[self.region[self.order[first : tp[-1]]]]
            overlap = np.cumsum(np.append(last_y, gained))[tp - first]
            # At each t the curve arrives horizontally at FP = fp_above and leaves from FP = fp.
            before = np.append(last_y, overlap[:-1])
            x = np.column_stack([self.fp_above[block], self.fp[block]]).ravel().astype(np.float64)
            y = np.column_stack([before, overlap]).ravel()
            x, y = np.append(last_x, x), np.append(last_y, y)
            last_x, last_y = x[-1], y[-1]
            if block.stop == len(self.tp):
                x, y = np.append(x, self.negatives), np.append(y, last_y)
            x /= self.negatives
            kept = int(np.searchsorted(x, limit, side="right"))
            if kept < len(x):
                share = (limit - x[kept - 1]) / (x[kept] - x[kept - 1])
                y_limit = y[kept - 1] + share * (y[kept] - y[kept - 1])
                x, y = np.append(x[:kept], limit), np.append(y[:kept], y_limit)
            area += np.trapezoid(y, x)
            if x[-1] >= limit:
                break
        return float(area / limit)

    def _gains(self) -> Iterator[tuple[slice, Int[np.ndarray, " _"]]]:
        """Yields blocks of thresholds, and the anomalous samples that each threshold adds."""
        for block in _blocks(len(self.tp)):
            before = self.tp[block.start - 1] if block.start else 0
            yield block, np.diff(self.tp[block], prepend=before)


def _parts(
    scores: Scores, labels: Labels, samples: str
) -> Iterator[tuple[Float[np.ndarray, "..."], Bool[np.ndarray, "..."]]]:
    """Yields the scores and the labels of some rows at a time."""
    for rows in _rows(scores):
        yield np.asarray(scores[rows]), as_bool(np.asarray(labels[rows]), samples)


def _rows(scores: Scores) -> Iterator[slice]:
    at_once = max(1, PART // max(1, int(np.prod(scores.shape[1:]))))
    for start in range(0, len(scores), at_once):
        yield slice(start, start + at_once)


def _blocks(thresholds: int) -> Iterator[slice]:
    for start in range(0, thresholds, BLOCK):
        yield slice(start, min(start + BLOCK, thresholds))


def _anomalous(
    scores: Scores, labels: Labels, samples: str
) -> tuple[Float[np.ndarray, " p"], Int32[np.ndarray, " q"]]:
    """Returns the scores of the anomalous samples and, of pixels, the number of their regions."""
    found, regions, count = [np.empty(0, scores.dtype)], [np.empty(0, np.int32)], 0
    for part, mask in _parts(scores, labels, samples):
        found.append(part[mask])
        if mask.ndim == 3:
            some = mask[mask.any(axis=(1, 2))]
            numbered, more = ndimage.label(some, structure=EIGHT_CONNECTED)
            regions.append((numbered[some] - 1 + count).astype(np.int32))
            count += more
    return np.concatenate(found), np.concatenate(regions)


def _of_all(region: Int32[np.ndarray, " q"]) -> Int32[np.ndarray, " p"]:
    """Returns the regions of all processes, numbered on."""
    counts = hosts.of_each(int(region.max(initial=-1)) + 1)
    return hosts.concatenate(region + np.int32(counts[: jax.process_index()].sum()))


def _weights(region: Int32[np.ndarray, " p"]) -> Float64[np.ndarray, " r"]:
    """Returns the share of each region's pixels in the mean overlap of the regions."""
    pixels = np.bincount(region)
    return 1 / (len(pixels) * pixels)


def _check_finite(scores: Scores, samples: str) -> None:
    bad, first = 0, None
    for rows in _rows(scores):
        wrong = ~np.isfinite(scores[rows])
        if first is None and wrong.any():
            i, *place = map(int, np.unravel_index(wrong.argmax(), wrong.shape))
            first = (rows.start + i, *place)
        bad += int(np.count_nonzero(wrong))
    if first is not None:
        where = first[0] if len(first) == 1 else first
        raise InputError(
            f"{samples}: {bad} of {np.prod(scores.shape)} scores are NaN or infinite, the first at "
            f"index {where}; a model that diverged gives such scores: lower the learning rate"
        )


def as_bool(labels: Labels, samples: str) -> Bool[np.ndarray, "..."]:
    """The labels as booleans.

    Raises:
        InputError: labels other than 0 and 1.
    """
    if labels.dtype == bool:
        return labels
    if not ((labels == 0) | (labels == 1)).all():
        raise InputError(f"{samples}: labels other than 0 and 1; give 0 for normal, 1 for anomaly")
    return labels.astype(bool)
