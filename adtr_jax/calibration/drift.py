"""Whether the images as a whole are still like those that the model was calibrated on.

Defects are no drift: a batch of rejected parts may be anomalous throughout. So the hypothesis that
is tested is a weak one: **at least half of the images are good**, exchangeable with the
calibration's; the others may be anything. Let c be the j-th smallest of n calibration scores. Of g
good images the number L with a score of at most c has, whatever the distribution of the scores,

    P(L = l) = C(l + j - 1, l) C(g - l + n - j, g - l) / C(g + n, g),

the beta-binomial distribution (g, j, n + 1 - j), also called negative hypergeometric: all orders of
g + n exchangeable scores are equally likely (Wilks, "Statistical Prediction with Special Reference
to the Problem of Tolerance Limits", 1942). It allows for the calibration that all images share.
The other images can only add to the number, so with m images in all and g = ceil(m / 2), few enough
scores of at most c refute the hypothesis, exactly. c is the median, the upper quartile and the
maximum in turn, and from below the median, the lower quartile and the minimum: a blurred picture
scores low. The tests share the level (Bonferroni).
"""

import math
from collections import deque

import numpy as np
from jaxtyping import Float64

from adtr_jax.calibration.calibration import Calibration
from adtr_jax.calibration.scores import Score, as_float64
from adtr_jax.errors import InputError

LEAST_IMAGES = 20
SHARES = {0.5: "half", 0.75: "three quarters", 1.0: "all"}
HIGH = "unless most of them are defective, the camera, the light or the product may have changed"
LOW = "the camera, the light or the product may have changed, and defects may go unnoticed"


class Drift:
    """The scores of a batch or a stream of images, and whether they are unlike the calibration's.

    `message` looks at them: call it at the end of a batch, or on a stream as often as wanted. It
    looks anew only when there is a quarter more to see, and the i-th look gets the share
    1 / (i (i + 1)) of the level, so that all looks together, however many, speak without cause at
    most with the probability `level`.
    """

    def __init__(
        self, calibration: Calibration, level: float = 1e-4, window: int | None = None
    ) -> None:
        """Begins without images.

        Args:
            calibration: the scores of held-out normal images.
            level: the probability of a message without cause, in (0, 1).
            window: how many of the latest images to look at, at least 20; None looks at all, as a
                batch wants. On an endless stream the first million would hide a change.

        Raises:
            InputError: a window of fewer than 20.
        """
        if window is not None and window < LEAST_IMAGES:
            raise InputError(
                f"a window of {window} images shows no drift; give at least {LEAST_IMAGES}"
            )
        self._calibration = np.sort(calibration.scores)
        self._level = level
        self._scores: deque[float] = deque(maxlen=window)
        self._unseen = 0
        self._looks = 0
        self._said = False

    def add(self, raw_score: Score) -> None:
        """Takes the raw score of one more image.

        Raises:
            InputError: the score is NaN.
        """
        self._scores.append(float(as_float64(raw_score)))
        self._unseen += 1

    def message(self) -> str | None:
        """One sentence for the user when the images are unlike the calibration's, and only once.

        Needs 20 images at least, and after each look at them 20 more and a quarter of their number.
        """
        if self._said or self._unseen < max(LEAST_IMAGES, len(self._scores) / 4):
            return None
        self._unseen = 0
        self._looks += 1
        p, finding = _most_unlikely(np.array(self._scores), self._calibration)
        p = min(1.0, p * self._looks * (self._looks + 1))
        if p > self._level:
            return None
        self._said = True
        chance = f"p = {p:.1g}" if p > 1e-12 else "p < 1e-12"
        return (
            "the images as a whole do not look like the good images that the model was calibrated "
            f"on: {finding} ({chance}, even if half of the images were defective)"
        )


def _most_unlikely(
    scores: Float64[np.ndarray, " m"], calibration: Float64[np.ndarray, " n"]
) -> tuple[float, str]:
    """The smallest p-value of the six tests, times six, and in words what was found.

    Args:
        scores: of the new images.
        calibration: in ascending order.
    """
    m, n = len(scores), len(calibration)
    good = math.ceil(m / 2)
    tests = []
    for share, word in SHARES.items():
        j = math.ceil(share * n)
        for sign, side, cause in ((1, "higher", HIGH), (-1, "lower", LOW)):
            # The j-th smallest, or for low scores the j-th largest; ties count for the good.
            c = calibration[j - 1] if sign > 0 else calibration[n - j]
            inside = int(np.count_nonzero(sign * scores <= sign * c))
            finding = f"{m - inside} of {m} score {side} than {word} of those did; {cause}"
            tests.append((at_most(inside, good, n, j), finding))
    p, finding = min(tests)
    return len(tests) * p, finding


def at_most(inside: int, good: int, n: int, j: int) -> float:
    """P(L <= inside) for the beta-binomial distribution (good, j, n + 1 - j).

    Args:
        inside: l, at least 0.
        good: g, the number of good images, at least 1.
        n: the number of calibration images.
        j: which of them is the limit, 1 to n from the smallest.
    """
    if inside >= good:
        return 1.0
    count = np.arange(good)
    # P(L = count + 1) / P(L = count); in logarithms, for the products leave the range of float64.
    ratios = (count + j) * (good - count) / ((count + 1) * (good - count + n - j))
    log_p = np.concatenate([[0.0], np.cumsum(np.log(ratios))])
    p = np.exp(log_p - log_p.max())
    return float(p[: inside + 1].sum() / p.sum())
