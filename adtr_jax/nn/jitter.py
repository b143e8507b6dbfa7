"""Feature jitter (UniAD: You et al., "A Unified Model for Multi-class Anomaly Detection", 2022)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from adtr_jax.nn.dropout import random_bits

SITE = -1  # of the random bits; the layers of a network have those from 0


def jitter(
    f: Float[Array, "b h w c"], scale: float, seed: UInt32[Array, "b"]
) -> Float[Array, "b h w c"]:
    """f(:, u) + N(0, sigma^2) with sigma = scale * ||f(:, u)||_2 / c at every position u.

    Args:
        f: features.
        scale: alpha; UniAD's is 20.
        seed: one a sample, from `dropout.seeds`: one device and eight draw the same.
    """
    sigma = scale * jnp.linalg.norm(f, axis=-1, keepdims=True) / f.shape[-1]
    return f + sigma * _normal(f.shape, seed).astype(f.dtype)


def _normal(shape: tuple[int, ...], seed: UInt32[Array, "b"]) -> Float[Array, "b ..."]:
    """Standard normal numbers: the inverse distribution function at the centres of 2^23 parts."""
    parts = (random_bits(shape, seed, SITE) >> 9).astype(jnp.float32)
    uniform = (parts + np.float32(0.5)) * np.float32(2**-22) - 1  # exact, and inside of (-1, 1)
    return np.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform)
