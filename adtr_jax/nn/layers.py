"""Dense layer and LayerNorm on the channels of tokens.

All tokens are the rows of one matrix, so that a kernel's gradient is one product of matrices: for
sums over two axes XLA's CPU backend transposes both operands first.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from adtr_jax.devices.sharding import varying_as
from adtr_jax.nn import initial

EPSILON = 1e-5  # LayerNorm's; PyTorch's default


class Dense(nnx.Module):
    """A dense layer on the channel axis: Xavier-uniform kernel in float32, zero bias."""

    def __init__(self, inputs: int, outputs: int, dtype: DTypeLike, rngs: nnx.Rngs):
        self.dtype = dtype
        zeros = nnx.initializers.zeros_init()
        self.kernel = nnx.Param(initial.xavier_uniform(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(zeros(rngs.params(), (outputs,), jnp.float32))

    def __call__(self, x: Float[Array, "... cin"]) -> Float[Array, "... cout"]:
        """Applies the layer to every token."""
        rows = x.reshape(-1, x.shape[-1]).astype(self.dtype)
        rows = rows @ self.kernel[...].astype(self.dtype)
        rows = rows + _to_all(self.bias[...].astype(self.dtype), rows)
        return rows.reshape(*x.shape[:-1], rows.shape[-1])


class LayerNorm(nnx.Module):
    """LayerNorm over the channels of a token (Ba et al. 2016), computed in float32 or wider."""

    def __init__(self, channels: int, dtype: DTypeLike, rngs: nnx.Rngs):
        self.dtype = dtype
        ones, zeros = nnx.initializers.ones_init(), nnx.initializers.zeros_init()
        self.scale = nnx.Param(ones(rngs.params(), (channels,), jnp.float32))
        self.bias = nnx.Param(zeros(rngs.params(), (channels,), jnp.float32))

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        """Brings every token to mean 0 and variance 1, scales and shifts it."""
        rows = x.reshape(-1, x.shape[-1]).astype(jnp.promote_types(self.dtype, jnp.float32))
        channels = rows.shape[1]
        rows = rows - repeat(total(rows, 1) / channels, 1, channels)
        inverse = lax.rsqrt(total(jnp.square(rows), 1) / channels + EPSILON)
        rows = rows * repeat(inverse, 1, channels)
        rows = rows * _to_all(self.scale[...], rows) + _to_all(self.bias[...], rows)
        return rows.reshape(x.shape).astype(self.dtype)


def _to_all(values: Float[Array, "c"], rows: Float[Array, "t c"]) -> Float[Array, "t c"]:
    """The same values, one a channel, for every row."""
    # The gradient is one device's: the values count as its own until it is summed over all.
    return repeat(varying_as(values, rows)[None], 0, len(rows))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def total(x: Float[Array, "t c"], axis: int) -> Float[Array, "_ _"]:
    """The sum along an axis, which is kept with length 1; a gradient of it is a `repeat`."""
    return _total(x, axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def repeat(x: Float[Array, "_ _"], axis: int, times: int) -> Float[Array, "_ _"]:
    """An axis of length 1 made longer by repetition; a gradient of it is a `total`."""
    return jnp.broadcast_to(x, (times, x.shape[1]) if axis == 0 else (x.shape[0], times))


@functools.partial(jax.jit, static_argnums=1)
def _total(x: Array, axis: int) -> Array:
    """As a product with ones on the CPU, whose XLA takes five times as long for a sum."""

    def product(x: Array) -> Array:
        ones, full = jnp.ones(x.shape[axis], x.dtype), jnp.promote_types(x.dtype, jnp.float32)
        factors = (ones[None], x) if axis == 0 else (x, ones[:, None])
        return jnp.matmul(*factors, preferred_element_type=full).astype(x.dtype)

    return lax.platform_dependent(
        x, cpu=product, default=functools.partial(jnp.sum, axis=axis, keepdims=True)
    )


total.defvjp(
    lambda x, axis: (total(x, axis), x.shape[axis]),
    lambda axis, times, dy: (repeat(dy, axis, times),),
)
repeat.defvjp(
    lambda x, axis, times: (repeat(x, axis, times), None),
    lambda axis, times, _, dy: (total(dy, axis),),
)


def largest(x: Float[Array, "... c"]) -> Float[Array, "... 1"]:
    """The maximum along the last axis."""

    def by_halves(x: Array) -> Array:
        # Whole vectors are compared, where XLA's CPU backend compares number by number.
        while x.shape[-1] > 16 and x.shape[-1] % 2 == 0:
            x = jnp.maximum(*jnp.split(x, 2, axis=-1))
        return jnp.max(x, axis=-1, keepdims=True)

    return lax.platform_dependent(
        x, cpu=by_halves, default=functools.partial(jnp.max, axis=-1, keepdims=True)
    )
