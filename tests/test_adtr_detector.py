"""Relative scores: their standardisation at every position, by the normal training images alone."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from adtr_jax import backbones, detectors
from adtr_jax.config import AdtrSettings, GtransSettings, Plus
from adtr_jax.data.anomalies import Labelled
from adtr_jax.detectors.adtr_plus import AdtrPlusDetector
from adtr_jax.detectors.scoring import relative_scores
from adtr_jax.devices.feature_cache import FeatureCache
from adtr_jax.devices.sharding import device_mesh
from adtr_jax.errors import InputError

SIDE = 64
SETTINGS = AdtrSettings(
    backbone="pixels", layers=(4,), image_size=SIDE, standardise=True, image_score="relative",
    width=32, heads=4, depth=1, hidden=64, dropout=0.0,
)  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (6, SIDE, SIDE, 3), np.uint8)


def calibrated(detector, cache):
    made, data = detector.training_data(IMAGES, device_mesh(1), FeatureCache(cache))
    return made.calibrated(data, device_mesh(1))


@pytest.fixture(scope="module")
def adtr(tmp_path_factory):
    made = detectors.create(backbones.load("pixels", Path()), SETTINGS).initialised()
    return calibrated(made, tmp_path_factory.mktemp("cache"))


def tokens(detector, images):
    found, _ = detector.maps(detector.backbone, detector.params, detector.rest, jnp.asarray(images))
    return np.asarray(found, float)


def test_scores_are_standard_deviations_from_the_training_images_mean(adtr):
    f = jnp.asarray(adtr.features(IMAGES, device_mesh(1)))
    raw = np.asarray(relative_scores(f, adtr.reconstruct(adtr.params, f)), float)
    scores = tokens(adtr, IMAGES)
    assert scores == pytest.approx((raw - raw.mean(0)) / (raw.std(0) + 0.5 * raw.std()), abs=1e-3)
    assert scores.mean(axis=0) == pytest.approx(0, abs=1e-3)
    assert np.all(scores.std(axis=0) < 1)


def test_the_image_score_is_of_them_and_the_map_of_the_differences(adtr):
    plain = dataclasses.replace(adtr, settings=dataclasses.replace(SETTINGS, image_score="top"))
    maps, scores = adtr.score(IMAGES, device_mesh(1))
    same, others = plain.score(IMAGES, device_mesh(1))
    assert np.array_equal(maps, same)
    top = np.sort(tokens(adtr, IMAGES).reshape(len(IMAGES), -1))[:, -1:]  # 5 % of 16 tokens
    assert scores == pytest.approx(top.mean(axis=1), rel=1e-5)
    assert not np.allclose(scores, others, rtol=0.1)


def test_anomalies_do_not_count(adtr, tmp_path):
    others = np.random.default_rng(1).integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)
    plus = AdtrPlusDetector.of(adtr, Plus(epochs=1), Labelled(((others, None),)))
    assert tokens(calibrated(plus, tmp_path), others) == pytest.approx(tokens(adtr, others))


def test_they_need_standardised_features():
    with pytest.raises(InputError, match="--image_score=relative is of standardised features: "):
        dataclasses.replace(SETTINGS, standardise=False)
    with pytest.raises(InputError, match="--image_score=relative is of ADTR: "):
        GtransSettings(image_score="relative")
