"""Multi-head attention; position embeddings go to queries and keys, never to values."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int32, UInt32

from adtr_jax.devices.sharding import platform
from adtr_jax.nn import cpu
from adtr_jax.nn.dropout import dropout
from adtr_jax.nn.layers import Dense

MANY = 512  # tokens; of more, what a layer computes is not kept for the gradient
BLOCK = 2**20  # attention weights of an image that are in memory at once then
LEAST_ROWS = 16  # of a block: fewer would be slow
ATTENDED = "attended"  # names what `jax.checkpoint` need not compute again


@dataclass(frozen=True)
class Neighbours:
    """To which positions a token may not attend: those in a window around its own (UniAD).

    Otherwise it could copy what it sees, of an anomaly too.

    Attributes:
        size: of the window, in tokens a side; odd, and less than the feature maps have.
        width: of the feature maps, in tokens.
    """

    size: int
    width: int

    def mask(self, queries: Int32[Array, "n"], keys: Int32[Array, "m"]) -> Bool[Array, "n m"]:
        """Returns whether a query's token may not attend to a key's; tokens are numbered by row."""
        reach = self.size // 2
        rows, columns = (
            jnp.abs(of(queries, self.width)[:, None] - of(keys, self.width)[None]) <= reach
            for of in (jnp.floor_divide, jnp.remainder)
        )
        return rows & columns


@cpu.on_cpu(cpu.attend)
def attend(  # noqa: PLR0917 (arrays go by position: see `on_cpu`)
    q: Float[Array, "b heads n e"],
    k: Float[Array, "b heads m e"],
    v: Float[Array, "b heads m e"],
    seed: UInt32[Array, "b"] | None,
    entry: UInt32[Array, "heads n m"] | None = None,
    mask: Bool[Array, "n m"] | None = None,
    *,
    rate: float,
    site: int,
) -> Float[Array, "b heads n e"]:
    """`softmax(q k^T / sqrt(e)) v`, the softmax in float32 or wider.

    Drops attention weights with probability `rate` where there are seeds; `entry` numbers them, as
    in `dropout`. Where `mask` is true they are zero; it leaves every query a key.
    """
    full = jnp.promote_types(q.dtype, jnp.float32)
    scaled = q * (q.shape[-1] ** -0.5)
    scores = jnp.einsum("bhqe,bhke->bhqk", scaled, k, preferred_element_type=full)
    if mask is not None:
        scores = jnp.where(mask, -jnp.inf, scores)
    weights = jax.nn.softmax(scores, axis=-1)
    if seed is not None:
        weights = dropout(weights, rate, seed, site, entry)
    return jnp.einsum("bhqk,bhke->bhqe", weights.astype(v.dtype), v)


def are_many(tokens: int) -> bool:
    """Returns whether so many tokens are computed a part at a time, which takes less memory.

    Plain forms (`cpu.plain_forms`) are not: the engines that read them have no fast code for loops.
    """
    return tokens > MANY and platform.value != "any"


def attend_in_blocks(
    q: Float[Array, "b heads n e"],
    k: Float[Array, "b heads m e"],
    v: Float[Array, "b heads m e"],
    seed: UInt32[Array, "b"] | None,
    neighbours: Neighbours | None = None,
    *,
    rate: float,
    site: int,
    blocks: int,
) -> Float[Array, "b heads n e"]:
    """`attend` for a block of the queries at a time; its weights are computed again for gradients.

    It drops the same weights, and takes memory in proportion to n + m, not n m.
    """
    heads, n, m = q.shape[1], q.shape[2], k.shape[2]
    rows = -(-n // blocks)
    q = jnp.pad(q, ((0, 0), (0, 0), (0, blocks * rows - n), (0, 0)))
    q = jnp.moveaxis(q.reshape(*q.shape[:2], blocks, rows, -1), 2, 0)

    @functools.partial(jax.checkpoint, prevent_cse=False)  # between two loops nothing is merged
    def one(block: tuple[Array, Array]) -> Array:
        first, q = block
        head, row, column = (
            lax.broadcasted_iota(jnp.uint32, (heads, rows, m), axis) for axis in range(3)
        )
        entry = None if seed is None else (head * n + first + row) * m + column
        mask = None
        if neighbours is not None:
            mask = neighbours.mask(first.astype(jnp.int32) + jnp.arange(rows), jnp.arange(m))
        return attend(q, k, v, seed, entry, mask, rate=rate, site=site)

    firsts = jnp.arange(0, blocks * rows, rows, jnp.uint32)
    out = jnp.moveaxis(lax.map(one, (firsts, q)), 0, 2)
    out = out.reshape(*out.shape[:2], blocks * rows, -1)[:, :, :n]
    return checkpoint_name(out, ATTENDED)


class Attention(nnx.Module):
    """Multi-head attention (Vaswani et al. 2017), `heads` heads of width `width / heads`.

    With `neighbours` queries and keys are the same positions, and each sees what is far from it.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        neighbours: Neighbours | None = None,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.heads, self.neighbours = heads, neighbours
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
        n, m, near = q.shape[2], k.shape[2], self.neighbours
        if are_many(max(n, m)):
            blocks = min(-(-self.heads * n * m // BLOCK), -(-n // LEAST_ROWS))
            out = attend_in_blocks(q, k, v, seed, near, rate=rate, site=site, blocks=blocks)
        else:
            mask = None if near is None else near.mask(jnp.arange(n), jnp.arange(m))
            out = attend(q, k, v, seed, None, mask, rate=rate, site=site)
        out = out.transpose(0, 2, 1, 3)
        return self.out(out.reshape(*out.shape[:2], -1))
