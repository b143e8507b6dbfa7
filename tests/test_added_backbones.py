"""A network that another package adds: found by its entry point, and used like one of ours."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import conversion
from adtr_jax import backbones, detectors
from adtr_jax.config import AdtrSettings
from adtr_jax.detectors.header import Header
from adtr_jax.errors import InputError

NETWORK = """
import jax.numpy as jnp
from flax import nnx

from adtr_jax.backbones.backbone import Backbone


class Means(Backbone):
    # Tap i is the mean of patches of 2^i pixels, times a parameter.
    channels = (3,) * 5
    centres = tuple((2**i - 1) / 2 for i in range(1, 6))

    def __init__(self, *, rngs):
        self.factor = nnx.Param(jnp.array([1.0, 2.0, 3.0]))

    def taps(self, images, weight=None):
        sides = [2**i for i in range(1, 6)]
        return tuple(
            self.factor[...] * nnx.avg_pool(images, (side, side), (side, side)) for side in sides
        )

    def logits(self, x):
        return x.mean(axis=(1, 2))

    def trim(self, depth):
        pass


def nothing(*, rngs):
    return None
"""
POINTS = """[adtr_jax.backbones]
means = networks_of_others:Means
nothing = networks_of_others:nothing
missing = networks_of_others:Missing
"""


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """The folder of an installed package, on Python's path."""
    (tmp_path / "networks_of_others.py").write_text(NETWORK)
    info = tmp_path / "networks_of_others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: networks-of-others\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("networks_of_others", None)


def test_an_added_network_is_one_like_ours(package):
    settings = AdtrSettings(backbone="means", image_size=64, width=32, heads=4, depth=1)
    assert "networks_of_others" not in sys.modules  # its name is enough until it is used
    network = backbones.create("means", rngs=nnx.Rngs(0))
    weights = package / "weights"
    with pytest.raises(InputError, match=r"means.safetensors is not there; the package that adds"):
        backbones.load("means", weights)
    backbones.save(network, conversion.ensure("means", weights))
    loaded = backbones.load("means", weights)
    assert backbones.digest(loaded) == backbones.digest(network)
    assert conversion.licence("means") == ""
    images = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    deepest = loaded.taps(images)[-1]
    blocks = images.reshape(1, 2, 32, 2, 32, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(deepest, blocks * np.asarray(network.factor[...]), rtol=1e-5)
    detector = detectors.create(loaded, settings)
    assert detector.params["project_in"]["kernel"].shape == (15, 32)
    header = Header(settings=settings, backbone_sha256=backbones.digest(loaded)).to_json()
    assert Header.of_json(header).settings == settings
    with pytest.raises(InputError, match="on the backbone net-x, which no installed package adds"):
        Header.of_json(header.replace("means", "net-x"))


def test_a_damaged_file_of_an_added_network_is_named(package):
    file = package / "means.safetensors"
    backbones.save(backbones.create("means", rngs=nnx.Rngs(0)), file)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        InputError, match=r"means.safetensors is damaged: .*; the package that adds"
    ):
        backbones.load("means", package)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "networks_of_others:nothing returns no adtr_jax.backbones.backbone.Backbone"),
        (
            "missing",
            r"cannot be made by networks_of_others:Missing \(module 'networks_of_others' ha",
        ),
        ("mean", "no backbone is called mean: did you mean means"),
    ],
)
def test_what_is_no_network_is_one_line(package, name, message):
    with pytest.raises(InputError, match=message):
        backbones.create(name, rngs=nnx.Rngs(0))


def test_without_its_package_the_network_is_unknown():
    with pytest.raises(InputError, match="no backbone is called means: "):
        dataclasses.replace(AdtrSettings(), backbone="means")
