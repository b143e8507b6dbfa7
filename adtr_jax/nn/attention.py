"""Multi-head attention; position embeddings go to queries and keys, never to values."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt32

from adtr_jax.nn.dropout import dropout
from adtr_jax.nn.layers import Dense, largest, total


class Attention(nnx.Module):
    """Multi-head attention (Vaswani et al. 2017), `heads` heads of width `width / heads`."""

    def __init__(self, width: int, heads: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.heads = heads
        self.query = Dense(width, width, dtype, rngs)
        self.key = Dense(width, width, dtype, rngs)
        self.value = Dense(width, width, dtype, rngs)
        self.out = Dense(width, width, dtype, rngs)

    def __call__(
        self,
        q: Float[Array, "b n d"],
        k: Float[Array, "b m d"],
        v: Float[Array, "b m d"],
        *,
        rate: float = 0.0,
        seed: UInt32[Array, "b"] | None = None,
        site: int = 0,
    ) -> Float[Array, "b n d"]:
        """Attends; drops attention weights with probability `rate` where seeds are given."""
        b, n, d = q.shape

        def split(x: Array) -> Array:
            # [b*heads, n, d/heads] operands: plain batched matrix products, fast on every backend.
            x = x.reshape(b, x.shape[1], self.heads, d // self.heads)
            return x.transpose(0, 2, 1, 3).reshape(b * self.heads, -1, d // self.heads)

        q, k, v = split(self.query(q)), split(self.key(k)), split(self.value(v))
        full = jnp.promote_types(q.dtype, jnp.float32)  # the softmax is never in bfloat16
        scores = jnp.einsum(
            "bqd,bkd->bqk", q * (q.shape[-1] ** -0.5), k, preferred_element_type=full
        )
        # Softmax, divided by its sum only after the product with V: n x d divisions, not n x m.
        weights = jnp.exp(scores - largest(jax.lax.stop_gradient(scores)))
        sums = total(weights.reshape(-1, weights.shape[-1]), 1).reshape(*weights.shape[:-1], 1)
        if seed is not None:
            shape = weights.shape
            weights = dropout(weights.reshape(b, -1), rate, seed, site).reshape(shape)
        out = jnp.einsum("bqk,bkd->bqd", weights.astype(v.dtype), v) / sums.astype(v.dtype)
        out = out.reshape(b, self.heads, n, d // self.heads).transpose(0, 2, 1, 3)
        return self.out(out.reshape(b, n, d))
