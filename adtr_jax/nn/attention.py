"""Multi-head attention; position embeddings go to queries and keys, never to values."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt32

from adtr_jax.nn import cpu
from adtr_jax.nn.dropout import dropout
from adtr_jax.nn.layers import Dense


@cpu.on_cpu(cpu.attend)
def attend(
    q: Float[Array, "b heads n e"],
    k: Float[Array, "b heads m e"],
    v: Float[Array, "b heads m e"],
    seed: UInt32[Array, "b"] | None,
    *,
    rate: float,
    site: int,
) -> Float[Array, "b heads n e"]:
    """`softmax(q k^T / sqrt(e)) v`, the softmax in float32 or wider.

    Drops attention weights with probability `rate` where there are seeds.
    """
    full = jnp.promote_types(q.dtype, jnp.float32)
    scaled = q * (q.shape[-1] ** -0.5)
    scores = jnp.einsum("bhqe,bhke->bhqk", scaled, k, preferred_element_type=full)
    weights = jax.nn.softmax(scores, axis=-1)
    if seed is not None:
        weights = dropout(weights, rate, seed, site)
    return jnp.einsum("bhqk,bhke->bhqe", weights.astype(v.dtype), v)


class Attention(nnx.Module):
    """Multi-head attention (Vaswani et al. 2017), `heads` heads of width `width / heads`."""

    def __init__(self, width: int, heads: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.heads = heads
        self.query = Dense(width, width, dtype=dtype, rngs=rngs)
        self.key = Dense(width, width, dtype=dtype, rngs=rngs)
        self.value = Dense(width, width, dtype=dtype, rngs=rngs)
        self.out = Dense(width, width, dtype=dtype, rngs=rngs)

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

        def split(x: Array) -> Array:
            return x.reshape(*x.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)

        q, k, v = split(self.query(q)), split(self.key(k)), split(self.value(v))
        out = attend(q, k, v, seed, rate=rate, site=site).transpose(0, 2, 1, 3)
        return self.out(out.reshape(*out.shape[:2], -1))
