"""Initial values have the distributions of Flax's."""

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
    with jax.threefry_partitionable(True):  # the first n numbers do not depend on how many follow
        normal, uniform = jax.jit(drawn)(key) if traced else drawn(key)
        for found, theirs in (
            (normal, initializers.normal(0.02)),
            (uniform, initializers.xavier_uniform()),
        ):
            np.testing.assert_allclose(found, theirs(key, shape), rtol=3e-7)  # two roundings


def test_distributions_do_not_depend_on_the_kind_of_key():
    key = jax.random.key(5)
    with jax.threefry_partitionable(False):
        normal = initial.normal(key, (300, 200), 0.02)
        uniform = initial.xavier_uniform(key, (300, 200))
    assert abs(normal.mean()) < 5 * 0.02 / 60_000**0.5
    assert normal.std() == pytest.approx(0.02, rel=0.01)
    limit = (6 / 500) ** 0.5
    assert limit * 0.999 < abs(uniform).max() <= limit
    assert uniform.std() == pytest.approx(limit / 3**0.5, rel=0.01)


def test_shapes_of_a_size_share_a_program():
    key = jax.random.key(0)
    initial.xavier_uniform(key, (300, 200))
    with jax.no_tracing():  # nor compiling
        values = initial.xavier_uniform(key, (200, 327))
    assert values.shape == (200, 327)
    assert 0.9 < abs(values).max() / (6 / 527) ** 0.5 <= 1
