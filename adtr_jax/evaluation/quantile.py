"""Exact quantiles of more numbers than fit into memory."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int64, UInt

from adtr_jax.devices import hosts

PART = 2**24  # numbers that are looked at together
_DIGIT = 16  # bits


def quantiles(
    values: Float[np.ndarray, "n ..."], shares: Sequence[float]
) -> Float[np.ndarray, " q"]:
    """Returns the quantiles of all processes' values: what `numpy.quantile(values, shares)` does.

    The values are looked at twice (float64: four times), and nothing is copied but a part of them.

    Args:
        values: this process's, finite, at least one of all.
        shares: in [0, 1].
    """
    n = hosts.total(values.size)
    place = (n - 1) * np.asarray(shares, np.float64)
    below = np.floor(place).astype(np.int64)
    found = _of_rank(values, np.concatenate([below, np.minimum(below + 1, n - 1)]))
    low, high = np.split(found, 2)
    share = place - below  # as NumPy interpolates: from the nearer end
    step = high - low
    return np.where(share < 0.5, low + step * share, high - step * (1 - share))


def _of_rank(
    values: Float[np.ndarray, "n ..."], ranks: Int64[np.ndarray, " r"]
) -> Float[np.ndarray, " r"]:
    """Returns the values of these ranks, counted from 0, by counting digit by digit."""
    bits = 8 * values.dtype.itemsize
    prefixes, left = [0] * len(ranks), ranks.tolist()
    for shift in range(bits - _DIGIT, -1, -_DIGIT):
        counts = {prefix: np.zeros(2**_DIGIT, np.int64) for prefix in prefixes}
        for keys in _keys(values):
            for prefix in set(prefixes):
                inside = keys
                if shift + _DIGIT < bits:
                    inside = keys[keys >> keys.dtype.type(shift + _DIGIT) == prefix]
                digits = (inside >> keys.dtype.type(shift)).astype(np.uint16)
                counts[prefix] += np.bincount(digits, minlength=2**_DIGIT)
        below = {prefix: np.cumsum(hosts.total(counts[prefix])) for prefix in counts}
        for i, prefix in enumerate(prefixes):
            digit = int(np.searchsorted(below[prefix], left[i], side="right"))
            left[i] -= int(below[prefix][digit - 1]) if digit else 0
            prefixes[i] = prefix << _DIGIT | digit
    keys = np.array(prefixes, f"u{values.dtype.itemsize}")
    top = keys.dtype.type(1 << bits - 1)
    return np.where(keys & top, keys ^ top, ~keys).view(values.dtype)


def _keys(values: Float[np.ndarray, "n ..."]) -> Iterator[UInt[np.ndarray, " _"]]:
    """Yields the values as integers of the same order, some at a time."""
    rows = max(1, PART // max(1, int(np.prod(values.shape[1:]))))
    for start in range(0, len(values), rows):
        part = np.ascontiguousarray(values[start : start + rows]).reshape(-1)
        keys = part.view(f"u{part.dtype.itemsize}")
        top = keys.dtype.type(1 << 8 * part.dtype.itemsize - 1)
        yield np.where(keys & top, ~keys, keys | top)
