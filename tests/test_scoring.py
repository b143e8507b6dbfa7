"""Losses and scores against plain NumPy in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from adtr_jax.detectors import scoring
from adtr_jax.models import losses


def _pair(shape):
    rng = np.random.default_rng(0)
    return (jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(2))


def test_normal_loss_is_equation_1():
    f, f_hat = _pair((3, 4, 5, 6))
    difference = np.asarray(f, float) - np.asarray(f_hat, float)
    expected = [np.mean([d @ d for d in image.reshape(20, 6)]) for image in difference]
    assert np.asarray(losses.normal(f, f_hat)) == pytest.approx(expected, rel=1e-6)


def test_score_map_is_the_norm_of_the_difference():
    f, f_hat = _pair((2, 4, 4, 6))
    expected = np.sqrt(((np.asarray(f, float) - np.asarray(f_hat)) ** 2).sum(-1))
    tokens = scoring.token_scores(f, f_hat)
    assert np.asarray(tokens) == pytest.approx(expected, rel=1e-5)
    raised = np.asarray(scoring.score_map(tokens, 64))
    assert raised.shape == (2, 64, 64)
    assert raised[:, 0, 0] == pytest.approx(expected[:, 0, 0], rel=1e-5)  # align_corners=True
    assert raised[:, -1, -1] == pytest.approx(expected[:, -1, -1], rel=1e-5)
    placed = np.asarray(scoring.score_map(tokens, 64, (16.0, 3.0)))
    assert placed[:, 3::16, 3::16] == pytest.approx(expected, rel=1e-5)


def test_relative_scores_are_in_proportion_to_the_features():
    f, f_hat = _pair((2, 4, 4, 6))
    wide = np.asarray(f, float)
    difference = np.linalg.norm(wide - np.asarray(f_hat), axis=-1)
    expected = difference / np.sqrt((wide**2).sum(-1) + 6)
    assert np.asarray(scoring.relative_scores(f, f_hat)) == pytest.approx(expected, rel=1e-5)
    nothing = scoring.relative_scores(jnp.zeros((1, 1, 1, 6)), jnp.ones((1, 1, 1, 6)))
    assert float(nothing[0, 0, 0]) == pytest.approx(1)  # not infinite


@pytest.mark.parametrize(("size", "window"), [(256, 16), (128, 8), (32, 2), (512, 32)])
def test_image_score_pools_with_a_window_that_scales(size, window):
    maps = np.random.default_rng(0).random((2, size, size)).astype(np.float32)
    views = np.lib.stride_tricks.sliding_window_view(maps.astype(float), (window, window), (1, 2))
    expected = views.mean((-1, -2)).max((1, 2))
    ours = scoring.image_score(jnp.zeros((2, 4, 4)), jnp.asarray(maps), "pooled_max")
    assert np.asarray(ours) == pytest.approx(expected, rel=1e-5)


def test_other_image_scores():
    rng = np.random.default_rng(0)
    tokens, maps = (jnp.asarray(rng.random((2, n, n)), jnp.float32) for n in (10, 64))
    expected = {
        "max": np.asarray(maps).max((1, 2)),
        "mean": np.asarray(maps).mean((1, 2), dtype=float),
        "top": np.sort(np.asarray(tokens, float).reshape(2, 100))[:, -5:].mean(axis=1),
    }
    for kind, values in expected.items():
        ours = np.asarray(scoring.image_score(tokens, maps, kind))
        assert ours == pytest.approx(values, rel=1e-6), kind
