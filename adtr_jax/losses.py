"""The losses, one value an image; the training step takes their mean over the global batch.

`f` are the backbone's features, `f_hat` their reconstruction, both `[b, h, w, c]`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def normal(f: Float[Array, "b h w c"], f_hat: Float[Array, "b h w c"]) -> Float[Array, "b"]:
    """Eq. 1, for normal images: squared difference, summed over channels, mean over positions."""
    return jnp.mean(jnp.sum(jnp.square(f - f_hat), axis=-1), axis=(1, 2))
