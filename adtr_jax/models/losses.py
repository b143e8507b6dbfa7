"""The losses, one value an image; the training step takes their mean over the global batch.

`f` are the backbone's features, `f_hat` their reconstruction, both `[b, h, w, c]`, and their
difference is `d(i, u)` for channel i and position u (You et al., Section 3.3).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# The least anomalous loss whose logarithm is taken: an anomaly that is reconstructed perfectly
# costs 27.6 alpha, not infinity, and its gradient is finite.
FLOOR = 1e-12


def normal(f: Float[Array, "b h w c"], f_hat: Float[Array, "b h w c"]) -> Float[Array, "b"]:
    """Eq. 1, for normal images: squared difference, summed over channels, mean over positions."""
    return jnp.mean(jnp.sum(jnp.square(f - f_hat), axis=-1), axis=(1, 2))


def pseudo_huber(
    f: Float[Array, "b h w c"], f_hat: Float[Array, "b h w c"]
) -> Float[Array, "b h w"]:
    """Eq. 6: `phi(u) = sqrt((mean_i |d(i, u)|)^2 + 1) - 1`, at least 0.

    Quadratic for small differences and linear for large ones. Written as `m^2 / (phi + 2)`: the
    printed form loses all digits where m is small.
    """
    m = jnp.mean(jnp.abs(f - f_hat), axis=-1)
    return m * (m / (jnp.hypot(m, 1.0) + 1.0))


def pixel_labelled(
    f: Float[Array, "b h w c"],
    f_hat: Float[Array, "b h w c"],
    y: Bool[Array, "b h w"],
    alpha: float,
) -> Float[Array, "b"]:
    """Eq. 7, for anomalies with masks.

    `mean_u((1 - y) phi) - alpha log(1 - exp(-mean_u(y phi)))`: normal positions are to be
    reconstructed and anomalous ones not; an image without any of these has the first term alone.

    Args:
        f: features.
        f_hat: their reconstruction.
        y: True at anomalous positions.
        alpha: the weight of the anomalous term.
    """
    phi = pseudo_huber(f, f_hat)
    normal_part = jnp.mean(jnp.where(y, 0, phi), axis=(1, 2))
    anomalous_part = jnp.mean(jnp.where(y, phi, 0), axis=(1, 2))
    return normal_part + alpha * _repelled(anomalous_part, y.any(axis=(1, 2)))


def image_labelled(
    f: Float[Array, "b h w c"],
    f_hat: Float[Array, "b h w c"],
    y: Bool[Array, "b"],
    alpha: float,
    k: int,
) -> Float[Array, "b"]:
    """Eqs. 8 and 9, for anomalies that are known as images only.

    `q = mean of the k largest phi`, and `(1 - y) q - alpha y log(1 - exp(-q))`.

    Args:
        f: features.
        f_hat: their reconstruction.
        y: True for anomalous images.
        alpha: the weight of the anomalous term.
        k: how many positions count; all of them where there are fewer.
    """
    phi = pseudo_huber(f, f_hat).reshape(len(f), -1)
    q = jax.lax.top_k(phi, min(k, phi.shape[1]))[0].mean(axis=1)
    return jnp.where(y, 0, q) + alpha * _repelled(q, y)


def _repelled(x: Float[Array, "b"], anomalous: Bool[Array, "b"]) -> Float[Array, "b"]:
    """`-log(1 - exp(-x))` where `anomalous`, else 0; also its gradient is finite everywhere."""
    x = jnp.where(anomalous, jnp.maximum(x, FLOOR), 1.0)
    return jnp.where(anomalous, -jnp.log(-jnp.expm1(-x)), 0.0)
