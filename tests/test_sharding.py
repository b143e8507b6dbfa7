"""Programs over devices: how they are compiled, and what they take at once."""

import jax.numpy as jnp
import numpy as np
import pytest

from adtr_jax import features
from adtr_jax.config import AdtrSettings
from adtr_jax.sharding import (
    batch_program,
    device_mesh,
    in_own_batches,
    per_device,
    replicated,
    split,
)


def test_a_cpu_gets_its_matrix_products_from_eigen():
    program = per_device(jnp.matmul, device_mesh(1), (split(), replicated), split())
    x = jnp.ones((4096, 256))
    text = program.lower(x, x[:256]).compile().as_text()
    assert " dot(" in text and "ynn" not in text


@pytest.mark.parametrize(("size", "images"), [(160, 10), (256, 4), (1024, 1)])
def test_a_cpu_takes_a_few_images_at_once(size, images):
    settings = AdtrSettings(image_size=size)
    assert features.images_at_once(settings, device_mesh(1)) == images


@pytest.mark.parametrize(("stride", "images"), [(16, 256), (4, 64), (1, 1)])
def test_many_tokens_count_as_large_images(stride, images):
    settings = AdtrSettings(image_size=32, token_stride=stride)
    assert features.images_at_once(settings, device_mesh(1)) == images


@pytest.mark.parametrize("n", [0, 1, 5, 6])
def test_batches_of_one_size_and_no_more_results_than_rows(n):
    rows = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    program = batch_program(lambda state, x: (x * state, x.sum(axis=1)), 3.0, device_mesh(1))
    tripled, sums = in_own_batches(program, rows, device_mesh(1), batch_size=4, label="rows")
    np.testing.assert_array_equal(tripled, 3 * rows)
    np.testing.assert_array_equal(sums, rows.sum(axis=1))
    assert (tripled.shape, tripled.dtype, sums.shape) == ((n, 2), np.float32, (n,))
