"""The whole of GTrans: what it trains on, its loss, its calibration, its scores, its file."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adtr_jax import backbones
from adtr_jax.backbones.scaling import LAYOUTS, Layout
from adtr_jax.config import GtransSettings
from adtr_jax.detectors import features, gtrans_map, model_file, scoring
from adtr_jax.detectors.gtrans import GtransDetector
from adtr_jax.devices.checked_array import CheckedArray
from adtr_jax.devices.feature_cache import FeatureCache
from adtr_jax.devices.sharding import device_mesh, workers
from adtr_jax.models.gtrans import guidance_loss
from adtr_jax.training import train
from adtr_jax.training.train import Batch

# A network of the smallest sort stands where resnet-18 would: it compiles in a third of the time.
SMALLEST = Layout(blocks=(1, 1, 1, 1), bottleneck=None)
SETTINGS = GtransSettings(
    backbone="resnet-18", image_size=32, batch_size=4, held_out=0.25, blocks=1
)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Eight images of noise."""
    return np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector() -> GtransDetector:
    """An untrained one, with a random AGN that is not Trans."""
    # Random numbers of this kind are compiled in half of the time.
    with pytest.MonkeyPatch.context() as patch, jax.default_prng_impl("rbg"):
        patch.setitem(LAYOUTS, "resnet-18", SMALLEST)
        agn = nnx.jit(lambda: backbones.create("resnet-18", rngs=nnx.Rngs(1)))()
        return GtransDetector.create(agn, SETTINGS).initialised()


@nnx.jit
def call(model, pixels, f_g):
    """The model's maps, in evaluation."""
    return model(pixels, f_g)


@nnx.jit
def layers(backbone, pixels):
    """F_G; compiled whole, which takes less time than operation by operation."""
    return features.extract_layers(backbone, pixels, SETTINGS)


@pytest.fixture(scope="module")
def prepared(detector, images):
    """The training data of six images, two held out, and the detector calibrated with them."""
    cache = FeatureCache(Path())
    _, data = detector.training_data(images[:6], device_mesh(), cache, images[6:])
    return data, detector.calibrated(data, device_mesh())


def test_held_out_images_are_no_examples(prepared, images):
    data, _ = prepared
    assert (data.examples.total, data.held_out.total) == (6, 2)
    (kept, f_g), (held_out, f_held) = data.examples.arrays, data.held_out.arrays
    assert (len(kept), len(held_out), data.normal) == (6, 2, 6)
    np.testing.assert_array_equal(np.concatenate([kept, held_out]), images)
    assert [f.shape for f in f_g] == [(6, 8, 8, 64), (6, 4, 4, 128), (6, 2, 2, 256)]
    assert [len(f) for f in f_held] == [2, 2, 2]


def test_trans_holds_no_layers_that_it_does_not_use(detector):
    groups = {path[2] for path, _ in nnx.to_flat_state(detector.params) if path[1] == "groups"}
    assert groups == {0, 1, 2}
    names = {path[:2] for path, _ in nnx.to_flat_state(detector.params)}
    assert ("trans", "classifier") not in names


def test_loss_in_evaluation_is_equation_14_of_what_the_model_returns(detector, prepared):
    data, _ = prepared
    rows = (jnp.asarray(data.examples.arrays[0]), tuple(map(jnp.asarray, data.examples.arrays[1])))
    values, rest = jax.jit(detector.loss)(detector.params, detector.rest, Batch(rows, None, None))
    model = nnx.merge(detector.graph, detector.params, detector.rest)
    expected = guidance_loss(rows[1], call(model, *rows))
    assert np.asarray(values) == pytest.approx(np.asarray(expected), rel=1e-6)
    for before, after in zip(
        nnx.to_flat_state(detector.rest), nnx.to_flat_state(rest), strict=True
    ):
        np.testing.assert_array_equal(before[1][...], after[1][...])


def test_calibration_and_scores_are_equations_15_to_19(prepared, images):
    data, calibrated = prepared
    model = nnx.merge(calibrated.graph, calibrated.params, calibrated.rest)
    pixels, f_g = (
        jnp.asarray(data.examples.arrays[0]),
        tuple(map(jnp.asarray, data.examples.arrays[1])),
    )
    pairs = list(zip(f_g, call(model, pixels, f_g), strict=True))
    a_mse, a_cos = (
        np.stack([distance(g, m) for g, m in pairs], axis=1)
        for distance in (gtrans_map.squared_distance, gtrans_map.cosine_distance)
    )
    lambdas = a_mse.mean(axis=0) / a_cos.mean(axis=0)
    assert np.asarray(model.lambdas[...]) == pytest.approx(lambdas, rel=1e-4)
    maps, scores = calibrated.score(images[:3], device_mesh())
    few = jnp.asarray(images[:3])
    f_g = layers(calibrated.backbone, few)
    by_layer = gtrans_map.layer_maps(f_g, call(model, few, f_g), jnp.asarray(lambdas), 32)
    expected = gtrans_map.anomaly_map(by_layer)
    np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-4 * float(expected.max()))
    assert scores == pytest.approx(maps.max(axis=(1, 2)), rel=1e-6)
    shown = calibrated.layer_maps(images[:3], device_mesh())
    for ours, theirs in zip(shown, [*by_layer, expected], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.max()))


