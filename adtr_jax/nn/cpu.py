"""The forms that only XLA's CPU backend needs, and the one place where they are chosen.

A layer's mathematics is written plainly where the layer is, and decorated with `on_cpu(form)`. The
form computes the same, values and gradients, by operations that XLA's CPU backend has fast code
for. The gains said below are those of `python -m benchmarks.cpu_forms` on two cores, gradients
inside a compiled loop (benchmarks/results.md has the table). All forms can be differentiated
forward and backward, and mapped, as the plain ones can: where a derivative needs a form of its own,
it is a custom JVP of linear operations whose transposes are fast.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float, UInt32

from adtr_jax.devices.sharding import platform
from adtr_jax.nn.dropout import dropout

Function = TypeVar("Function", bound=Callable[..., Any])
Padding = tuple[int, int]  # before and after, the same for rows and columns


def plain_forms() -> Any:
    """Returns a context in which everything is computed in its plain form, on every device."""
    return platform("any")


def on_cpu(form: Callable[..., Any]) -> Callable[[Function], Function]:
    """Gives a function another form where it is lowered for a CPU.

    Args:
        form: takes what the decorated function takes: arrays by position, all else by name. It is
            that function's attribute `cpu`, and the plain form its attribute `plain`.
    """

    def decorate(plain: Function) -> Function:
        @functools.wraps(plain)
        def chosen(*arrays: Any, **static: Any) -> Any:
            if platform.value is not None:  # tracing both would take twice as long
                return (form if platform.value == "cpu" else plain)(*arrays, **static)
            return lax.platform_dependent(
                *arrays,
                cpu=functools.partial(form, **static),
                default=functools.partial(plain, **static),
            )

        chosen.plain, chosen.cpu = plain, form  # type: ignore[attr-defined]
        return chosen  # type: ignore[return-value]

    return decorate


def _wide(x: Array) -> Any:
    """The dtype of sums: float32 or wider."""
    return jnp.promote_types(x.dtype, jnp.float32)


def varying_as(x: Array, like: Array) -> Array:
    """A parameter, as differing between the devices of a mesh if `like` does.

    Its gradient is summed over the devices here, not where it has been repeated for every token.
    `jax.lax.pcast` does that, but has to be told over which axes, and only where `x` does not vary
    yet; the attribute of a type that says so has changed its name from JAX 0.9 to 0.10.
    """
    nothing = lax.stop_gradient(like)[:0]
    return x + jnp.sum(nothing).astype(x.dtype)


# Sums and their gradients -----------------------------------------------------------------------


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def total(x: Float[Array, "t c"], axis: int) -> Float[Array, "_ _"]:
    """Sums along an axis, which is kept with length 1: a product with ones, not a reduction."""
    ones = jnp.ones(x.shape[axis], x.dtype)
    factors = (ones[None], x) if axis == 0 else (x, ones[:, None])
    return jnp.matmul(*factors, preferred_element_type=_wide(x)).astype(x.dtype)


@total.defjvp
def _total_jvp(axis: int, primals: Any, tangents: Any) -> tuple[Array, Array]:
    # Transposed, this sum is a broadcast; that of the product would be a product again.
    return total(primals[0], axis), jnp.sum(tangents[0], axis, keepdims=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def repeat(x: Float[Array, "_ _"], axis: int, times: Any) -> Float[Array, "_ _"]:
    """Repeats an axis of length 1; its gradient is a sum, again as a product with ones.

    `times` is an int, or in a function that is exported for any batch `16*b`.
    """
    return jnp.broadcast_to(x, (times, x.shape[1]) if axis == 0 else (x.shape[0], times))


@repeat.defjvp
def _repeat_jvp(axis: int, times: int, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (dx,) = tangents
    ones = jnp.ones(times, dx.dtype)
    factors = (ones[:, None], dx) if axis == 0 else (dx, ones[None])
    tangent = jnp.matmul(*factors, preferred_element_type=_wide(dx)).astype(dx.dtype)
    return repeat(primals[0], axis, times), tangent


def global_mean(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """The mean over all positions, its sum as a product of matrices: six times as fast."""
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    ones = jnp.ones(x.shape[:2], x.dtype)
    sums = jnp.einsum("bp,bpc->bc", ones, x, preferred_element_type=_wide(x))
    return (sums / x.shape[1]).astype(x.dtype)


def largest(x: Float[Array, "... c"]) -> Float[Array, "... 1"]:
    """The maximum along the last axis: whole vectors are compared, not number by number."""
    while x.shape[-1] > 16 and x.shape[-1] % 2 == 0:
        x = jnp.maximum(*jnp.split(x, 2, axis=-1))
    return jnp.max(x, axis=-1, keepdims=True)


# Layers of tokens -------------------------------------------------------------------------------


def product(
    x: Float[Array, "... cin"], kernel: Float[Array, "cin cout"]
) -> Float[Array, "... cout"]:
    """All tokens are the rows of one matrix, so that the kernel's gradient is one product.

    For a gradient that is a sum over several axes XLA transposes both operands first: 1.3 times as
    fast with gradients, the same without.
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)


