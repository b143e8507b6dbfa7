"""Eqs. 15 to 19 against PyTorch and SciPy: layer maps, weights, lambda, fusions, filter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from adtr_jax.detectors import gtrans_map
from adtr_jax.errors import InputError

torch = pytest.importorskip("torch")
import torch_gtrans as twin  # noqa: E402

SHAPES = ((3, 14, 14, 24), (3, 7, 7, 48), (3, 4, 4, 120))
LAMBDAS = np.array([40.0, 3.0, 700.0], np.float32)


def _features(difference):
    """F_G of three layers, and F_M, which differs from it by so much of its spread."""
    rng = np.random.default_rng(0)
    f_g = [rng.normal(0.4, 1.0, size=shape).astype(np.float32) for shape in SHAPES]
    f_m = [(f + difference * rng.normal(size=f.shape)).astype(np.float32) for f in f_g]
    return f_g, f_m


def _torch(features):
    return [torch.from_numpy(np.ascontiguousarray(np.moveaxis(f, -1, 1))) for f in features]


def _jax(features):
    return [jnp.asarray(f) for f in features]


def test_layer_map_and_coefficients_are_equations_15_to_18():
    f_g, f_m = _features(0.5)
    layers = zip(_jax(f_g), _jax(f_m), _torch(f_g), _torch(f_m), LAMBDAS, strict=True)
    for g, m, torch_g, torch_m, lambda_ in layers:
        ours = np.asarray(gtrans_map.layer_map(g, m))
        assert ours == pytest.approx(twin.layer_map(torch_g, torch_m).numpy(), rel=1e-5)
        a_mse, a_cos, alpha = (x.numpy() for x in twin.coefficients(torch_g, torch_m, lambda_))
        assert gtrans_map.squared_distance(g, m) == pytest.approx(a_mse, rel=1e-5)
        assert gtrans_map.cosine_distance(g, m) == pytest.approx(a_cos, rel=1e-5)
        for kind, values in {"half": 0.5, "mse": a_mse, "cos": a_cos, "alpha": alpha}.items():
            ours = np.asarray(gtrans_map.coefficient(g, m, jnp.asarray(lambda_), kind))
            assert ours == pytest.approx(np.broadcast_to(values, 3), rel=1e-5), kind


def test_the_layer_maps_of_an_image_sum_to_half_its_a_mse():
    f_g, f_m = _features(0.5)
    for g, m in zip(_jax(f_g), _jax(f_m), strict=True):
        total = np.asarray(gtrans_map.layer_map(g, m).sum(axis=(1, 2)))
        assert gtrans_map.squared_distance(g, m) == pytest.approx(2 * total, rel=1e-5)


@pytest.mark.parametrize("difference", [1e-2, 1e-4, 0.0])
def test_cosine_distance_keeps_its_digits_for_close_directions(difference):
    f_g, f_m = _features(difference)
    for g, m in zip(f_g, f_m, strict=True):
        u, v = (f.astype(float).reshape(3, -1) for f in (g, m))
        cosine = (u * v).sum(1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)
        ours = np.asarray(gtrans_map.cosine_distance(jnp.asarray(g), jnp.asarray(m)))
        assert ours == pytest.approx(1 - cosine, rel=1e-2 if difference < 1e-3 else 1e-4, abs=1e-15)


def test_weights_are_finite_for_equal_and_for_empty_features():
    f = jnp.ones((2, 4, 4, 3))
    zero = jnp.zeros_like(f)
    for g, m, a_cos in ((f, f, 0.0), (zero, zero, 0.0), (f, zero, 0.5), (f, -f, 2.0)):
        assert gtrans_map.cosine_distance(g, m) == pytest.approx([a_cos] * 2, abs=1e-6)
        weight = np.asarray(gtrans_map.coefficient(g, m, jnp.asarray(3.0), "alpha"))
        a_mse = float(((g - m) ** 2).sum()) / 32
        expected = 3 * a_cos * a_mse / (a_mse + 3 * a_cos) if a_cos else 0.0
        assert weight == pytest.approx([expected] * 2, rel=1e-6, abs=1e-12)


def test_lambdas_bring_both_distances_to_one_scale():
    rng = np.random.default_rng(0)
    a_mse, a_cos = (rng.random((50, 3)).astype(np.float32) * s for s in (30, 0.01))
    lambdas = gtrans_map.lambdas(a_mse, a_cos)
    assert lambdas.dtype == np.float32
    assert lambdas * a_cos.mean(axis=0) == pytest.approx(a_mse.mean(axis=0), rel=1e-5)


def test_lambdas_are_finite_where_a_distance_is_zero():
    a_mse = np.array([[2.0, 2.0, 0.0]] * 4, np.float32)
    a_cos = np.array([[0.5, 0.0, 0.0]] * 4, np.float32)
    lambdas = gtrans_map.lambdas(a_mse, a_cos)
    assert lambdas == pytest.approx([4.0, 2e12, 1.0], rel=1e-6)
    # Of a layer whose direction never changed in training, alpha is a_mse once it does.
    alpha = gtrans_map.alpha(*(jnp.asarray([x]) for x in (3.0, 0.1)), jnp.asarray(lambdas[1]))
    assert alpha == pytest.approx([3.0], rel=1e-6)


def test_fusions_are_those_of_table_7():
    p1, p2, p3 = maps = np.random.default_rng(0).random((3, 2, 5, 5)).astype(np.float32)
    expected = {
        "P1": p3,
        "P2": p1 * p3,
        "P3": p2 * p3,
        "P4": p1 + p2 + p3,
        "P5": p1 * p2 * p3,
        "P6": (p1 + p2) * p3,
    }
    for fusion, values in expected.items():
        ours = np.asarray(gtrans_map.fuse(_jax(maps), fusion))
        assert ours == pytest.approx(values, rel=1e-6), fusion


def test_other_than_three_layers_can_only_be_added():
    maps = np.random.default_rng(0).random((4, 2, 5, 5)).astype(np.float32)
    for count in (2, 4):
        ours = gtrans_map.fuse(_jax(maps[:count]), "P4")
        assert ours == pytest.approx(maps[:count].sum(axis=0), rel=1e-6)
    with pytest.raises(InputError) as caught:
        gtrans_map.fuse(_jax(maps), "P6")
    assert str(caught.value) == (
        "the fusion P6 is of three critical layers, not of 4: take P4, the sum"
    )


@pytest.mark.parametrize(("size", "sigma"), [(224, 4.0), (160, 4.0), (10, 4.0), (32, 1.5)])
def test_smooth_is_scipys_gaussian_filter(size, sigma):
    maps = np.random.default_rng(0).random((2, size, size)).astype(np.float32)
    expected = [gaussian_filter(image.astype(float), sigma) for image in maps]
    ours = np.asarray(gtrans_map.smooth(jnp.asarray(maps), sigma))
    assert np.abs(ours - expected).max() < 1e-6
    if size > 4 * sigma:
        wanted = twin.smooth(torch.from_numpy(maps), sigma).numpy()
        assert np.abs(ours - wanted).max() < 1e-6


def test_anomaly_map_is_equation_19():
    f_g, f_m = _features(0.5)
    expected = twin.anomaly_map(_torch(f_g), _torch(f_m), LAMBDAS.tolist(), 56).numpy()

    @jax.jit
    def compiled(g, m):
        return gtrans_map.anomaly_map(gtrans_map.layer_maps(g, m, jnp.asarray(LAMBDAS), 56))

    ours = np.asarray(compiled(_jax(f_g), _jax(f_m)))
    assert ours.shape == (3, 56, 56)
    assert np.abs(ours / expected - 1).max() < 1e-5


def test_a_layers_map_is_weighed_as_told():
    f_g, f_m = (_jax(f) for f in _features(0.5))
    lambdas = jnp.asarray(LAMBDAS)
    # A layer's map is scaled by its weight: the ratio of two maps is that of the weights.
    half, by_mse = (
        gtrans_map.layer_maps(f_g, f_m, lambdas, 20, weighting=kind)[2] for kind in ("half", "mse")
    )
    ratio = np.asarray(by_mse / half)
    a_mse = np.asarray(gtrans_map.squared_distance(f_g[2], f_m[2]))
    assert ratio == pytest.approx(np.broadcast_to(2 * a_mse[:, None, None], ratio.shape), rel=1e-5)


def test_layer_maps_place_positions_where_it_is_told():
    f_g = [jnp.zeros((1, 14, 14, 2)), jnp.zeros((1, 7, 7, 2))]
    f_m = [f.at[0, 3, 3].set(1.0) for f in f_g]
    at = [(4.0, 1.0), (8.0, -11.0)]  # both put position 3 at pixel 13
    layers = gtrans_map.layer_maps(f_g, f_m, jnp.ones(2), 56, weighting="half", pixels=at)
    maps = gtrans_map.anomaly_map(layers, "P4")
    assert np.unravel_index(np.asarray(maps[0]).argmax(), (56, 56)) == (13, 13)
