"""Dropout whose mask depends on the sample alone, not on how the batch is split over devices."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32


def _mix(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """A bijective 32-bit finaliser (two multiply-xorshift rounds; C. Wellons' lowbias32)."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def seeds(seed: int | UInt32[Array, ""], step: Array, positions: Array) -> UInt32[Array, "b"]:
    """One seed a sample, from the run's seed, the step, and the sample's place in the batch."""
    key = _mix(jnp.asarray(step, jnp.uint32) + _mix(jnp.uint32(seed) + np.uint32(0x9E3779B9)))
    return _mix(key ^ _mix(positions.astype(jnp.uint32) + np.uint32(0x85EBCA6B)))


def at_site(seed: UInt32[Array, "b"], site: int) -> UInt32[Array, "b"]:
    """Returns seeds whose site 0 is `site` of these; sites add up."""
    return seed + np.uint32((site * 0x9E3779B9) & 0xFFFFFFFF)


def random_bits(
    shape: tuple[int, ...],
    seed: UInt32[Array, "b"],
    site: int,
    entry: UInt32[Array, "..."] | None = None,
) -> UInt32[Array, "b ..."]:
    """A hash of (seed of the sample, site, entry) for every entry of an array of this shape.

    All but the shape is as for `dropout`.
    """
    key = _mix(at_site(seed, site))
    if entry is None:
        entry = jnp.arange(int(np.prod(shape[1:])), dtype=jnp.uint32)
    return _mix(entry.reshape((1, *shape[1:])) ^ key.reshape(-1, *[1] * (len(shape) - 1)))


def dropout(
    x: Float[Array, "b ..."],
    rate: float,
    seed: UInt32[Array, "b"],
    site: int,
    entry: UInt32[Array, "..."] | None = None,
) -> Float[Array, "b ..."]:
    """Zeroes each entry with probability `rate` and scales the rest by 1 / (1 - rate).

    The `random_bits` are a few integer operations fused with the layer, where
    `jax.random.bernoulli` would pass the attention weights' 100 million bits a step through memory.
    One device and eight draw the same.

    Args:
        x: one row a sample.
        rate: in [0, 1).
        seed: one a sample, from `seeds`.
        site: tells the layers of a network apart.
        entry: the numbers of a sample's entries, where they are a part of all; None: all.
    """
    keep = random_bits(x.shape, seed, site, entry) >= np.uint32(round(rate * 2**32))
    return jnp.where(keep, x * (1 / (1 - rate)), 0)
