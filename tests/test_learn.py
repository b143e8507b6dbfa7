"""Held-out normal images: what is fitted to them (nothing), their loss, early stopping, advice."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adtr_jax import backbones, detectors
from adtr_jax.config import AdtrSettings, GtransSettings, Plus
from adtr_jax.data.anomalies import Labelled
from adtr_jax.detectors.adtr_plus import AdtrPlusDetector
from adtr_jax.detectors.learn import learn
from adtr_jax.detectors.standardisation import Standardisation
from adtr_jax.devices.feature_cache import FeatureCache
from adtr_jax.devices.loader import Shard
from adtr_jax.devices.sharding import device_mesh
from adtr_jax.errors import InputError
from adtr_jax.models import losses
from adtr_jax.training import train
from adtr_jax.training.curves import Curves
from adtr_jax.training.sampling import split
from adtr_jax.training.train import TrainingData

SIDE = 32
SETTINGS = AdtrSettings(
    backbone="pixels", layers=(4,), image_size=SIDE, width=32, heads=4, depth=1, hidden=64,
    dropout=0.0, standardise=True, epochs=3, batch_size=4, held_out=0.25,
)  # fmt: skip
NOISE = np.random.default_rng(0).normal(0, 9, (12, SIDE, SIDE, 3))
BRIGHTNESS = np.linspace(-90, 90, 12)[:, None, None, None]  # what differs from image to image
IMAGES = np.clip(127 + BRIGHTNESS + NOISE, 0, 255).astype(np.uint8)
KEPT, HELD_OUT = (IMAGES[indices] for indices in split(len(IMAGES), 0.25, seed=0))


def detector(settings: AdtrSettings):
    return detectors.create(backbones.load("pixels", Path()), settings)


def learned(folder: Path, made, **given):
    """The detector trained on IMAGES, and the log's lines."""
    cache = FeatureCache(folder / ".features")
    trained = learn(
        made, IMAGES, device_mesh(1), directory=folder, cache=cache, label="test", **given
    )
    return trained, [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def loss_of(trained, images: np.ndarray) -> float:
    """The mean of Eq. 1, by the detector's own features and reconstruction."""
    f = jnp.asarray(trained.features(images, device_mesh(1)))
    return float(losses.normal(f, trained.reconstruct(trained.params, f)).mean())


@pytest.fixture
def given(monkeypatch) -> list[TrainingData]:
    """The data of each training, to look at."""
    seen, real = [], train.fit

    def fit(loss, start, data, **rest):
        seen.append(data)
        return real(loss, start, data, **rest)

    monkeypatch.setattr(train, "fit", fit)
    return seen


def test_nothing_is_fitted_to_held_out_images_and_their_loss_is_logged(tmp_path, given):
    trained, log = learned(tmp_path, detector(SETTINGS))
    (data,) = given
    assert (data.normal, data.examples.total, data.held_out.total) == (9, 9, 3)
    plain = dataclasses.replace(trained, settings=dataclasses.replace(SETTINGS, standardise=False))
    kept, held_out = (plain.features(images, device_mesh(1)) for images in (KEPT, HELD_OUT))
    np.testing.assert_array_equal(data.examples.arrays, kept)
    np.testing.assert_array_equal(data.held_out.arrays, held_out)
    fitted, used = Standardisation.fit(Shard(kept, 9)), Standardisation.of_state(trained.rest)
    for mine, theirs in zip(used, fitted, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert log[-1]["validation_loss"] == pytest.approx(loss_of(trained, HELD_OUT), rel=1e-5)
    assert abs(loss_of(trained, KEPT) - log[-1]["validation_loss"]) > 1e-3


def test_other_images_serve_where_the_settings_hold_none_out(tmp_path, given):
    others = IMAGES[:2] // 2
    settings = dataclasses.replace(SETTINGS, held_out=0.0)
    trained, log = learned(tmp_path / "none", detector(settings), held_out=others)
    assert (given[0].normal, given[0].held_out.total) == (12, 2)
    assert log[-1]["validation_loss"] == pytest.approx(loss_of(trained, others), rel=1e-5)
    _, log = learned(tmp_path / "share", detector(SETTINGS), held_out=others)
    assert (given[1].normal, given[1].held_out.total) == (9, 3)


def test_a_share_of_few_images_is_none_and_fails_nothing(tmp_path, given):
    _, log = learned(tmp_path, detector(dataclasses.replace(SETTINGS, held_out=0.02)))
    assert given[0].normal == 12 and given[0].held_out is None
    assert [line["epoch"] for line in log] == [1, 2, 3]
    assert all("validation_loss" not in line for line in log)
    settings = dataclasses.replace(SETTINGS, held_out=0.02, patience=2)
    with pytest.raises(InputError, match=r"^--patience=2 is of .* --held_out=0.02 of 12 images is"):
        learned(tmp_path / "patience", detector(settings))


@pytest.mark.parametrize("masked", [True, False])
def test_held_out_loss_of_adtr_plus_is_the_normal_term_of_its_own(masked, tmp_path, given):
    masks = np.zeros((2, SIDE, SIDE), bool)
    masks[:, :8, :8] = True
    anomalies = Labelled(((IMAGES[:2], masks if masked else None),))
    plus = Plus(epochs=2, k=2)
    improved = AdtrPlusDetector.of(detector(SETTINGS).initialised(), plus, anomalies)
    trained, log = learned(tmp_path, improved)
    (data,) = given
    assert (data.normal, data.examples.total, data.held_out.total) == (9, 11, 3)
    f = jnp.asarray(trained.features(HELD_OUT, device_mesh(1)))
    phi = losses.pseudo_huber(f, trained.reconstruct(trained.params, f)).reshape(3, -1)
    expected = phi if masked else jnp.sort(phi)[:, -2:]
    assert log[-1]["validation_loss"] == pytest.approx(float(expected.mean()), rel=1e-5)


TARGETS = Shard(np.full(4, 3, np.float32), 4), Shard(np.full(2, 1, np.float32), 2)


def fit(folder: Path, settings: AdtrSettings) -> list[float]:
    """Trains a number that goes from 0 to 3 by about 0.1 an epoch; held out is 1."""

    def loss(params, rest, batch):
        return (params - batch.examples) ** 2, rest + 1

    params, rest = train.fit(
        loss,
        (jnp.float32(0), jnp.float32(0)),
        TrainingData(TARGETS[0], 4, TARGETS[1]),
        settings=settings,
        mesh=device_mesh(1),
        directory=folder,
        label="test",
    )
    return [float(params), float(rest)]


STOPPING = AdtrSettings(
    epochs=40, batch_size=4, learning_rate=0.1, weight_decay=0.0, held_out=0.1, patience=5
)


def test_training_stops_and_keeps_what_was_best(tmp_path):
    """Epoch 11 is the last after which the number is nearer to 1 than before."""
    params, epochs = fit(tmp_path, STOPPING)
    held_out = Curves.read(tmp_path).held_out
    best = int(held_out.argmin()) + 1
    assert best in (10, 11) and len(held_out) == best + 5
    assert epochs == best
    assert (params - 1) ** 2 == pytest.approx(held_out.min(), rel=1e-5)
    assert fit(tmp_path, STOPPING) == [params, epochs]  # it is not trained again
    whole, epochs = fit(tmp_path / "whole", dataclasses.replace(STOPPING, patience=None))
    assert epochs == 40 and whole > 2


@pytest.mark.parametrize("epoch", [6, 12])
def test_a_resumed_training_stops_where_a_whole_one_does(epoch, tmp_path, monkeypatch):
    """Killed before the best epoch, or while waiting for a better one."""
    monkeypatch.setattr(train, "SAVE_SECONDS", 0)
    monkeypatch.setattr("adtr_jax.training.checkpoint.KEEP", 40)
    whole = fit(tmp_path / "whole", STOPPING)
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    for folder in (tmp_path / "resumed/checkpoints").iterdir():
        if folder.name.isdigit() and int(folder.name) > epoch:
            shutil.rmtree(folder)
    assert fit(tmp_path / "resumed", STOPPING) == whole
    logs = [Curves.read(tmp_path / name) for name in ("whole", "resumed")]
    np.testing.assert_array_equal(logs[0].held_out, logs[1].held_out)
    assert len(jax.tree.leaves(logs[0])) == 3


def test_patience_makes_sense_of_held_out_images_alone():
    with pytest.raises(InputError) as error:
        AdtrSettings(patience=5)
    assert str(error.value) == (
        "--patience=5 is of the loss of held-out images, and --held_out=0 holds none out: give a "
        "share of the images, such as --held_out=0.1"
    )
    with pytest.raises(InputError, match=r"--patience=0 must be greater than 0"):
        GtransSettings(patience=0)
    with pytest.raises(InputError, match=r"--held_out=1.0 must be at least 0 and below 1"):
        AdtrSettings(held_out=1.0)
    assert Plus().settings(STOPPING).patience is None


def curve(*held_out: float) -> Curves:
    epochs = np.arange(1, len(held_out) + 1)
    return Curves(epochs, np.full(len(epochs), 9.0), np.array(held_out))


@pytest.mark.parametrize(
    ("held_out", "per_cent"),
    [
        ((9, 9, 8, 8), "11"),  # of the 9 after half of the epochs
        ((9, 8, 7, 6), "25"),
        ((9, 8, 7, 6, 5), "29"),
        ((100, 50, 49, 49), "2"),
        ((9, 8, 7, 7.9), "1"),
        ((9,), "0"),
        ((1, 2, 3, 4), "-100"),
        ((1, 2, 3, float("nan")), "nan"),
    ],
)
def test_more_epochs_are_advised_where_the_held_out_loss_fell_by_a_sixth(held_out, per_cent):
    remark = curve(*held_out).remark(len(held_out), "--max_steps")
    assert remark == (
        f"warning: the loss of held-out images fell by {per_cent} % in the second half of the "
        "epochs: more of them would help (--max_steps)"
        if per_cent in ("25", "29")
        else ""
    )


def test_an_early_stop_is_said_and_nothing_is_without_held_out_images():
    assert curve(9, 5, 6, 7).remark(40, "--epochs") == (
        "stopped after epoch 4 of 40: the loss of held-out images was lowest after epoch 2, and "
        "what was learned until then is kept"
    )
    assert curve(9, 5, 6, 7)._replace(held_out=None).remark(4, "--epochs") == ""


@pytest.mark.parametrize(
    ("limits", "option"), [({"epochs": 40}, "--epochs"), ({"max_steps": 120}, "--max_steps")]
)
def test_the_advice_names_the_option_that_ended_the_training(limits, option, tmp_path, capsys):
    settings = dataclasses.replace(SETTINGS, **limits, learning_rate=3e-3)
    if "max_steps" in limits:
        settings = dataclasses.replace(settings, epochs=1000)
    learned(tmp_path, detector(settings))
    held_out = Curves.read(tmp_path).held_out
    fall = 100 * (1 - held_out[39] / held_out[19])
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"test: warning: the loss of held-out images fell by {fall:.0f} % in the second half of "
        f"the epochs: more of them would help ({option})"
    )
