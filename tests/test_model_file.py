"""A model file says what it is, and is loaded by that; every mismatch is one line."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

import adtr_jax
from adtr_jax import backbones, detectors
from adtr_jax.backbones.pixels import Pixels
from adtr_jax.config import AdtrSettings, GtransSettings
from adtr_jax.detectors import model_file
from adtr_jax.detectors.adtr import AdtrDetector
from adtr_jax.detectors.detector import Detector
from adtr_jax.devices.feature_cache import FeatureCache
from adtr_jax.devices.sharding import device_mesh, per_device, replicated
from adtr_jax.errors import InputError

SETTINGS = AdtrSettings(
    backbone="pixels",
    layers=(4,),
    image_size=64,
    standardise=True,
    width=32,
    heads=4,
    depth=1,
    hidden=64,
)
IMAGES = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> Detector:
    """With random parameters and a fitted standardisation."""
    cache = FeatureCache(tmp_path_factory.mktemp("cache"))
    untrained = detectors.create(Pixels(), SETTINGS).initialised()
    return untrained.training_data(IMAGES, device_mesh(1), cache)[0]


@pytest.fixture
def file(detector, tmp_path) -> Path:
    model_file.save(detector, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def rewritten(file: Path, change) -> Path:
    """The file with another header."""
    with safe_open(file, framework="numpy") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        header = json.loads(opened.metadata()[model_file.KEY])
    text = change(header) or json.dumps(header)
    safetensors.numpy.save_file(tensors, file, {model_file.KEY: text})
    return file


def error(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_is_loaded_by_its_own_header(detector, file, tmp_path):
    header = model_file.read_header(file)
    assert header.settings == SETTINGS and header.version == adtr_jax.__version__
    assert header.backbone_sha256 == backbones.digest(Pixels())
    loaded = model_file.load(file, tmp_path).detector
    assert type(loaded) is AdtrDetector and loaded.settings == SETTINGS
    for mine, theirs in zip(
        detector.score(IMAGES, device_mesh(1)), loaded.score(IMAGES, device_mesh(1)), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_a_setting_that_an_older_file_lacks_has_its_default():
    header = model_file.Header(settings=SETTINGS, backbone_sha256="00")
    fields = json.loads(header.to_json())
    del fields["settings"]["held_out"]
    assert model_file.Header.of_json(json.dumps(fields)).settings.held_out == 0


def test_settings_of_both_methods_survive_the_header():
    for settings in (AdtrSettings(max_steps=7), GtransSettings(held_out=0.0, seed=3)):
        header = model_file.Header(settings=settings, backbone_sha256="00")
        assert model_file.Header.of_json(header.to_json()) == header


def test_other_settings_are_refused_but_for_those_of_the_evaluation(detector, file):
    def given(**changed):
        return detectors.create(Pixels(), dataclasses.replace(SETTINGS, **changed))

    message = error(lambda: model_file.load_into(given(standardise=False), file))
    assert message == (
        f"{file} was trained with standardise=True, not False; give the same settings, or train "
        "it again with --retrain"
    )
    assert "layers=(4,), not (3,)" in error(lambda: model_file.load_into(given(layers=(3,)), file))
    assert model_file.load_into(given(image_score="mean"), file).settings.image_score == "mean"


def test_other_weights_of_the_backbone_are_refused(file, tmp_path):
    network = "0" * 64
    rewritten(file, lambda header: header.update(backbone_sha256=network))
    message = error(lambda: model_file.load(file, tmp_path))
    assert message.startswith(
        f"{file} was trained on weights of pixels with SHA-256 0000000000000000"
    )
    assert message.endswith(
        "convert the checkpoint it was trained on, or train it again with --retrain"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: "{", "has a damaged header (Expecting property name"),
        (lambda header: "[]", "has a damaged header (list indices must be"),
        (lambda header: header.pop("method") and None, "has a damaged header ('method')"),
        (lambda header: header.update(method="svm"), "with the method svm, which no"),
        (lambda header: header.update(more=1), "has a damaged header ("),
        (lambda header: header.update(file_sha256=""), "(the digest of the file is missing)"),
        (lambda header: header["settings"].pop("layers") and None, "has a damaged header ('layers"),
        (lambda header: header["settings"].update(depth="4"), "str is not an instance of int"),
        (lambda header: header["settings"].update(dtype="int8"), "is not any of "),
        (lambda header: header["settings"].update(layers=[5, 1]), "--layers 5 1 must be numbers"),
        (
            lambda header: header.update(format=3, version="9.9"),
            "was written by adtr_jax 9.9, which is newer: update",
        ),
    ],
)
def test_a_header_that_makes_no_sense_is_one_line(file, change, message, tmp_path):
    found = error(lambda: model_file.load(rewritten(file, change), tmp_path))
    assert found.startswith(str(file)) and message in found


def test_a_file_without_a_header_is_old_or_no_model(file, tmp_path):
    with safe_open(file, framework="numpy") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    safetensors.numpy.save_file(tensors, file, {"settings": "{}"})
    message = error(lambda: model_file.load(file, tmp_path))
    assert message == (
        f"{file} does not say what it is: it is no model of adtr_jax, or of a version before 0.2; "
        "train it again with --retrain"
    )
    file.write_bytes(b"nothing")
    assert "is not a readable safetensors file" in error(lambda: model_file.load(file, tmp_path))
    assert "is not there" in error(lambda: model_file.load(tmp_path / "none", tmp_path))


def test_products_are_precise_whoever_compiles_them():
    """The precision is part of the program, not of what was constructed before."""
    program = per_device(lambda a, b: a @ b, device_mesh(1), (replicated,) * 2, replicated)
    a = jax.ShapeDtypeStruct((8, 8), np.float32)
    assert jax.config.jax_default_matmul_precision is None
    assert "precision = [HIGHEST, HIGHEST]" in program.lower(a, a).as_text()


def test_a_bit_that_flips_anywhere_is_found(file, tmp_path):
    """In the names, the settings, the calibration's numbers, the tensors: nothing is outside."""
    content, rng = file.read_bytes(), np.random.default_rng(0)
    end = 8 + int.from_bytes(content[:8], "little")
    places = [*range(0, end, 7), *rng.integers(end, len(content), 50)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        assert str(file) in error(lambda: model_file.load(file, tmp_path))
    file.write_bytes(content)
    assert model_file.load(file, tmp_path).header.settings == SETTINGS


def test_a_file_of_the_first_format_has_a_digest_of_its_tensors_alone(detector, file, tmp_path):
    def change(header):
        header.update(format=1)
        del header["file_sha256"]

    rewritten(file, change)
    assert model_file.load(file, tmp_path).header.sha256 == model_file.read_header(file).sha256
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    message = error(lambda: model_file.load(file, tmp_path))
    assert message == (
        f"{file} is damaged: it does not hold what was written; train it again with --retrain"
    )
