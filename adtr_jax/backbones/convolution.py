"""Convolution, inference BatchNorm and activation: the one building block of the backbones."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

Activation = Callable[[Array], Array]
Padding = tuple[int, int]  # before and after, the same for rows and columns


def swish(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Swish, x * sigmoid(x) with sigmoid(x) = (1 + tanh(x/2)) / 2.

    XLA's CPU backend computes tanh faster than its logistic function.
    """
    half = 0.5 * x
    return half + half * jnp.tanh(half)


def relu6(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """min(max(x, 0), 6)."""
    return jnp.clip(x, 0, 6)


def identity(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """No activation."""
    return x


class ConvNorm(nnx.Module):
    """Convolution without bias, BatchNorm with its running statistics, activation.

    Weights are float32 and are used in the images' dtype. State: `kernel` [kh, kw, cin, cout]
    (depthwise: [kh, kw, 1, c]), BatchNorm's `scale` and `bias`, and its statistics `mean` and
    `var`, [cout] each.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 1,
        *,
        stride: int = 1,
        padding: Padding = (0, 0),
        depthwise: bool = False,
        epsilon: float,
        activation: Activation = identity,
        rngs: nnx.Rngs,
    ):
        self.stride, self.padding, self.epsilon = stride, padding, epsilon
        self.depthwise, self.activation = depthwise, activation
        # Variance 2 / fan-out as in the reference; a depthwise kernel fans out to one channel.
        fan_out = size * size * (1 if depthwise else outputs)
        draw = nnx.initializers.normal(math.sqrt(2 / fan_out))
        shape = (size, size, 1 if depthwise else inputs, outputs)
        self.kernel = nnx.Param(draw(rngs.params(), shape))
        self.scale = nnx.Param(jnp.ones(outputs))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.mean = nnx.BatchStat(jnp.zeros(outputs))
        self.var = nnx.BatchStat(jnp.ones(outputs))

    def __call__(self, x: Float[Array, "b h w cin"]) -> Float[Array, "b h2 w2 cout"]:
        """Applies the three, with BatchNorm's running statistics."""
        multiplier = self.scale[...] * lax.rsqrt(self.var[...] + self.epsilon)
        offset = (self.bias[...] - self.mean[...] * multiplier).astype(x.dtype)
        if self.depthwise:
            kernel = (self.kernel[...] * multiplier).astype(x.dtype)
            y = depthwise_convolution(x, kernel, self.stride, self.padding)
            return self.activation(y + offset)
        # The multiplier goes into the loop that adds the offset and activates: folding it into
        # the kernel would copy all weights in every call, a fifth of the time of one image.
        kernel = self.kernel[...].astype(x.dtype)
        if kernel.shape[:2] == (1, 1):
            x = x[:, :: self.stride, :: self.stride]
            y = jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0])
        else:
            y = convolution(x, kernel, self.stride, self.padding)
        return self.activation(y * multiplier.astype(x.dtype) + offset)


class Dense(nnx.Module):
    """y = x W + b in the dtype of x. State: `kernel` [cin, cout], `bias` [cout]."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        draw = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(draw(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Float[Array, "b cin"]) -> Float[Array, "b cout"]:
        """Applies the layer to every row."""
        return x @ self.kernel[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


def convolution(
    x: Float[Array, "b h w cin"],
    kernel: Float[Array, "kh kw cin_per_group cout"],
    stride: int,
    padding: Padding,
    groups: int = 1,
) -> Float[Array, "b h2 w2 cout"]:
    """XLA's own convolution, NHWC and HWIO."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        (padding, padding),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def depthwise_convolution(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k 1 c"], stride: int, padding: Padding
) -> Float[Array, "b h2 w2 c"]:
    """One k x k filter a channel, in the form that is fast where it is lowered.

    XLA's CPU backend has no fast code for grouped convolutions; there the sum of shifted slices
    makes the whole of B4 more than five times as fast. GPU and TPU run the convolution itself.
    """
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(shifted_sum, stride=stride, padding=padding),
        default=functools.partial(convolution, stride=stride, padding=padding, groups=x.shape[-1]),
    )


def shifted_sum(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k 1 c"], stride: int, padding: Padding
) -> Float[Array, "b h2 w2 c"]:
    """A depthwise convolution as the sum of k*k shifted slices, each scaled channel by channel."""
    size, c = kernel.shape[0], x.shape[-1]
    # The barrier keeps XLA from fusing the padding, and the activation before it, into the sum,
    # where both would be done again for each of the k*k slices.
    x = lax.optimization_barrier(jnp.pad(x, ((0, 0), padding, padding, (0, 0))))
    b, h, w, _ = x.shape
    h, w = (h - size) // stride, (w - size) // stride  # the last output row and column
    total = jnp.zeros((), x.dtype)
    for i in range(size):
        for j in range(size):
            end = (b, i + h * stride + 1, j + w * stride + 1, c)
            shifted = lax.slice(x, (0, i, j, 0), end, (1, stride, stride, 1))
            total = total + shifted * kernel[i, j, 0]
    return total
