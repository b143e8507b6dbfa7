"""What is computed of images batch by batch, on one device or several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adtr_jax.devices.batched_function import BatchedFunction
from adtr_jax.devices.sharding import AXIS, device_mesh, workers


def batches(size: int) -> BatchedFunction:
    """Rows times three, their sums, and how many devices shared the batch."""

    def function(state, rows):
        devices = jnp.full(len(rows), jax.lax.axis_size(AXIS))
        return rows * state, rows.sum(axis=1), devices

    return BatchedFunction(function, 3.0, device_mesh(1), size=size, label="rows")


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("n", [0, 2, 5, 6])
def test_batches_of_one_size_and_no_more_results_than_rows(n, size):
    rows = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    made = batches(size)
    tripled, sums, devices = made.compute_own(rows)
    np.testing.assert_array_equal(tripled, 3 * rows)
    np.testing.assert_array_equal(sums, rows.sum(axis=1))
    np.testing.assert_array_equal(devices, [2] * n)
    assert (tripled.shape, tripled.dtype, sums.shape) == ((n, 2), np.float32, (n,))
    for found, again in zip((tripled, sums, devices), made.compute_all(rows), strict=True):
        np.testing.assert_array_equal(found, again)


def test_a_single_image_has_the_whole_cpu():
    """On two devices, one would compute the image and the other a copy of it."""
    tripled, _, devices = batches(1).compute_own(np.ones((1, 2), np.float32))
    np.testing.assert_array_equal(tripled, [[3, 3]])
    np.testing.assert_array_equal(devices, [1])


def test_other_rows_need_no_new_program():
    made = batches(2)
    for n in (4, 9, 14, 3, 1):  # a single one after a batch: its program serves
        found = made.compute_own(np.full((n, 2), n, np.float32))[1]
        np.testing.assert_array_equal(found, [2 * n] * n)
    assert made.program(workers(device_mesh(1))).func._cache_size() == 1


def test_a_single_image_keeps_the_whole_cpu_after_a_batch():
    made = batches(2)
    for n, devices in ((1, 1), (4, 2), (1, 1)):
        assert made.compute_own(np.ones((n, 2), np.float32))[2].tolist() == [devices] * n


def test_outputs_are_written_where_they_are_wanted():
    out = [np.zeros((3, 2), np.float32), np.zeros(3, np.float32), np.zeros(3, np.int32)]
    made = batches(1).compute_own(np.ones((3, 2), np.float32), out)
    assert all(one is other for one, other in zip(made, out, strict=True))
    np.testing.assert_array_equal(out[1], [2, 2, 2])
