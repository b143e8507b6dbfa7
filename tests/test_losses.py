"""Eqs. 1 and 6 to 9 against the printed formulas in float64, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adtr_jax.models import losses

ALPHA, K = 0.003, 20
SHAPE = (4, 6, 6, 10)


def _phi(f, f_hat):
    m = np.abs(f - f_hat).mean(-1)
    return np.sqrt(m**2 + 1) - 1


def _pixel(f, f_hat, y):
    values = []
    for phi, marked in zip(_phi(f, f_hat), y, strict=True):
        value = (phi * ~marked).sum() / phi.size
        if marked.any():
            value -= ALPHA * np.log(1 - np.exp(-(phi * marked).sum() / phi.size))
        values.append(value)
    return np.array(values)


def _image(f, f_hat, y, k):
    values = []
    for phi, anomalous in zip(_phi(f, f_hat), y, strict=True):
        q = np.sort(phi.ravel())[::-1][:k].mean()
        values.append(-ALPHA * np.log(1 - np.exp(-q)) if anomalous else q)
    return np.array(values)


@pytest.fixture(params=[0.03, 1.0, 100.0], ids=lambda scale: f"difference {scale}")
def features(request):
    """Features in float64, and a reconstruction that is off by about the scale."""
    rng = np.random.default_rng(0)
    f = rng.normal(size=SHAPE)
    return f, f + request.param * rng.normal(size=SHAPE)


def _masks():
    """An image without anomalies, one that is all anomaly, and two with some."""
    y = np.random.default_rng(1).random(SHAPE[:3]) < 0.3
    y[0], y[1] = False, True
    return y


def _f32(*arrays):
    return [jnp.asarray(a, jnp.float32) for a in arrays]


def test_normal(features):
    f, f_hat = features
    expected = ((f - f_hat) ** 2).sum(-1).mean((1, 2))
    assert np.asarray(losses.normal(*_f32(f, f_hat))) == pytest.approx(expected, rel=1e-5)


def test_pseudo_huber(features):
    phi = losses.pseudo_huber(*_f32(*features))
    assert np.asarray(phi) == pytest.approx(_phi(*features), rel=1e-4)


def test_pixel_labelled(features):
    y = _masks()
    value = losses.pixel_labelled(*_f32(*features), jnp.asarray(y), ALPHA)
    assert np.asarray(value) == pytest.approx(_pixel(*features, y), rel=1e-4)


@pytest.mark.parametrize("k", [1, K, 36, 1000])
def test_image_labelled(features, k):
    y = np.array([False, True, False, True])
    value = losses.image_labelled(*_f32(*features), jnp.asarray(y), ALPHA, k)
    assert np.asarray(value) == pytest.approx(_image(*features, y, min(k, 36)), rel=1e-4)


def test_without_anomalies_the_second_term_is_exactly_zero(features):
    f, f_hat = _f32(*features)
    nothing = jnp.zeros(SHAPE[:3], bool)
    value = losses.pixel_labelled(f, f_hat, nothing, ALPHA)
    assert np.array_equal(value, losses.pseudo_huber(f, f_hat).mean((1, 2)))
    assert np.array_equal(value, losses.pixel_labelled(f, f_hat, nothing, 1e6))


def test_digits_survive_where_the_difference_is_small():
    f = jnp.full((1, 1, 1, 4), 1e-5, jnp.float32)
    assert float(losses.pseudo_huber(f, jnp.zeros_like(f))[0, 0, 0]) == pytest.approx(5e-11)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12, 1e-6, 1.0, 1e6, 1e15, 1e30])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_gradients_are_finite_everywhere(scale, dtype):
    with jax.enable_x64(dtype == "float64"):
        rng = np.random.default_rng(2)
        f = jnp.zeros(SHAPE, dtype)
        f_hat = jnp.asarray(scale * rng.normal(size=SHAPE), dtype)
        masks, labels = jnp.asarray(_masks()), jnp.array([False, True, False, True])
        for loss in (
            lambda x: losses.pixel_labelled(f, x, masks, ALPHA).sum(),
            lambda x: losses.image_labelled(f, x, labels, ALPHA, K).sum(),
        ):
            value, gradient = jax.value_and_grad(loss)(f_hat)
            assert value.dtype == gradient.dtype == dtype
            assert np.isfinite(value)
            assert np.isfinite(gradient).all()


def test_gradients_against_finite_differences(features):
    y = _masks()
    labels = np.array([False, True, False, True])
    with jax.enable_x64(True):
        f, f_hat = (jnp.asarray(a) for a in features)
        direction = jnp.asarray(np.random.default_rng(3).normal(size=SHAPE))
        for loss in (
            lambda x: losses.pixel_labelled(f, x, jnp.asarray(y), ALPHA).sum(),
            lambda x: losses.image_labelled(f, x, jnp.asarray(labels), ALPHA, K).sum(),
        ):
            slope = float(jnp.vdot(jax.grad(loss)(f_hat), direction))
            step = 1e-7
            ends = loss(f_hat + step * direction) - loss(f_hat - step * direction)
            assert slope == pytest.approx(float(ends) / (2 * step), rel=1e-5)


def test_an_anomaly_is_pushed_away_and_a_normal_image_pulled_closer():
    f = jnp.zeros((1, 2, 2, 3))
    f_hat = jnp.full_like(f, 0.5)
    for label, sign in ((False, 1), (True, -1)):
        y = jnp.full((1, 2, 2), label)
        gradient = jax.grad(lambda x, y=y: losses.pixel_labelled(f, x, y, ALPHA).sum())(f_hat)
        assert (np.sign(gradient) == sign).all()
