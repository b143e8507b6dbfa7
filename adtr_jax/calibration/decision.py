"""Which raw score is too high, and what is promised about it."""

from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
from jaxtyping import Bool

from adtr_jax.calibration.conformal import images_needed
from adtr_jax.calibration.scores import Score, Scores, as_float64, unwrapped

ThresholdKind = Literal["conformal", "estimated"]


@dataclass(frozen=True)
class Decision:
    """Above which raw score an image is anomalous, and what that promises.

    Attributes:
        kind: `conformal`: the threshold keeps a promise; `estimated`: it is the tail's estimate.
        false_alarms: the share of good images called anomalous that was asked for, in (0, 1).
        rate: the share that is promised: the largest k / (n + 1) that is not above `false_alarms`,
            or, where there is none, the smallest that n images can promise, 1 / (n + 1). It holds
            for both kinds, since the estimate is never below the conformal threshold. It is the
            mean over all draws of the n images; for the n at hand the share is random, of the
            distribution Beta(k, n + 1 - k) (Vovk, "Conditional Validity of Inductive Conformal
            Predictors", 2012).
        promised: the threshold is the conformal one and `rate` is not above `false_alarms`.
        threshold: the k-th largest calibration score, or the estimate. An image is anomalous if
            its raw score is above it; one that is tied with it is not.
        estimate: the raw score exceeded by a good image at the rate asked for, by a fitted tail
            (`tail`). An estimate, whatever the kind.
        pixel_threshold: the same threshold from the maxima of the score maps: a good image's map
            exceeds it anywhere with at most the probability `rate`.
        held_out: n, the number of calibration images.
    """

    kind: ThresholdKind
    false_alarms: float
    rate: float
    promised: bool
    threshold: float
    estimate: float
    pixel_threshold: float
    held_out: int

    @overload
    def is_anomalous(self, raw_score: Score) -> bool: ...
    @overload
    def is_anomalous(self, raw_score: Scores) -> Bool[np.ndarray, "..."]: ...
    def is_anomalous(self, raw_score: Score | Scores) -> bool | Bool[np.ndarray, "..."]:
        """Whether the raw score is above the threshold.

        For a conformal decision this is `p_value(raw_score) <= rate`, exactly and for every score.

        Raises:
            InputError: a score is NaN.
        """
        return unwrapped(np.asarray(as_float64(raw_score) > self.threshold))

    def describe(self) -> str:
        """What the threshold promises, in one to three plain sentences."""
        k = round(self.rate * (self.held_out + 1))
        promise = f"at most {k} of {self.held_out + 1} ({_percent(self.rate)})"
        asked = _percent(self.false_alarms)
        images = f"{self.held_out} held-out good image" + "s" * (self.held_out > 1)
        if self.kind == "estimated":
            return (
                f"A good image is called anomalous, at a score above {self.threshold:.4g}, in "
                f"about {asked}: an estimate from the tail of the scores of {images}, not a "
                f"promise. Promised is {promise}."
            )
        text = (
            f"A good image is called anomalous, at a score above {self.threshold:.4g}, in "
            f"{promise}: {images} "
        )
        if self.promised:
            text += f"can promise the {asked} asked for."
        else:
            text += (
                f"cannot promise the {asked} asked for; hold out at least "
                f"{images_needed(self.false_alarms)} to promise it."
            )
        if self.estimate > self.threshold:  # otherwise it says nothing new
            text += (
                f" Estimated from the tail of their scores, {asked} is at a score of "
                f"{self.estimate:.4g} (--threshold=estimated)."
            )
        return text


def _percent(rate: float) -> str:
    """0.042 -> `4.2 %`, with two figures below ten and enough not to call 99.9 a hundred."""
    return f"{100 * rate:.{2 if rate < 0.1 else 4}g} %"
