"""The score that a normal image exceeds at a rate too small for the data alone to show.

Above a high threshold u the excesses of almost any distribution approach a generalised Pareto
distribution (Pickands-Balkema-de Haan theorem; Coles, "An Introduction to Statistical Modeling of
Extreme Values", 2001, Section 4.2):

    P(score > u + x | score > u) = (1 + xi x / sigma)^(-1/xi),  mean sigma / (1 - xi).

u is an order statistic: the m scores above it are the largest fifth, but at least 10, at most
3 sqrt(n) (the choice of Vehtari et al., "Pareto Smoothed Importance Sampling", 2024) and at most
half of them. xi is estimated by L-moments, which are probability-weighted moments (Hosking and
Wallis, "Parameter and Quantile Estimation for the Generalized Pareto Distribution", 1987): a closed
form, where maximum likelihood may not exist for a small sample. It is drawn towards 0.2 as if by 20
more excesses, for ten say little about a shape.

It is an estimate. Measured over normal, Gumbel, gamma (2), Student (4) and log-normal (0.5 and 1)
scores: at rate 0.01 the threshold of 60 scores is exceeded at 0.008 to 0.014 on average over sets
of scores, that of 23 at 0.006 to 0.023 and that of 12 at 0.006 to 0.032; for one set of 23 in ten
it is above 0.017 to 0.054. At rates far below 1 / n the shape is all there is, and that is a guess.
"""

import math

import numpy as np
from jaxtyping import Float64

from adtr_jax.calibration.conformal import promised_rank

# What is believed of the shape before any excess is seen, and how many excesses that is worth.
PRIOR_SHAPE = 0.2
PRIOR_EXCESSES = 20


def tail_quantile(scores: Float64[np.ndarray, " n"], rate: float) -> float:
    """The score that a normal image exceeds with probability `rate`, estimated.

    It is the fitted tail's, but never below the threshold that the scores promise for the rate,
    which is their k-th largest for the largest k / (n + 1) <= rate and the largest for rates below
    1 / (n + 1). For rates at which the score is at most u it is that threshold. It never rises with
    the rate. Where there is nothing to fit, one score or no spread, it is the largest score.

    Args:
        scores: finite scores of normal images, at least one, in any order.
        rate: a probability in (0, 1).
    """
    descending = np.sort(scores)[::-1]
    n = len(descending)
    size = min(n // 2, max(10, min(n // 5, math.floor(3 * math.sqrt(n)))))
    u = descending[size]
    excesses = descending[descending > u] - u
    # u is the (m + 1)-th largest, which is exceeded at (m + 1) / (n + 1) on average.
    share = (len(excesses) + 1) / (n + 1)
    promised = float(descending[max(1, promised_rank(n, rate)) - 1])
    if rate >= share or len(excesses) == 0:
        return promised
    xi, sigma = fit_excesses(excesses)
    return max(promised, float(u) + generalised_pareto_quantile(rate / share, xi, sigma))


def generalised_pareto_quantile(rate: float, xi: float, sigma: float) -> float:
    """The excess that is exceeded with probability `rate` in (0, 1]: sigma (rate^-xi - 1) / xi."""
    if abs(xi) < 1e-9:  # the limit, an exponential distribution
        return -sigma * math.log(rate)
    return sigma * math.expm1(-xi * math.log(rate)) / xi


def fit_excesses(excesses: Float64[np.ndarray, " m"]) -> tuple[float, float]:
    """The shape and scale of a generalised Pareto distribution (module docstring).

    xi = 2 - l_1 / l_2 of the sample's L-moments, at least -1 (a uniform distribution), towards the
    prior; sigma = l_1 (1 - xi), so that the mean is the sample's.

    Args:
        excesses: positive, in descending order, at least one.

    Returns:
        xi in [-1, 1) and sigma > 0 in the unit of the scores.
    """
    m = len(excesses)
    mean = float(excesses.mean())
    if m == 1:
        return PRIOR_SHAPE, mean * (1 - PRIOR_SHAPE)
    # l_2 is half the mean difference of two excesses; the i-th largest is above m - i others.
    l_2 = 2 * float(excesses @ np.arange(m - 1, -1, -1)) / (m * (m - 1)) - mean
    fitted = 2 - mean / l_2 if 3 * l_2 > mean else -1.0
    xi = (m * fitted + PRIOR_EXCESSES * PRIOR_SHAPE) / (m + PRIOR_EXCESSES)
    return xi, mean * (1 - xi)
