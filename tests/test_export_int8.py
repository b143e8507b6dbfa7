"""An int8 export has a threshold of its own scores, and says what it costs."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from small_detectors import SIDE, SMALL, detector, smallest_networks
from stripes import write_category

from adtr_jax.api import int8
from adtr_jax.api.model import Model, load
from adtr_jax.commands import export as command
from adtr_jax.config import AdtrSettings, GtransSettings, Settings
from adtr_jax.data.good_images import GoodImages
from adtr_jax.errors import InputError

onnx = pytest.importorskip("onnx", reason="exports need pip install 'adtr_jax[export]'")

ADTR = AdtrSettings(backbone="efficientnet-lite0", layers=(1, 2, 3), image_size=SIDE, **SMALL)
GTRANS = GtransSettings(backbone="resnet-18", image_size=32, width=32)
TRAINED_ON = 10  # of the 16 good images


@pytest.fixture(scope="module", autouse=True)
def smallest():
    with smallest_networks():
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_category(folder, wide=8)
    return folder


def model(settings: Settings, photos: Path) -> tuple[Model, np.ndarray]:
    """As `fit` makes it, with random parameters; and the images that it was not trained on."""
    good = GoodImages.read(photos, settings.image_size, settings.crop)
    about = {"trained_on": sorted(good.digests[:TRAINED_ON]), "folds": None, "sizes": []}
    made, held = detector(settings), np.asarray(good.pixels[TRAINED_ON:])
    plain = Model(made, None, (0.0, 1.0), false_alarms=0.3, about=about)
    return plain.calibrated(*made.score(held)), held


@pytest.fixture(scope="module")
def adtr(photos) -> tuple[Model, np.ndarray]:
    return model(ADTR, photos)


def weights(path: Path) -> dict[str, list[str]]:
    """The types of numbers that operations get as weights, by the operation."""
    graph = onnx.load(path).graph
    types = {made.name: made.data_type for made in graph.initializer}
    source = {
        node.output[0]: types[node.input[0]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in types
    } | types
    found: dict[str, list[str]] = {"Conv": [], "MatMul": []}
    for node in graph.node:
        if node.op_type in found and node.input[1] in source:
            found[node.op_type].append(onnx.TensorProto.DataType.Name(source[node.input[1]]))
    return found


def test_the_command_makes_the_threshold_anew_and_prints_the_loss(adtr, photos, tmp_path, capsys):
    made, held = adtr
    made.save(tmp_path / "m.adtr")
    noise = photos / "test/noise"
    words = [str(tmp_path / "m.adtr"), f"--int8={photos}", f"--defects={noise}"]
    assert command.main(words) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"m.adtr", "m.int8.onnx"}
    quantised = load(tmp_path / "m.int8.onnx")
    maps, scores = quantised.detector.score(held)
    np.testing.assert_allclose(quantised.calibration.scores, scores, rtol=1e-6)
    np.testing.assert_allclose(quantised.calibration.peaks, maps.max(axis=(1, 2)), rtol=1e-6)
    # k = floor(0.3 * 7) = 2 of 6 images are at the threshold or above.
    assert quantised.decision.threshold == pytest.approx(np.sort(scores)[-2], rel=1e-6)
    assert abs(quantised.decision.threshold / made.decision.threshold - 1) > 1e-5
    assert quantised.digest != load(tmp_path / "m.adtr").digest
    assert quantised.about == made.about and quantised.scale != made.scale

    bad = np.stack([np.asarray(Image.open(file)) for file in sorted(noise.iterdir())])
    labels = np.repeat([0, 1], [len(held), len(bad)])
    before, after = (
        roc_auc_score(labels, one.detector.score(np.concatenate([held, bad]))[1])
        for one in (made, quantised)
    )
    out = capsys.readouterr().out
    assert "int8: ranges from 10 images that were trained on, the threshold from 6 that" in out
    found = re.search(r"against 8 defects: (\S+) in float32, (\S+) in int8, a loss of (\S+)\n", out)
    expected = (before, after, before - after)
    assert [float(number) for number in found.groups()] == pytest.approx(expected, abs=5.1e-5)

    said = {made.key: made.value for made in onnx.load(tmp_path / "m.int8.onnx").metadata_props}
    assert said["quantised"] == "int8" and "adtr_jax" in said
    kinds = weights(tmp_path / "m.int8.onnx")
    assert set(kinds["MatMul"]) == {"INT8"} and set(kinds["Conv"]) == {"FLOAT"}


def test_ordinary_convolutions_but_the_first_are_int8(photos, tmp_path):
    made, held = model(GTRANS, photos)
    found = int8.export(made, tmp_path / "m.onnx", photos)
    assert found.proof.is_small and len(found.float32.defects) == 0
    np.testing.assert_allclose(found.float32.good, made.detector.score(held)[1], rtol=1e-4)
    scores = load(tmp_path / "m.onnx").detector.score(held)[1]
    np.testing.assert_allclose(found.int8.good, scores, rtol=1e-6)
    assert found.change == pytest.approx(np.abs(scores / found.float32.good - 1).max())
    assert 0 < found.change < 0.3
    kinds = weights(tmp_path / "m.onnx")["Conv"]
    assert kinds[0] == "FLOAT" and set(kinds[1:]) == {"INT8"}


def test_the_change_of_scores_is_said_without_defects(capsys):
    scores = [int8.Scores(np.array(good), np.empty(0)) for good in ([1.0, 2.0], [1.1, 1.5])]
    found = int8.Int8(int8.Difference(0.0, 0.0), 3, *scores)
    command.say_cost(found, measured=False)
    assert capsys.readouterr().out == (
        "int8: ranges from 3 images that were trained on, the threshold from 2 that were not\n"
        "their scores change by at most 25.0%; --defects=DIR would tell the loss of AUROC\n"
    )


def test_bad_input_is_one_line_and_leaves_no_file(adtr, photos, tmp_path):
    made, _ = adtr
    file = tmp_path / "m.onnx"

    def error(about: dict, folder: Path, defects: Path | None = None) -> str:
        with pytest.raises(InputError) as caught:
            int8.export(dataclasses.replace(made, about=about), file, folder, defects)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    digests = GoodImages.read(photos, SIDE, 1.0).digests
    assert error({"trained_on": list(digests)}, photos) == (
        f"the model was trained on all of the images in --int8={photos}, so none is left for the "
        "threshold: add good ones that it has not seen"
    )
    assert error(made.about, photos / "test/good") == (
        f"--int8={photos}/test/good holds no image that the model was trained on: give the folder "
        "that it was fitted on"
    )
    assert error({}, photos).startswith("the model does not say what it was trained on, so its")
    assert error(made.about, tmp_path / "none").endswith(
        "does not exist: give a folder of good images"
    )
    assert error(made.about, photos, tmp_path / "none").endswith(
        "give a folder of anomalous images"
    )
    assert list(tmp_path.iterdir()) == []

    made.save(tmp_path / "m.adtr")
    for words, message in (
        ([f"--int8={photos}", "--format=stablehlo"], "--int8 is of ONNX: leave it out, or give"),
        ([f"--defects={photos}"], "--defects are to measure what --int8=PHOTOS costs: give both"),
    ):
        with pytest.raises(InputError, match=f"^{message}"):
            command.main([str(tmp_path / "m.adtr"), *words])
