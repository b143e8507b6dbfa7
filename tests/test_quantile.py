"""Quantiles of many numbers against NumPy's, which holds them all."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adtr_jax.evaluation import quantile
from adtr_jax.evaluation.quantile import quantiles

SHARES = (0.0, 0.01, 0.3, 0.5, 0.995, 1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 300), seed=st.integers(0, 2**32 - 1), levels=st.sampled_from([1, 3, 1000]))
def test_they_are_numpys_to_the_last_bit(dtype, n, seed, levels):
    values = (np.random.default_rng(seed).integers(-levels, levels, n) / 7).astype(dtype)
    found, expected = quantiles(values, SHARES), np.quantile(values, SHARES)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_parts_change_nothing(monkeypatch):
    values = np.random.default_rng(0).gamma(2.0, size=(50, 8, 8)).astype(np.float32)
    whole = quantiles(values, SHARES)
    monkeypatch.setattr(quantile, "PART", 200)
    np.testing.assert_array_equal(quantiles(values, SHARES), whole)


def test_only_a_part_is_held(monkeypatch):
    values = np.random.default_rng(0).random((256, 128, 128), np.float32)
    monkeypatch.setattr(quantile, "PART", 2**18)
    tracemalloc.start()
    try:
        quantiles(values, (0.01, 0.995))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert values.nbytes == 16 * 2**20
    assert peak < 8 * 2**20
