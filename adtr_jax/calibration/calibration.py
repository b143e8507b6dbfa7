"""P-values and thresholds from normal images that the model was not trained on.

Everything here is split-conformal: of n held-out normal images and one new image, exchangeable with
them, each is as likely as any other to have the largest score. No defect is needed, none is used.
"""

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
from jaxtyping import Float32, Float64

from adtr_jax.calibration.conformal import promised_rank
from adtr_jax.calibration.decision import Decision, ThresholdKind
from adtr_jax.calibration.scores import Score, Scores, as_float64, unwrapped
from adtr_jax.calibration.tail import tail_quantile
from adtr_jax.errors import InputError

# The interquartile range of a normal distribution, in standard deviations.
NORMAL_QUARTILES = 1.349


@dataclass(frozen=True, eq=False)
class Calibration:
    """The scores of normal images that were not trained on, by the model that is used.

    With cross-fitting, where each score is by a model trained without that image's fold and the
    model that is used has seen all, what is promised here holds only approximately.

    Attributes:
        scores: raw image scores, finite, in any order.
        peaks: the maxima of the same images' score maps, in the same order.

    Raises:
        InputError: no images, numbers that differ, or values that are NaN or infinite.
    """

    scores: Float64[np.ndarray, " n"]
    peaks: Float64[np.ndarray, " m"]  # m = n, which is checked below

    def __post_init__(self) -> None:
        """Checks the scores."""
        if len(self.scores) != len(self.peaks):
            raise InputError(
                f"calibration: {len(self.scores)} scores but {len(self.peaks)} peaks of score "
                "maps; give both of every held-out image"
            )
        if len(self.scores) == 0:
            raise InputError("calibration: no good image was held out; hold out at least one")
        for values, noun in ((self.scores, "scores"), (self.peaks, "peaks of score maps")):
            bad = np.count_nonzero(~np.isfinite(values))
            if bad:
                raise InputError(
                    f"calibration: {bad} of {len(values)} {noun} are NaN or infinite; a model "
                    "that diverged gives such scores: lower the learning rate"
                )

    def arrays(self) -> dict[str, Float32[np.ndarray, " n"]]:
        """Returns the scores and peaks by these names, as files keep them."""
        return {
            "scores": np.asarray(self.scores, np.float32),
            "peaks": np.asarray(self.peaks, np.float32),
        }

    @property
    def smallest_rate(self) -> float:
        """1 / (n + 1): the smallest false-alarm rate that can be promised."""
        return 1 / (len(self.scores) + 1)

    @overload
    def p_value(self, score: Score) -> float: ...
    @overload
    def p_value(self, score: Scores) -> Float64[np.ndarray, "..."]: ...
    def p_value(self, score: Score | Scores) -> float | Float64[np.ndarray, "..."]:
        """(1 + #{calibration scores >= score}) / (n + 1), of each score.

        For an image exchangeable with the calibration's it is at most a with probability at most a,
        for every a. Vovk et al. 2005; Bates et al., "Testing for Outliers with Conformal p-values",
        Annals of Statistics 2023 (the marginal p-value). The p-values of several images depend on
        one another, for they share the calibration (`Drift` allows for that).

        Returns:
            1 / (n + 1) to 1, a number for a number and an array of its shape for an array.

        Raises:
            InputError: a score is NaN.
        """
        n = len(self.scores)
        at_least = n - np.searchsorted(self._ascending, as_float64(score), side="left")
        return unwrapped(np.asarray((1 + at_least) / (n + 1)))

    def decision(self, false_alarms: float, kind: ThresholdKind = "conformal") -> Decision:
        """The thresholds for a rate of false alarms.

        Args:
            false_alarms: the share of good images that may be called anomalous, in (0, 1).
            kind: what the thresholds are: `conformal`, a promise, or `estimated`, from the tail.

        Raises:
            InputError: a rate out of range.
        """
        if not 0 < false_alarms < 1:
            raise InputError(
                f"--false_alarms={false_alarms} is no share of the good images: give a number "
                "between 0 and 1, such as 0.01"
            )
        n = len(self.scores)
        k = max(1, promised_rank(n, false_alarms))
        # An image with fewer than k calibration scores at or above its own has p <= k / (n + 1);
        # there are fewer than k exactly where the k-th largest is below it.
        thresholds = {
            "conformal": (self._ascending[n - k], np.sort(self.peaks)[n - k]),
            "estimated": tuple(tail_quantile(s, false_alarms) for s in (self.scores, self.peaks)),
        }
        threshold, pixel_threshold = (float(value) for value in thresholds[kind])
        rate = k / (n + 1)
        return Decision(
            kind=kind,
            false_alarms=false_alarms,
            rate=rate,
            promised=kind == "conformal" and rate <= false_alarms,
            threshold=threshold,
            estimate=float(thresholds["estimated"][0]),
            pixel_threshold=pixel_threshold,
            held_out=n,
        )

    @overload
    def readable(self, raw_score: Score, threshold: float) -> float: ...
    @overload
    def readable(self, raw_score: Scores, threshold: float) -> Float64[np.ndarray, "..."]: ...
    def readable(
        self, raw_score: Score | Scores, threshold: float
    ) -> float | Float64[np.ndarray, "..."]:
        """A score from 0 to 1 that rises with the raw score and is 0.5 at the threshold.

        With z = (raw score - threshold) / `spread` it is 1 - 1 / (2 (1 + z)) above the threshold
        and 1 / (2 (1 - z)) below: 0.75 is one spread above, 0.95 nine, 0.995 ninety-nine. A
        logistic function would be 1.0000 at nine already, where defects begin to differ.

        Returns:
            Never NaN; above 0.5 exactly where the raw score is above the threshold.

        Raises:
            InputError: a score is NaN.
        """
        raw = as_float64(raw_score)
        with np.errstate(over="ignore"):  # as good as infinitely far away: 0 or 1
            far = np.abs(raw - threshold) / self.spread
        below = 0.5 / (1 + far)
        # One that is above by a rounding error only is above still.
        above = np.maximum(1 - below, np.nextafter(0.5, 1))
        return unwrapped(np.where(raw > threshold, above, below))

    @cached_property
    def spread(self) -> float:
        """The scores' standard deviation, robustly: their interquartile range / 1.349.

        Where half of them are equal, it may be their whole range; where all are, their size, or 1.
        """
        least, largest = float(self._ascending[0]), float(self._ascending[-1])
        # Order statistics, for an interpolation between huge ones overflows.
        low, high = np.quantile(self._ascending, [0.25, 0.75], method="inverted_cdf").tolist()
        candidates = ((high - low) / NORMAL_QUARTILES, largest - least, abs(largest), 1.0)
        return min(next(value for value in candidates if value > 0), sys.float_info.max)

    @cached_property
    def _ascending(self) -> Float64[np.ndarray, " n"]:
        return np.sort(self.scores)