def test_centres_places_every_layer_where_the_network_saw_it(prepared, images):
    """Positions of ResNet's tap i are 2^i pixels apart, the first at pixel 0."""
    _, calibrated = prepared
    settings = dataclasses.replace(SETTINGS, placement="centres", fusion="P1", coefficient="half")
    maps, _ = dataclasses.replace(calibrated, settings=settings).score(images[:3], device_mesh())
    model = nnx.merge(calibrated.graph, calibrated.params, calibrated.rest)
    few = jnp.asarray(images[:3])
    f_g = layers(calibrated.backbone, few)
    tokens = gtrans_map.layer_map(f_g[2], call(model, few, f_g)[2])
    expected = gtrans_map.smooth(0.5 * scoring.score_map(tokens, 32, (16.0, 0.0)))
    np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-4 * float(expected.max()))


def test_a_saved_detector_scores_the_same(prepared, detector, images, tmp_path):
    _, calibrated = prepared
    model_file.save(calibrated, tmp_path / "model.safetensors")
    loaded = model_file.load_into(detector, tmp_path / "model.safetensors")
    maps, scores = calibrated.score(images[:3], device_mesh())
    again, scores_again = loaded.score(images[:3], device_mesh())
    np.testing.assert_array_equal(maps, again)
    np.testing.assert_array_equal(scores, scores_again)


def test_images_that_come_later_need_no_new_program(prepared, images):
    """Three images, then three others: what scored the first scores the others."""
    _, calibrated = prepared
    both = [calibrated.score(images[i : i + 3], device_mesh())[1] for i in (0, 3)]
    assert not np.array_equal(*both)
    program = calibrated.scorer(device_mesh()).program(workers(device_mesh()))
    assert program.func._cache_size() == 1


def test_images_lie_beside_their_features_in_the_cache(detector, images, prepared, tmp_path):
    """So that neither are held where they do not fit."""
    cache = FeatureCache(tmp_path, 0)
    _, data = detector.training_data(images[:6], device_mesh(), cache)
    assert len(list(tmp_path.iterdir())) == 1
    (pixels, f_g), (kept, expected) = data.examples.arrays, prepared[0].examples.arrays
    assert all(isinstance(array, CheckedArray) for array in (pixels, *f_g))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, kept)
    for mine, theirs in zip(f_g, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    again = detector.calibrated(data, device_mesh())
    np.testing.assert_array_equal(again.rest["lambdas"][...], prepared[1].rest["lambdas"][...])


def test_a_resumed_training_ends_with_the_same_parameters_and_statistics(
    detector, images, tmp_path, monkeypatch
):
    """Half of the epochs are lost, as if the run had been killed, and done again."""
    monkeypatch.setattr(train, "SAVE_SECONDS", 0)
    settings = dataclasses.replace(SETTINGS, epochs=4)
    cache = FeatureCache(Path())
    _, data = detector.training_data(images[:6], device_mesh(), cache, images[6:])

    def fit(directory):
        start = (detector.params, detector.rest)
        mesh = device_mesh()
        learned = train.fit(
            *(detector.loss, start, data),
            **{"settings": settings, "mesh": mesh, "directory": directory, "label": "test"},
        )
        return [np.asarray(leaf) for leaf in jax.tree.leaves(learned)]

    whole = fit(tmp_path / "whole")
    log = (tmp_path / "whole/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in log] == [1, 2, 3, 4]
    assert json.loads(log[-1])["loss"] < json.loads(log[0])["loss"]
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    for epoch in (3, 4):
        shutil.rmtree(tmp_path / "resumed/checkpoints" / str(epoch))
    resumed = fit(tmp_path / "resumed")
    assert all(np.array_equal(a, b) for a, b in zip(whole, resumed, strict=True))
    moved = [
        not np.array_equal(before, after)
        for before, after in zip(jax.tree.leaves(detector.rest), whole[-19:], strict=True)
    ]
    assert sum(moved) == 18  # all but the lambdas, which come after the training
