"""Convolution, BatchNorm and activation: the one building block of the backbones."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from adtr_jax.devices.sharding import AXIS, varying_as
from adtr_jax.nn import initial

MOMENTUM = 0.1  # how far BatchNorm's running statistics move in one step; PyTorch's default

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
        activation: Activation = identity,
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
                return self.activation(y + offset.astype(x.dtype))
            y = self._convolve(x, kernel)
        else:
            y = self._convolve(x, kernel)
            multiplier, offset = self._affine(*self._batch_statistics(y, weight))
        # The multiplier goes into the loop that adds the offset and activates: folding it into
        # the kernel would copy all weights in every call, a fifth of the time of one image.
        return self.activation(y * multiplier.astype(x.dtype) + offset.astype(x.dtype))

    def _convolve(self, x: Array, kernel: Array) -> Array:
        kernel = kernel.astype(x.dtype)
        if self.depthwise:
            return depthwise_convolution(x, kernel, self.stride, self.padding)
        if kernel.shape[:2] == (1, 1):
            x = x[:, :: self.stride, :: self.stride]
            # One product of matrices, whose gradient is one too: see `models.layers`.
            return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], -1)
        return convolution(x, kernel, self.stride, self.padding)

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


class Dense(nnx.Module):
    """y = x W + b in the dtype of x. State: `kernel` [cin, cout], `bias` [cout]."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        draw = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(draw(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Float[Array, "b cin"]) -> Float[Array, "b cout"]:
        """Applies the layer to every row."""
        return x @ self.kernel[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


def native_convolution(
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


def convolution(
    x: Float[Array, "b h w cin"],
    kernel: Float[Array, "k k cin cout"],
    stride: int,
    padding: Padding,
) -> Float[Array, "b h2 w2 cout"]:
    """A convolution whose gradient is fast where it is lowered.

    XLA's CPU backend has no fast code for the kernel's gradient inside a loop, as a training step
    is: 60 times as slow as what is written here. GPU and TPU differentiate the convolution itself.
    """
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(by_hand, stride=stride, padding=padding),
        default=functools.partial(native_convolution, stride=stride, padding=padding),
    )


def by_hand(
    x: Float[Array, "b h w cin"],
    kernel: Float[Array, "k k cin cout"],
    stride: int,
    padding: Padding,
) -> Float[Array, "b h2 w2 cout"]:
    """XLA's convolution with a gradient of our own: a convolution, and k*k matrix products."""
    # The gradient below is one device's: the kernel counts as its own until it is summed over all.
    return _by_hand(x, varying_as(kernel, x), stride, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_hand(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    return native_convolution(x, kernel, stride, padding)


def _by_hand_forward(
    x: Array, kernel: Array, stride: int, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
    return native_convolution(x, kernel, stride, padding), (x, kernel)


def _by_hand_backward(
    stride: int, padding: Padding, residuals: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    size = kernel.shape[0]
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    dx = native_convolution(_spread(x, dy, size, stride, padding), turned, 1, (0, 0))
    x = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))
    # A sum over all positions of all images, wherever on the kernel they are seen: in float32.
    products = [
        jnp.einsum(
            "bhwi,bhwo->io",
            _seen(x, dy, i, j, stride),
            dy,
            preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
        )
        for i in range(size)
        for j in range(size)
    ]
    return dx, jnp.stack(products).reshape(kernel.shape).astype(kernel.dtype)


_by_hand.defvjp(_by_hand_forward, _by_hand_backward)


def _spread(x: Array, dy: Array, size: int, stride: int, padding: Padding) -> Array:
    """dy, padded so that the turned kernel brings it back to the size of x."""

    def around(side: int, outputs: int) -> tuple[int, int, int]:
        return size - 1 - padding[0], side - 1 - (outputs - 1) * stride + padding[0], stride - 1

    sides = [around(x.shape[axis], dy.shape[axis]) for axis in (1, 2)]
    return lax.pad(dy, jnp.zeros((), dy.dtype), ((0, 0, 0), *sides, (0, 0, 0)))


def _seen(x: Array, y: Array, i: int, j: int, stride: int) -> Array:
    """What row i and column j of the kernel see of x, which is padded, at every place of y."""
    h, w = (i + (y.shape[1] - 1) * stride + 1, j + (y.shape[2] - 1) * stride + 1)
    return lax.slice(x, (0, i, j, 0), (x.shape[0], h, w, x.shape[3]), (1, stride, stride, 1))


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
        default=functools.partial(
            native_convolution, stride=stride, padding=padding, groups=x.shape[-1]
        ),
    )


def shifted_sum(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k 1 c"], stride: int, padding: Padding
) -> Float[Array, "b h2 w2 c"]:
    """A depthwise convolution as the sum of k*k shifted slices, each scaled channel by channel."""
    # The gradient below is one device's: the kernel counts as its own until it is summed over all.
    return _shifted_sum(x, varying_as(kernel, x), stride, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shifted_sum(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    return _sum_of_slices(jnp.pad(x, ((0, 0), padding, padding, (0, 0))), kernel, stride)


def _forward(
    x: Array, kernel: Array, stride: int, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
    return _shifted_sum(x, kernel, stride, padding), (x, kernel)


def _backward(
    stride: int, padding: Padding, residuals: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
    """The gradient of both, in two fifths of the time that the derivative of the sum takes."""
    x, kernel = residuals
    size = kernel.shape[0]
    dx = _sum_of_slices(_spread(x, dy, size, stride, padding), kernel[::-1, ::-1], 1)
    x = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))
    return dx, _kernel_gradient(x, dy, size, stride).astype(kernel.dtype)


_shifted_sum.defvjp(_forward, _backward)


def _sum_of_slices(x: Array, kernel: Array, stride: int) -> Array:
    """The depthwise convolution of x, which is padded already."""
    # The barrier keeps XLA from fusing the padding, and the activation before it, into the sum,
    # where both would be done again for each of the k*k slices.
    x = lax.optimization_barrier(x)
    size = kernel.shape[0]
    b, h, w, c = x.shape
    h, w = (h - size) // stride, (w - size) // stride  # the last output row and column
    total = jnp.zeros((), x.dtype)
    for i in range(size):
        for j in range(size):
            end = (b, i + h * stride + 1, j + w * stride + 1, c)
            shifted = lax.slice(x, (0, i, j, 0), end, (1, stride, stride, 1))
            total = total + shifted * kernel[i, j, 0]
    return total


def _kernel_gradient(x: Array, dy: Array, size: int, stride: int) -> Array:
    """The gradient [k, k, 1, c] by the kernel: row after row, all k*k sums in one pass over x.

    As k*k reductions of whole maps it is bound by the memory's speed, and four times slower.
    """
    b, h, w, c = dy.shape
    full = jnp.promote_types(x.dtype, jnp.float32)
    span = (w - 1) * stride + 1

    def row(sums: list[Array], index: Array) -> tuple[list[Array], None]:
        image, i = index // h, index % h
        rows = lax.dynamic_slice(x, (image, i * stride, 0, 0), (1, size, x.shape[2], c))[0]
        dy_row = lax.dynamic_slice(dy, (image, i, 0, 0), (1, 1, w, c))[0, 0].astype(full)
        shifted = [
            lax.slice(rows[k], (j, 0), (j + span, c), (stride, 1))
            for k in range(size)
            for j in range(size)
        ]
        return [total + part * dy_row for total, part in zip(sums, shifted, strict=True)], None

    start = [varying_as(jnp.zeros((w, c), full), dy)] * size**2
    sums, _ = lax.scan(row, start, jnp.arange(b * h))
    return jnp.stack([total.sum(axis=0) for total in sums]).reshape(size, size, 1, c)
