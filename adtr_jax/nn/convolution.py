"""Convolution, BatchNorm and activation: the one building block of the backbones."""

import math
from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from adtr_jax.devices.sharding import AXIS
from adtr_jax.nn import cpu, initial
from adtr_jax.nn.cpu import Padding
from adtr_jax.nn.layers import product

MOMENTUM = 0.1  # how far BatchNorm's running statistics move in one step; PyTorch's default

Activation = Callable[[Array], Array]


@cpu.on_cpu(cpu.convolution)
def convolution(
    x: Float[Array, "b h w cin"],
    kernel: Float[Array, "kh kw cin_per_group cout"],
    *,
    stride: int,
    padding: Padding,
    groups: int = 1,
) -> Float[Array, "b h2 w2 cout"]:
    """XLA's own convolution; with as many groups as channels, a depthwise one."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        (padding, padding),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


class ConvBatchNorm(nnx.Module):
    """Convolution without bias, BatchNorm, activation.

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
        activation: Activation | None = None,
        rngs: nnx.Rngs,
    ):
        self.stride, self.padding, self.epsilon = stride, padding, epsilon
        self.depthwise, self.activation = depthwise, activation
        # Variance 2 / fan-out as in the reference; a depthwise kernel fans out to one channel.
        fan_out = size * size * (1 if depthwise else outputs)
        shape = (size, size, 1 if depthwise else inputs, outputs)
        self.kernel = nnx.Param(initial.normal(rngs.params(), shape, math.sqrt(2 / fan_out)))
        self.scale = nnx.Param(jnp.ones(outputs))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.mean = nnx.BatchStat(jnp.zeros(outputs))
        self.var = nnx.BatchStat(jnp.ones(outputs))

    def __call__(
        self, x: Float[Array, "b h w cin"], weight: Float[Array, "b"] | None = None
    ) -> Float[Array, "b h2 w2 cout"]:
        """Applies the three.

        Args:
            x: feature maps.
            weight: None normalises by the running statistics. In training, 1 for each image that
                counts in the statistics of the global batch and 0 for one that only fills it up;
                the running statistics move towards them. Needs the mesh axis `AXIS`.
        """
        kernel = self.kernel[...]
        if weight is None:
            multiplier, offset = self._affine(self.mean[...], self.var[...])
            if self.depthwise:  # few weights: folding the multiplier in saves a pass over the map
                y = self._convolve(x, kernel * multiplier)
                return self._activated(y + offset.astype(x.dtype))
            y = self._convolve(x, kernel)
        else:
            y = self._convolve(x, kernel)
            multiplier, offset = self._affine(*self._batch_statistics(y, weight))
        # The multiplier goes into the loop that adds the offset and activates: folding it into
        # the kernel would copy all weights in every call, a fifth of the time of one image.
        return self._activated(y * multiplier.astype(x.dtype) + offset.astype(x.dtype))

    def _convolve(self, x: Array, kernel: Array) -> Array:
        kernel = kernel.astype(x.dtype)
        if kernel.shape[:2] == (1, 1) and not self.depthwise:
            return product(x[:, :: self.stride, :: self.stride], kernel[0, 0])
        groups = x.shape[-1] if self.depthwise else 1
        return convolution(x, kernel, stride=self.stride, padding=self.padding, groups=groups)

    def _activated(self, y: Array) -> Array:
        return y if self.activation is None else self.activation(y)

    def _affine(self, mean: Array, var: Array) -> tuple[Array, Array]:
        """BatchNorm as y -> y * multiplier + offset."""
        multiplier = self.scale[...] * lax.rsqrt(var + self.epsilon)
        return multiplier, self.bias[...] - mean * multiplier

    def _batch_statistics(self, y: Array, weight: Array) -> tuple[Array, Array]:
        """Mean and variance of the global batch; moves the running ones as PyTorch does."""
        counts = weight[:, None, None, None]
        total = lax.psum(jnp.sum(weight), AXIS) * (y.shape[1] * y.shape[2])

        def mean_of(values: Array) -> Array:
            return lax.psum(jnp.sum(values * counts, axis=(0, 1, 2)), AXIS) / total

        y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
        mean = mean_of(y)
        var = mean_of(jnp.square(y - mean))
        # The running variance estimates that of all images: PyTorch counts n - 1 there.
        unbiased = var * (total / jnp.maximum(total - 1, 1))
        for running, new in ((self.mean, mean), (self.var, unbiased)):
            running[...] = running[...] + MOMENTUM * (lax.stop_gradient(new) - running[...])
        return mean, var