def dense(
    x: Float[Array, "... cin"], kernel: Float[Array, "cin cout"], bias: Float[Array, "cout"]
) -> Float[Array, "... cout"]:
    """As `product`; the bias's gradient is a product, too: 1.4 times as fast with gradients."""
    rows = x.reshape(-1, x.shape[-1]) @ kernel
    rows = rows + repeat(varying_as(bias, rows)[None], 0, rows.shape[0])
    return rows.reshape(*x.shape[:-1], rows.shape[-1])


def layer_norm(
    x: Float[Array, "... c"], scale: Float[Array, "c"], bias: Float[Array, "c"], *, epsilon: float
) -> Float[Array, "... c"]:
    """LayerNorm whose sums, over channels and in gradients over tokens, are products.

    1.6 times as fast, 1.8 times with gradients.
    """
    rows = x.reshape(-1, x.shape[-1])
    count, channels = rows.shape
    scale, bias = varying_as(scale, rows), varying_as(bias, rows)
    rows = rows - repeat(total(rows, 1) / channels, 1, channels)
    inverse = lax.rsqrt(total(jnp.square(rows), 1) / channels + epsilon)
    rows = rows * repeat(inverse, 1, channels)
    rows = rows * repeat(scale[None], 0, count) + repeat(bias[None], 0, count)
    return rows.reshape(x.shape)


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
    """Attention on operands `[b*heads, n, e]`: batched products with one batch axis.

    The softmax is divided by its sum only after the product with V: n x e divisions, not n x m.
    1.2 times as fast, with gradients as without.
    """
    b, heads = q.shape[:2]
    q, k, v = (x.reshape(b * heads, *x.shape[2:]) for x in (q, k, v))
    scaled = q * (q.shape[-1] ** -0.5)
    scores = jnp.einsum("bqe,bke->bqk", scaled, k, preferred_element_type=_wide(q))
    if mask is not None:
        scores = jnp.where(mask, -jnp.inf, scores)
    weights = jnp.exp(scores - largest(lax.stop_gradient(scores)))
    sums = total(weights.reshape(-1, weights.shape[-1]), 1).reshape(*weights.shape[:-1], 1)
    if seed is not None:
        shape = weights.shape
        entry = None if entry is None else entry.reshape(-1)
        weights = dropout(weights.reshape(b, -1), rate, seed, site, entry).reshape(shape)
    out = jnp.einsum("bqk,bke->bqe", weights.astype(v.dtype), v) / sums.astype(v.dtype)
    return out.reshape(b, heads, *out.shape[1:])


