"""The loss of ADTR+, whatever is known about the anomalies."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from adtr_jax import backbones, detectors
from adtr_jax.config import AdtrSettings, Plus
from adtr_jax.data.anomalies import Anomalies, Labelled, Synthetic
from adtr_jax.data.lazy import LazyArray
from adtr_jax.data.synthetic import KINDS, synthesise
from adtr_jax.detectors import features
from adtr_jax.detectors.adtr_plus import SOMEWHERE, AdtrPlusDetector
from adtr_jax.devices.feature_cache import FeatureCache
from adtr_jax.devices.sharding import device_mesh
from adtr_jax.models import losses
from adtr_jax.training.train import Batch

SIDE, PLUS = 32, Plus(alpha=0.1, k=3)
SETTINGS = AdtrSettings(
    backbone="pixels", layers=(4,), image_size=SIDE, width=32, heads=4, depth=1, hidden=64,
    dropout=0.0,
)  # fmt: skip


def images(n: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, side, side, 3), np.uint8)


def detector(anomalies: Anomalies, settings: AdtrSettings = SETTINGS) -> AdtrPlusDetector:
    adtr = detectors.create(backbones.load("pixels", Path()), settings).initialised()
    return AdtrPlusDetector.of(adtr, PLUS, anomalies)


@pytest.fixture
def masks() -> np.ndarray:
    marked = np.zeros((2, SIDE, SIDE), bool)
    marked[0, :9, :3] = True
    return marked


def test_labels_of_normal_images_then_of_anomalies(masks, tmp_path):
    """With masks and without: those without are anomalous somewhere."""
    anomalies = Labelled(((images(2), masks), (images(3), None)))
    assert anomalies.masked and anomalies.count(4) == 5
    made = detector(anomalies)
    _, data = made.training_data(images(4), device_mesh(1), FeatureCache(tmp_path))
    f, y = data.examples.arrays
    assert f.shape[0] == 9 and data.normal == 4
    h = y.shape[1]
    assert np.all(y[:4] == 0)
    assert np.array_equal(np.argwhere(y[4]), [[i, 0] for i in range(9 * h // SIDE + 1)])
    assert np.all(y[5] == 0)
    assert np.all(y[6:] == SOMEWHERE)


def test_each_anomaly_has_the_loss_of_what_is_known_about_it(masks):
    made = detector(Labelled(((images(2), masks), (images(3), None))))
    f = jnp.asarray(np.random.default_rng(0).normal(size=(3, *made._shape)), jnp.float32)
    h = f.shape[1]
    y = np.zeros((3, h, h), np.float32)
    y[0, 0, 0], y[1] = 1, SOMEWHERE
    found, _ = made.loss(made.params, made.rest, Batch((f, jnp.asarray(y)), None, None))
    f = made.standardised(made.rest, f)
    f_hat = made.reconstruct(made.params, f, None)
    eq7 = losses.pixel_labelled(f, f_hat, jnp.asarray(y > 0), PLUS.alpha)
    eq9 = losses.image_labelled(f, f_hat, jnp.asarray([True] * 3), PLUS.alpha, PLUS.k)
    expected = [eq7[0], eq9[1], eq7[2]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert abs(eq7[1] - eq9[1]) > 100 * 1e-5 * eq9[1]


def test_without_any_masks_labels_are_of_images(tmp_path):
    made = detector(Labelled(((images(3), None),)))
    _, data = made.training_data(images(4), device_mesh(1), FeatureCache(tmp_path))
    assert data.examples.arrays[1].shape == (7,)
    assert dataclasses.asdict(made.plus)["k"] == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_of_the_synthetic_anomalies_is_that_part_of_all(kind, monkeypatch):
    """Variants of all images, one after the other, however many processes and chunks there are."""
    normal, anomalies = images(5), Synthetic(kind, variants=3, seed=7)
    drawn = [synthesise(kind, normal, 7 * 3 + variant) for variant in range(3)]
    pixels, masks = (np.concatenate(each) for each in zip(*drawn, strict=True))
    for part in (slice(0, 15), slice(0, 0), slice(3, 11), slice(14, 15)):
        for at_once in (4, 100):
            monkeypatch.setattr("adtr_jax.data.anomalies.PIXELS", at_once * SIDE**2)
            chunks = list(anomalies.chunks(normal, part))
            assert len(chunks) == -(-(part.stop - part.start) // at_once)
            found = [
                np.concatenate([p[:0], *(c[i] for c in chunks)]) for i, p in enumerate(drawn[0])
            ]
            assert np.array_equal(found[0], pixels[part])
            assert np.array_equal(found[1], masks[part])


@pytest.mark.parametrize("kind", KINDS)
def test_many_normal_images_are_decoded_one_by_one(kind, monkeypatch):
    """There may be more of them than fit into memory; few are decoded once."""
    normal, decoded = images(9), []

    def read(items):
        decoded.append(len(items))
        return normal[list(items)]

    lazy = LazyArray(range(9), read, normal.shape[1:], normal.dtype, "image")
    anomalies, part = Synthetic(kind, variants=2, seed=7), slice(0, 18)
    ((expected, expected_masks),) = anomalies.chunks(normal, part)
    ((pixels, masks),) = anomalies.chunks(lazy, part)
    assert np.array_equal(pixels, expected) and np.array_equal(masks, expected_masks)
    assert decoded == [9]
    monkeypatch.setattr("adtr_jax.data.anomalies.PIXELS", 8 * SIDE**2)
    chunks = list(anomalies.chunks(lazy, part))
    assert np.array_equal(np.concatenate([pixels for pixels, _ in chunks]), expected)
    assert set(decoded[1:]) == {1} and len(decoded) > 18


def test_a_share_of_the_users_anomalies_is_that_part_of_all(masks):
    parts = ((images(2), masks), (images(3), None))
    anomalies = Labelled(parts)
    ((pixels, marked), (others, unknown)) = anomalies.chunks(images(4), slice(1, 4))
    assert np.array_equal(pixels, parts[0][0][1:]) and np.array_equal(marked, masks[1:])
    assert np.array_equal(others, parts[1][0][:2]) and unknown is None
    assert [len(pixels) for pixels, _ in anomalies.chunks(images(4), slice(2, 5))] == [3]
    assert list(anomalies.chunks(images(4), slice(0, 0))) == []


def test_all_features_are_of_one_compiled_program(tmp_path, monkeypatch):
    traced, extract = [], features.extract

    def spy(*arguments):
        traced.append(arguments)
        return extract(*arguments)

    monkeypatch.setattr(features, "extract", spy)
    monkeypatch.setattr("adtr_jax.data.anomalies.PIXELS", 3 * 256**2)
    settings = dataclasses.replace(SETTINGS, image_size=256)
    made = detector(Synthetic("confetti", variants=2, seed=0), settings)
    normal, others = images(4, 256), images(3, 256)
    cache = FeatureCache(tmp_path)
    _, data = made.training_data(normal, device_mesh(1), cache, others)
    assert data.examples.arrays[0].shape[0] == 12
    assert len(traced) == 1
