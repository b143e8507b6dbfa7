"""Dense layer and LayerNorm on the channels of tokens, and what the backbones' layers share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from adtr_jax.nn import cpu, initial

EPSILON = 1e-5  # LayerNorm's; PyTorch's default


@cpu.on_cpu(cpu.product)
def product(
    x: Float[Array, "... cin"], kernel: Float[Array, "cin cout"]
) -> Float[Array, "... cout"]:
    """X W."""
    return x @ kernel


@cpu.on_cpu(cpu.dense)
def dense(
    x: Float[Array, "... cin"], kernel: Float[Array, "cin cout"], bias: Float[Array, "cout"]
) -> Float[Array, "... cout"]:
    """X W + b."""
    return x @ kernel + bias


@cpu.on_cpu(cpu.layer_norm)
def layer_norm(
    x: Float[Array, "... c"], scale: Float[Array, "c"], bias: Float[Array, "c"], *, epsilon: float
) -> Float[Array, "... c"]:
    """Brings every token to mean 0 and variance 1, scales and shifts it."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred * lax.rsqrt(variance + epsilon) * scale + bias


@cpu.on_cpu(cpu.global_mean)
def global_mean(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """The mean over all positions."""
    return x.mean(axis=(1, 2))


@cpu.on_cpu(cpu.swish)
def swish(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """X * sigmoid(x)."""
    return jax.nn.swish(x)


def relu6(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """min(max(x, 0), 6)."""
    return jnp.clip(x, 0, 6)


class Dense(nnx.Module):
    """A dense layer on the channel axis.

    Args:
        inputs, outputs: channels.
        dtype: of the computation; None: that of the input. Parameters are float32.
        kernel_init: (key, shape) -> kernel [inputs, outputs]; the bias starts at 0.
        rngs: needs a `params` stream.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        dtype: DTypeLike | None = None,
        kernel_init: Callable[..., Array] = initial.xavier_uniform,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        self.kernel = nnx.Param(kernel_init(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Float[Array, "... cin"]) -> Float[Array, "... cout"]:
        """Applies the layer to every token."""
        x = x.astype(self.dtype or x.dtype)
        return dense(x, self.kernel[...].astype(x.dtype), self.bias[...].astype(x.dtype))


class LayerNorm(nnx.Module):
    """LayerNorm over the channels of a token (Ba et al. 2016), computed in float32 or wider."""

    def __init__(self, channels: int, *, dtype: DTypeLike):
        self.dtype = dtype
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        """Normalises every token."""
        wide = x.astype(jnp.promote_types(self.dtype, jnp.float32))
        normed = layer_norm(wide, self.scale[...], self.bias[...], epsilon=EPSILON)
        return normed.astype(self.dtype)