def swish(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """X * sigmoid(x), with sigmoid(x) = (1 + tanh(x/2)) / 2: tanh has the faster code, by 1.4."""
    half = 0.5 * x
    return half + half * jnp.tanh(half)


# Convolutions -----------------------------------------------------------------------------------


def convolution(
    x: Float[Array, "b h w cin"],
    kernel: Float[Array, "k k cin_per_group cout"],
    *,
    stride: int,
    padding: Padding,
    groups: int = 1,
) -> Float[Array, "b h2 w2 cout"]:
    """XLA's convolution with another gradient; a depthwise one as a sum of shifted slices.

    Inside a loop, as a training step is, XLA has no fast code for a kernel's gradient: 15 times as
    fast for 3 x 3 and 64 channels. For grouped convolutions it has none at all: 37 times as fast
    for 5 x 5 and 192 channels, 560 times with gradients.
    """
    kernel = varying_as(kernel, x)
    if groups == x.shape[-1] > 1:
        return shifted_sum(x, kernel, stride, padding)
    return with_products(x, kernel, stride, padding)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def with_products(
    x: Float[Array, "b h w cin"],
    kernel: Float[Array, "k k cin cout"],
    stride: int,
    padding: Padding,
) -> Float[Array, "b h2 w2 cout"]:
    """XLA's convolution; the kernel's gradient is k*k products of matrices."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        (padding, padding),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _with_products_jvp(
    stride: int, padding: Padding, primals: Any, tangents: Any
) -> tuple[Array, Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    y = with_products(x, kernel, stride, padding)
    size = kernel.shape[0]
    dy = jnp.zeros_like(y)
    if not isinstance(dx, SymbolicZero):
        # Its transpose pads dy and convolves with the turned kernel, without strides.
        every = lax.conv_general_dilated(
            dx,
            kernel.swapaxes(2, 3),
            (1, 1),
            ((size - 1, size - 1), (size - 1, size - 1)),
            dimension_numbers=("NHWC", "HWOI", "NHWC"),
        )
        dy = dy + _of_every(every, y, size, stride, padding)
    if not isinstance(dkernel, SymbolicZero):
        # Rows of positions: the transpose of each product is one product.
        x = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))
        rows = [
            jnp.matmul(
                _seen(x, y, i, j, stride).reshape(-1, x.shape[-1]),
                dkernel[i, j],
                preferred_element_type=_wide(x),
            )
            for i in range(size)
            for j in range(size)
        ]
        dy = dy + sum(rows[1:], rows[0]).reshape(y.shape).astype(y.dtype)
    return y, dy


with_products.defjvp(_with_products_jvp, symbolic_zeros=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def shifted_sum(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k 1 c"], stride: int, padding: Padding
) -> Float[Array, "b h2 w2 c"]:
    """A depthwise convolution as the sum of k*k shifted slices, each scaled channel by channel."""
    x = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))
    # The barrier keeps XLA from fusing the padding, and the activation before it, into the sum,
    # where both would be done again for each of the k*k slices.
    x = lax.optimization_barrier(x)
    size = kernel.shape[0]
    h, w = ((side - size) // stride + 1 for side in x.shape[1:3])
    y = jax.ShapeDtypeStruct((x.shape[0], h, w, x.shape[3]), x.dtype)
    summed = jnp.zeros((), x.dtype)
    for i in range(size):
        for j in range(size):
            summed = summed + _seen(x, y, i, j, stride) * kernel[i, j, 0]
    return summed


def _shifted_sum_jvp(
    stride: int, padding: Padding, primals: Any, tangents: Any
) -> tuple[Array, Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    y = shifted_sum(x, kernel, stride, padding)
    dy = jnp.zeros_like(y)
    if not isinstance(dx, SymbolicZero):
        dy = dy + _shifted_sum_by_x(dx, kernel, y, stride, padding)
    if not isinstance(dkernel, SymbolicZero):
        x = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))
        dy = dy + _shifted_sum_by_kernel(x, dkernel, y, stride)
    return y, dy


shifted_sum.defjvp(_shifted_sum_jvp, symbolic_zeros=True)


def _shifted_sum_by_x(dx: Array, kernel: Array, y: Array, stride: int, padding: Padding) -> Array:
    """Its transpose is such a sum again: dy is padded once, and sliced with the turned kernel."""
    size = kernel.shape[0]
    every = jnp.zeros((), dx.dtype)
    for i in reversed(range(size)):
        for j in reversed(range(size)):
            scaled = dx * kernel[size - 1 - i, size - 1 - j, 0]
            around = ((0, 0, 0), (i, size - 1 - i, 0), (j, size - 1 - j, 0), (0, 0, 0))
            every = every + lax.pad(scaled, jnp.zeros((), dx.dtype), around)
    return _of_every(lax.optimization_barrier(every), y, size, stride, padding)


def _shifted_sum_by_kernel(x: Array, dkernel: Array, y: Array, stride: int) -> Array:
    """Row after row, so that its transpose makes all k*k sums in one pass over x, which is padded.

    As k*k reductions of whole maps they would be bound by the memory's speed.
    """
    size = dkernel.shape[0]
    b, h, w, c = y.shape
    span = (w - 1) * stride + 1
    taps = [(i, j) for i in range(size) for j in range(size)]
    wide = [jnp.broadcast_to(dkernel[i, j, 0].astype(_wide(x)), (w, c)) for i, j in taps]

    @functools.partial(jax.checkpoint, prevent_cse=False)  # nothing of a row is kept
    def one_row(carry: None, index: Array) -> tuple[None, Array]:
        image, row = index // h, index % h
        rows = lax.dynamic_slice(x, (image, row * stride, 0, 0), (1, size, x.shape[2], c))[0]
        summed = jnp.zeros((), _wide(x))
        for (i, j), values in zip(taps, wide, strict=True):
            summed = summed + lax.slice(rows[i], (j, 0), (j + span, c), (stride, 1)) * values
        return carry, summed

    _, rows = lax.scan(one_row, None, jnp.arange(b * h), reverse=True)
    return rows.reshape(y.shape).astype(y.dtype)


def _of_every(every: Array, y: Array, size: int, stride: int, padding: Padding) -> Array:
    """What a convolution with stride and padding keeps of one that sees every position."""
    first = size - 1 - padding[0]
    ends = [first + (side - 1) * stride + 1 for side in y.shape[1:3]]
    return lax.slice(
        every, (0, first, first, 0), (y.shape[0], *ends, y.shape[3]), (1, stride, stride, 1)
    )


def _seen(x: Array, y: Any, i: int, j: int, stride: int) -> Array:
    """What row i and column j of the kernel see of x, which is padded, at every place of y."""
    h, w = (i + (y.shape[1] - 1) * stride + 1, j + (y.shape[2] - 1) * stride + 1)
    return lax.slice(x, (0, i, j, 0), (x.shape[0], h, w, x.shape[3]), (1, stride, stride, 1))
