"""The two one-layer networks of Section 3.2, which reconstruct features.

Both are trained on the features x+ of normal images. The paper expects the linear layer to become
the identity, so that it reconstructs anomalies too, and the attention layer not to, because its
query is tied to the normal features.

Letters: `b` batch, `K` positions, `C` channels.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class LinearLayer(nnx.Module):
    """Eq. 4: `x_hat = x w + b`, a 1x1 convolution.

    Args:
        channels: C.
        rngs: needs a `params` stream. w is Xavier-uniform, b is 0.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        initial = nnx.initializers.xavier_uniform()
        self.w = nnx.Param(initial(rngs.params(), (channels, channels)))
        self.b = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Float[Array, "b K C"]) -> Float[Array, "b K C"]:
        return x @ self.w[...] + self.b[...]

    def distance_to_identity(self) -> Float[Array, ""]:
        """How far w is from I: `||w - I|| / ||I||` in the Frobenius norm; 0 for the identity."""
        identity = jnp.eye(len(self.w[...]))
        return jnp.linalg.norm(self.w[...] - identity) / jnp.linalg.norm(identity)


class AttentionLayer(nnx.Module):
    """Eq. 5: `x_hat = softmax(q x^T / sqrt(C)) x` with a learned query q [K, C].

    Args:
        positions: K.
        channels: C.
        rngs: needs a `params` stream. q is normal with standard deviation 0.02, as in ADTR.
    """

    def __init__(self, positions: int, channels: int, *, rngs: nnx.Rngs):
        initial = nnx.initializers.normal(0.02)
        self.q = nnx.Param(initial(rngs.params(), (positions, channels)))

    def __call__(self, x: Float[Array, "b K C"]) -> Float[Array, "b K C"]:
        return self.map(x) @ x

    def map(self, x: Float[Array, "b K C"]) -> Float[Array, "b K K"]:
        """The attention map `softmax(q x^T / sqrt(C))`: row u is what position u is made of.

        The identity reconstructs x exactly.
        """
        scores = jnp.einsum("uc,bvc->buv", self.q[...], x) / x.shape[-1] ** 0.5
        return jax.nn.softmax(scores, axis=-1)
