"""Dense layer and LayerNorm: the numbers and gradients of Flax, and no slow sums on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adtr_jax.devices.sharding import compiler_options
from adtr_jax.nn.layers import EPSILON, Dense, LayerNorm

CHANNELS, OUTPUTS = 24, 16


@pytest.fixture
def tokens():
    """Tokens whose mean is far from 0, as after a residual."""
    return jnp.asarray(5 + 3 * np.random.default_rng(0).standard_normal((3, 10, CHANNELS)))


def ours(layer, dtype):
    sizes = (CHANNELS, OUTPUTS) if layer is Dense else (CHANNELS,)
    rngs = {} if layer is LayerNorm else {"rngs": nnx.Rngs(0)}
    return with_values(layer(*sizes, dtype=dtype, **rngs))


def flax(layer, dtype):
    if layer is Dense:
        return with_values(nnx.Linear(CHANNELS, OUTPUTS, dtype=dtype, rngs=nnx.Rngs(0)))
    make = nnx.LayerNorm
    return with_values(
        make(CHANNELS, epsilon=EPSILON, dtype=dtype, use_fast_variance=False, rngs=nnx.Rngs(0))
    )


def with_values(module):
    """The module with parameters that are not 0 or 1."""
    rng = np.random.default_rng(1)
    state = nnx.state(module)
    draw = lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype)  # noqa: E731
    nnx.update(module, jax.tree.map(draw, state))
    return module


def gradients(module, x):
    """Of a loss that weighs all outputs differently, by parameters and input."""
    graph, state = nnx.split(module)
    weights = np.random.default_rng(2).standard_normal((*x.shape[:-1], OUTPUTS + CHANNELS))

    def loss(state, x):
        y = nnx.merge(graph, state)(x)
        return jnp.sum(y.astype(jnp.float32) * weights[..., : y.shape[-1]])

    return jax.jit(jax.grad(loss, argnums=(0, 1)))(state, x)


@pytest.mark.parametrize("layer", [Dense, LayerNorm])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-5), (jnp.bfloat16, 4e-2)])
def test_they_compute_what_flax_does(layer, dtype, tolerance, tokens):
    mine, reference = ours(layer, dtype), flax(layer, dtype)
    x = tokens.astype(dtype)
    assert mine(x).dtype == reference(x).dtype == dtype

    def close(a, b):
        a, b = (np.asarray(value, np.float32) for value in (a, b))
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max())

    close(mine(x), reference(x))
    jax.tree.map(close, gradients(mine, x), gradients(reference, x))


def test_on_a_cpu_no_sum_over_many_numbers_is_left_to_xla():
    module = ours(LayerNorm, jnp.float32)
    graph, state = nnx.split(module)

    def loss(state, x):
        return jnp.vdot(nnx.merge(graph, state)(x), x)

    compiled = jax.jit(jax.grad(loss), compiler_options=compiler_options(jax.default_backend()))
    x = jnp.ones((4096, CHANNELS))
    assert " reduce-window(" not in compiled.lower(state, x).compile().as_text()
