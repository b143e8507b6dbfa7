"""The false-alarm rates that n held-out normal images can promise: k / (n + 1), k = 1 ... n.

If a new normal image is exchangeable with the n, the chance that fewer than k of their scores reach
its own is at most k / (n + 1), whatever the distribution of the scores, and equal to it where no
scores are tied. Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005.

Rates are compared as the float64 quotients that p-values are too, so that 5 of 100 is 0.05.
"""

import math
from fractions import Fraction


def promised_rank(n: int, rate: float) -> int:
    """The largest k with k / (n + 1) <= rate; 0 where no rate that small can be promised.

    Args:
        n: the number of held-out normal images, at least 1.
        rate: a false-alarm rate in (0, 1).

    Returns:
        k, 0 to n.
    """
    k = min(n, math.floor(rate * (n + 1)) + 1)  # the product is rounded: begin one above
    while k / (n + 1) > rate:
        k -= 1
    return k


def images_needed(rate: float) -> int:
    """The smallest number n of held-out normal images with 1 / (n + 1) <= rate, for rate in (0, 1).

    99 for 0.01.
    """
    total = math.ceil(1 / Fraction(rate))
    if 1 / (total - 1) <= rate:  # the float64 is a little below the fraction that is meant
        total -= 1
    return total - 1
