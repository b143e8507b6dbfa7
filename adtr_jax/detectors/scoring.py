"""From the feature difference to the score map and the image score (Eqs. 2 and 3, Section 3.1)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adtr_jax.config import ImageScore
from adtr_jax.detectors.resize import resize, spread


def token_scores(
    f: Float[Array, "b h w c"], f_hat: Float[Array, "b h w c"]
) -> Float[Array, "b h w"]:
    """s(u) = || f(:, u) - f_hat(:, u) ||_2 at every position u."""
    return jnp.linalg.norm(f - f_hat, axis=-1)


def relative_scores(
    f: Float[Array, "b h w c"], f_hat: Float[Array, "b h w c"]
) -> Float[Array, "b h w"]:
    """|| f(:, u) - f_hat(:, u) ||_2 in proportion to the features, at every position u.

    Large features are reconstructed with large differences. c, the mean squared norm of
    standardised features, keeps the proportion small where the features are.
    """
    return token_scores(f, f_hat) / jnp.sqrt(jnp.sum(jnp.square(f), axis=-1) + f.shape[-1])


def score_map(
    tokens: Float[Array, "b h w"], size: int, pixels: tuple[float, float] | None = None
) -> Float[Array, "b s s"]:
    """The token scores raised to `size` x `size` pixels.

    Args:
        tokens: s(u).
        size: s, in pixels.
        pixels: spacing and offset of the tokens in the image (`token_positions`); None
            spreads them from corner to corner (align_corners=True), as the paper does.
    """
    if pixels is None:
        return resize(tokens[..., None], size, size)[..., 0]
    return spread(tokens[..., None], size, *pixels)[..., 0]


def image_score(
    tokens: Float[Array, "b h w"], maps: Float[Array, "b s s"], kind: ImageScore
) -> Float[Array, "b"]:
    """One score an image.

    Args:
        tokens: s(u); for `relative` the standardised `relative_scores`.
        maps: the score maps made of s(u).
        kind: `pooled_max`, the paper's, is the maximum of the average-pooled map: window s/16
            (16 x 16 at s = 256), stride 1, no padding. `max` and `mean` are those of the whole
            map. `top` is the mean of the largest 5 % of the token scores, in the form of Eq. 8:
            no single outlying token decides it. `relative` is the same, of other token scores.
    """
    if kind == "max":
        return maps.max(axis=(1, 2))
    if kind == "mean":
        return maps.mean(axis=(1, 2))
    if kind in ("top", "relative"):
        values = tokens.reshape(tokens.shape[0], -1)
        return jax.lax.top_k(values, max(1, round(0.05 * values.shape[1])))[0].mean(axis=1)
    window = max(1, round(maps.shape[1] / 16))
    for shape in ((1, window, 1), (1, 1, window)):  # rows, then columns: fewer sums
        maps = jax.lax.reduce_window(maps, 0.0, jax.lax.add, shape, (1, 1, 1), "VALID")
    return maps.max(axis=(1, 2)) / window**2
