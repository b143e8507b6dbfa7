"""Initial values are Flax's, but for rounding."""

import jax
import numpy as np
import pytest
from flax.nnx import initializers

from adtr_jax.nn import initial


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (5, 7), (720, 256)])
@pytest.mark.parametrize("traced", [False, True])
def test_values_are_flaxs(shape, traced):
    def drawn(key):
        return initial.normal(key, shape, 0.02), initial.xavier_uniform(key, shape)

    key = jax.random.key(3)
    normal, uniform = jax.jit(drawn)(key) if traced else drawn(key)
    for found, theirs in (
        (normal, initializers.normal(0.02)),
        (uniform, initializers.xavier_uniform()),
    ):
        np.testing.assert_allclose(found, theirs(key, shape), rtol=3e-7)  # two roundings


def test_shapes_of_a_size_share_a_program():
    key = jax.random.key(0)
    initial.xavier_uniform(key, (300, 200))
    with jax.no_tracing():  # nor compiling
        values = initial.xavier_uniform(key, (200, 327))
    assert values.shape == (200, 327)
    assert 0.9 < abs(values).max() / (6 / 527) ** 0.5 <= 1
