"""The forms for CPUs: numbers and derivatives of the plain ones, and the switch between both."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adtr_jax.nn import cpu
from adtr_jax.nn.attention import attend
from adtr_jax.nn.convolution import convolution
from adtr_jax.nn.dropout import seeds
from adtr_jax.nn.layers import dense, global_mean, layer_norm, product, swish


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(1 + rng.standard_normal(shape), jnp.float32) for shape in shapes)


def convolved(x, kernel, stride, padding, groups=1):
    call = functools.partial(convolution, stride=stride, padding=padding, groups=groups)
    return call, arrays(x, kernel)


MASK = jnp.asarray(np.random.default_rng(0).random((9, 7)) < 0.7).at[:, 3].set(False)
# The layer, as a function of arrays, and these.
CASES = {
    "product": (product, arrays((3, 10, 24), (24, 16))),
    "dense": (dense, arrays((3, 10, 24), (24, 16), (16,))),
    "layer_norm": (
        functools.partial(layer_norm, epsilon=1e-5),
        arrays((3, 10, 24), (24,), (24,)),
    ),
    "attend": (
        lambda q, k, v: attend(q, k, v, None, rate=0.0, site=0),
        arrays((2, 4, 9, 8), (2, 4, 36, 8), (2, 4, 36, 8)),
    ),
    "attend with dropout": (
        lambda q, k, v: attend(q, k, v, seeds(0, jnp.int32(0), jnp.arange(2)), rate=0.3, site=1),
        arrays((2, 4, 9, 8), (2, 4, 7, 8), (2, 4, 7, 8)),
    ),
    "attend, masked": (
        lambda q, k, v: attend(q, k, v, None, None, MASK, rate=0.0, site=0),
        arrays((2, 4, 9, 8), (2, 4, 7, 8), (2, 4, 7, 8)),
    ),
    "global_mean": (global_mean, arrays((3, 5, 7, 6))),
    "swish": (swish, arrays((3, 50))),
    "convolution": convolved((2, 8, 8, 5), (3, 3, 5, 7), 1, (1, 1)),
    "convolution 7x7, stride 2": convolved((2, 16, 16, 5), (7, 7, 5, 7), 2, (3, 3)),
    "convolution 3x3, stride 2, uneven": convolved((2, 11, 11, 5), (3, 3, 5, 7), 2, (0, 1)),
    "convolution 5x5, stride 3": convolved((2, 9, 9, 5), (5, 5, 5, 7), 3, (2, 1)),
    "depthwise": convolved((2, 8, 8, 6), (3, 3, 1, 6), 1, (1, 1), 6),
    "depthwise 5x5, stride 2": convolved((2, 8, 8, 6), (5, 5, 1, 6), 2, (1, 2), 6),
    "depthwise 3x3, stride 2, uneven": convolved((2, 11, 11, 6), (3, 3, 1, 6), 2, (0, 1), 6),
    "depthwise 5x5, one pixel": convolved((2, 1, 1, 6), (5, 5, 1, 6), 1, (2, 2), 6),
}


def derivatives(function, inputs):
    """Value, gradient of a weighed sum, forward derivative, and all of a batch of two."""

    def loss(*inputs):
        y = function(*inputs)
        return jnp.vdot(y, jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))

    def everything(*inputs):
        argnums = tuple(range(len(inputs)))
        tangents = tuple(jnp.sin(x) for x in inputs)
        forward = jax.jvp(function, inputs, tangents)
        return jax.grad(loss, argnums)(*inputs), *forward

    batch = tuple(jnp.stack([x, x[::-1]]) for x in inputs)
    return jax.jit(everything)(*inputs), jax.jit(jax.vmap(everything))(*batch)


@pytest.mark.parametrize("name", CASES)
def test_the_form_for_cpus_is_the_plain_one(name):
    function, inputs = CASES[name]
    found = derivatives(function, inputs)
    with cpu.plain_forms():
        expected = derivatives(function, inputs)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("name", CASES)
def test_bfloat16(name):
    function, inputs = CASES[name]
    inputs = [x.astype(jnp.bfloat16) for x in inputs]
    found = jax.jit(function)(*inputs)
    with cpu.plain_forms():
        expected = jax.jit(function)(*inputs)
    assert found.dtype == expected.dtype == jnp.bfloat16
    a, b = (np.asarray(value, np.float32) for value in (found, expected))
    np.testing.assert_allclose(a, b, atol=2e-2 * np.abs(b).max())


def test_the_switch_also_takes_what_was_compiled_before():
    function, inputs = CASES["depthwise"]
    compiled = jax.jit(function)

    def text():
        return compiled.lower(*inputs).as_text()

    first = np.asarray(compiled(*inputs))
    assert "stablehlo.convolution" not in text()
    with cpu.plain_forms():
        assert "feature_group_count = 6" in text()
        np.testing.assert_allclose(compiled(*inputs), first, rtol=1e-4, atol=1e-5)
    assert "stablehlo.convolution" not in text()


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_devices_get_the_plain_form(platform):
    function, inputs = CASES["depthwise"]
    text = jax.jit(function).trace(*inputs).lower(lowering_platforms=(platform,)).as_text()
    assert "feature_group_count = 6" in text


@pytest.mark.parametrize("axis", [0, 1])
def test_totals_and_repetitions_are_each_others_gradients(axis):
    (x,) = arrays((10, 24))
    y, back = jax.vjp(lambda x: cpu.total(x, axis), x)
    np.testing.assert_allclose(y, x.sum(axis, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(back(y)[0], jnp.broadcast_to(y, x.shape))
    z, back = jax.vjp(lambda y: cpu.repeat(y, axis, x.shape[axis]), y)
    np.testing.assert_array_equal(z, jnp.broadcast_to(y, x.shape))
    np.testing.assert_allclose(back(x)[0], y, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 15, 49, 64, 100])
def test_the_largest_of_any_number(count):
    x = np.random.default_rng(0).standard_normal((3, 5, count)).astype(np.float32)
    np.testing.assert_array_equal(cpu.largest(jnp.asarray(x)), x.max(axis=-1, keepdims=True))


def test_a_frozen_convolution_costs_no_gradient_of_its_kernel():
    """By x alone, there is neither the loop over rows nor a product with a kernel of zeros."""
    function, (x, kernel) = CASES["depthwise"]
    text = jax.jit(jax.grad(lambda x: function(x, kernel).sum())).lower(x).as_text()
    assert "stablehlo.while" not in text
