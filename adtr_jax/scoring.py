"""From the feature difference to the score map and the image score (Eqs. 2 and 3, Section 4.2)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adtr_jax.config import ImageScore
from adtr_jax.resize import resize, spread


def score_map(
    f: Float[Array, "b h w c"],
    f_hat: Float[Array, "b h w c"],
    size: int,
    pixels: tuple[float, float] | None = None,
) -> Float[Array, "b s s"]:
    """s(u) = || f(:, u) - f_hat(:, u) ||_2, raised to `size` x `size` pixels.

    Args:
        f: features.
        f_hat: their reconstruction.
        size: s, in pixels.
        pixels: spacing and offset of the tokens in the image (`features.token_pixels`); None
            spreads them from corner to corner (align_corners=True), as the paper does.
    """
    distance = jnp.linalg.norm(f - f_hat, axis=-1, keepdims=True)
    if pixels is None:
        return resize(distance, size, size)[..., 0]
    return spread(distance, size, *pixels)[..., 0]


def image_score(maps: Float[Array, "b s s"], kind: ImageScore = "pooled_max") -> Float[Array, "b"]:
    """One score an image from its score map.

    `pooled_max`, the paper's, is the maximum of the average-pooled map: window s/16 (16 x 16 at
    s = 256), stride 1, no padding. `top` is the mean of the map's largest 5 %, which one outlying
    token does not decide; `max` and `mean` are those of the whole map.
    """
    if kind == "max":
        return maps.max(axis=(1, 2))
    if kind == "mean":
        return maps.mean(axis=(1, 2))
    if kind == "top":
        values = maps.reshape(len(maps), -1)
        return jax.lax.top_k(values, max(1, round(0.05 * values.shape[1])))[0].mean(axis=1)
    window = max(1, round(maps.shape[1] / 16))
    pooled = jax.lax.reduce_window(maps, 0.0, jax.lax.add, (1, window, window), (1, 1, 1), "VALID")
    return pooled.max(axis=(1, 2)) / window**2
