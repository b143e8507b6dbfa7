"""Exports of every method and family of backbones equal the detector; spoiled ones are not kept."""

import csv
import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from jax import export as jax_export
from PIL import Image
from small_detectors import SIDE, SMALL, detector, smallest_networks
from stripes import ROOT, write_category

from adtr_jax.api.fit import fit
from adtr_jax.api.model import Model, load
from adtr_jax.calibration.calibration import Calibration
from adtr_jax.commands import export as export_command
from adtr_jax.config import AdtrSettings, GtransSettings, Plus, Settings
from adtr_jax.data.anomalies import Labelled
from adtr_jax.detectors.adtr_plus import AdtrPlusDetector
from adtr_jax.detectors.detector import Detector
from adtr_jax.errors import InputError
from adtr_jax.export import onnx_writer, proof
from adtr_jax.export.proof import Difference
from adtr_jax.files import digest
from benchmarks import exports

onnx = pytest.importorskip("onnx", reason="exports need pip install 'adtr_jax[export]'")

CASES: dict[str, Settings] = {
    "adtr, lite, as in the paper": AdtrSettings(
        backbone="efficientnet-lite0", layers=(1, 2, 3), image_size=SIDE, **SMALL
    ),
    "adtr+, b, UniAD's parts, the fast preset's scoring": AdtrSettings(
        backbone="efficientnet-b0",
        layers=(2, 3),
        image_size=SIDE,
        model="layerwise_query",
        neighbours=1,
        standardise=True,
        placement="centres",
        image_score="top",
        **SMALL,
    ),
    "cnn, pixels that do not fill their patches": AdtrSettings(
        backbone="pixels", image_size=48, model="cnn", image_score="mean", **SMALL
    ),
    "gtrans, resnet, as in the paper": GtransSettings(
        backbone="resnet-18", image_size=32, width=32
    ),
    "gtrans, wide resnet, the fast preset's scoring": GtransSettings(
        backbone="wide-resnet-50-2",
        layers=(2, 3),
        image_size=32,
        width=32,
        blocks=1,
        query_from="trans",
        placement="centres",
        coefficient="half",
        fusion="P4",
    ),
}
IN_STABLEHLO = ("adtr, lite, as in the paper", "gtrans, resnet, as in the paper")


@pytest.fixture(scope="module", autouse=True)
def smallest():
    with smallest_networks():
        yield


def plus(adtr: Detector) -> AdtrPlusDetector:
    anomalies = Labelled(((proof.images(2, SIDE), None),))
    return AdtrPlusDetector.of(adtr, Plus(), anomalies)


@pytest.mark.parametrize("name", CASES)
def test_an_export_equals_its_detector(name, tmp_path):
    made = detector(CASES[name])
    model = Model(plus(made) if "adtr+" in name else made, None, (0.0, 1.0))
    pixels = proof.images(3, model.settings.image_size)
    maps, scores = model.detector.score(pixels)
    for suffix in (".onnx", ".stablehlo") if name in IN_STABLEHLO else (".onnx",):
        found = model.export(tmp_path / f"m{suffix}")
        assert 0 <= found.maps <= 1e-5 and 0 <= found.scores <= 1e-5
    # What the proof has found is so, in another batch, too.
    again = load(tmp_path / "m.onnx")
    assert again.settings == model.settings and again.decision is None
    their_maps, their_scores = again.detector.score(pixels)
    np.testing.assert_allclose(their_maps, maps, atol=1e-5 * maps.max())
    np.testing.assert_allclose(their_scores, scores, rtol=1e-5)


def test_stablehlo_is_what_jax_export_reads_on_all_platforms(fitted, tmp_path):
    model, folder = fitted
    with zipfile.ZipFile(folder / "m.stablehlo") as archive:
        exported = jax_export.deserialize(bytearray(archive.read("exported.bin")))
        said = json.loads(archive.read("metadata.json"))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    pixels = proof.images(5, SIDE)
    maps, scores = exported.call(pixels)
    expected = model.detector.score(pixels)
    np.testing.assert_allclose(maps, expected[0], rtol=1e-4, atol=1e-5 * expected[0].max())
    np.testing.assert_allclose(scores, expected[1], rtol=1e-5)
    assert json.loads(said["threshold"]) == model.decision.threshold


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> tuple[Model, Path]:
    """A model with a threshold, of which a part of the image is cropped; with both exports."""
    folder = tmp_path_factory.mktemp("exports")
    settings = AdtrSettings(backbone="pixels", layers=(4,), image_size=SIDE, crop=0.8, **SMALL)
    made = detector(settings)
    maps, scores = made.score(proof.images(5, SIDE))
    calibration = Calibration(scores.astype(float), maps.max(axis=(1, 2)).astype(float))
    about = {"sizes": [[80, 80]], "trained_on": [], "folds": None}
    model = Model(made, calibration, (1.0, 20.0), 0.4, licence="Apache-2.0", about=about)
    model.save(folder / "m.adtr")
    for kind in ("onnx", "stablehlo"):
        assert export_command.main([str(folder / "m.adtr"), f"--format={kind}"]) == 0
    assert {file.name for file in folder.iterdir()} == {"m.adtr", "m.onnx", "m.stablehlo"}
    return load(folder / "m.adtr"), folder


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Eight good images and eight with a noisy patch; one on its side, and one that is none."""
    folder = tmp_path_factory.mktemp("images")
    write_category(folder, wide=8)
    found = folder / "test"
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(proof.images(1, 90)[0][:50]).save(found / "turned.jpg", exif=exif)
    return found


@pytest.mark.parametrize("suffix", [".onnx", ".stablehlo"])
def test_predictions_of_an_export_are_those_of_the_model(fitted, images, suffix):
    model, folder = fitted
    export = load(folder / f"m{suffix}")
    assert export.about == model.about and export.digest == model.digest
    assert export.decision == model.decision and export.scale == model.scale
    pairs = list(zip(model.predict(images), export.predict(images), strict=True))
    assert len(pairs) == 17
    for ours, theirs in pairs:
        assert theirs.raw_score == pytest.approx(ours.raw_score, rel=1e-5)
        assert theirs.score == pytest.approx(ours.score, rel=1e-3)
        assert (theirs.anomalous, theirs.p_value) == (ours.anomalous, ours.p_value)
        assert [region.box for region in theirs.regions] == [region.box for region in ours.regions]
    assert export.with_false_alarms(0.2).decision == model.with_false_alarms(0.2).decision
    with pytest.raises(InputError, match="an export only predicts: give the model that it was"):
        export.save(folder / "again.adtr")
    with pytest.raises(InputError, match="an export only predicts"):
        fit(images / "good", defects=images / "noise", start=export)


def run(*words: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


WITHOUT_JAX = """
import sys
for name in ("jax", "jaxlib", "flax", "optax", "orbax"):
    sys.modules[name] = None  # importing it fails
import adtr_jax
model = adtr_jax.load(sys.argv[1])
assert model.predict(sys.argv[3]).overlay().size >= (64, 64)
from adtr_jax.__main__ import main
sys.argv = ["adtr-jax", "predict", sys.argv[1], sys.argv[2]]
sys.exit(main())
"""


def test_onnx_predicts_without_jax(fitted, images, tmp_path):
    model, folder = fitted
    one = sorted((images / "noise").iterdir())[0]
    out = run("-c", WITHOUT_JAX, str(folder / "m.onnx"), str(images), str(one), cwd=tmp_path)
    assert out.startswith("17 images; ")
    with (tmp_path / "results/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = list(model.predict(images))
    assert [row["path"] for row in rows] == [found.path for found in expected]
    for row, found in zip(rows, expected, strict=True):
        assert float(row["raw_score"]) == pytest.approx(found.raw_score, rel=1e-5)
        assert (row["anomalous"], float(row["p_value"])) == (
            str(found.anomalous).lower(),
            found.p_value,
        )


def test_the_example_needs_numpy_pillow_and_onnxruntime_alone(fitted, images, tmp_path):
    model, folder = fitted
    packages = tmp_path / "packages"  # all that can be imported but for the standard library
    packages.mkdir()
    for name in ("numpy", "PIL", "onnxruntime"):
        spec = importlib.util.find_spec(name)
        place = Path(spec.submodule_search_locations[0])
        (packages / name).symlink_to(place)
        for libraries in place.parent.glob(f"{'pillow' if name == 'PIL' else name}.libs"):
            (packages / libraries.name).symlink_to(libraries)
    code = (
        "import runpy, sys; sys.path.append(sys.argv.pop(1)); del sys.argv[0]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    files = [str(path) for path in sorted(images.rglob("*.*g"))]
    script = str(ROOT / "examples/onnx_predict.py")
    words = ["-I", "-S", "-c", code, str(packages), script, str(folder / "m.onnx"), *files]
    lines = [line.split("\t") for line in run(*words, cwd=tmp_path).splitlines()]
    assert [line[0] for line in lines] == files and len(files) == 17
    for (_, score, anomalous), found in zip(lines, model.predict(files), strict=True):
        assert float(score) == pytest.approx(found.raw_score, rel=1e-5)
        assert anomalous == str(found.anomalous).lower()


def test_a_spoiled_export_is_not_written(fitted, tmp_path, monkeypatch):
    model, _ = fitted
    write = onnx_writer.write

    def spoiled(function, *rest):
        """A thousandth too much."""
        write(lambda pixels: tuple(1.001 * values for values in function(pixels)), *rest)

    monkeypatch.setattr(onnx_writer, "write", spoiled)
    (tmp_path / "old.onnx").write_text("untouched")
    for name in ("new.onnx", "old.onnx"):
        with pytest.raises(InputError) as caught:
            model.export(tmp_path / name)
        assert str(caught.value) == (
            f"{tmp_path / name} is not written: its score maps differ by 0.001 and its scores by "
            "0.001 of their size from the model's, more than 0.0001"
        )
    assert [file.name for file in tmp_path.iterdir()] == ["old.onnx"]
    assert (tmp_path / "old.onnx").read_text() == "untouched"


def test_an_export_that_does_not_run_is_not_written(fitted, tmp_path, monkeypatch):
    model, _ = fitted
    monkeypatch.setattr(onnx_writer, "write", lambda *words: words[-1].write_text("no graph"))
    with pytest.raises(InputError, match=r"^the export does not run: .*onnxruntime"):
        model.export(tmp_path / "new.onnx")
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_is_not_exported(fitted, tmp_path):
    model, _ = fitted
    settings = dataclasses.replace(model.settings, dtype="bfloat16")
    other = dataclasses.replace(
        model, detector=dataclasses.replace(model.trained, settings=settings)
    )
    with pytest.raises(InputError, match=r"^the model computes in bfloat16, which every program"):
        other.export(tmp_path / "m.onnx")


def test_a_difference_that_is_no_number_is_not_small():
    assert Difference(1e-4, 1e-4).is_small
    assert not Difference(float("nan"), 0.0).is_small
    assert not Difference(0.0, float("inf")).is_small
    assert not Difference(1.1e-4, 0.0).is_small


def error(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_exports_are_one_line(fitted, tmp_path):
    model, folder = fitted
    for suffix, words in ((".onnx", "by onnxruntime: "), (".stablehlo", "is damaged, or an exp")):
        data = (folder / f"m{suffix}").read_bytes()
        bad = tmp_path / f"bad{suffix}"
        bad.write_bytes(data[: len(data) // 2])
        message = error(lambda bad=bad: load(bad))
        assert message.startswith(str(bad)) and words in message
        for place in np.random.default_rng(0).integers(0, len(data), 20):
            damaged = bytearray(data)
            damaged[place] ^= 4
            bad.write_bytes(damaged)
            assert f"{bad} is damaged" in error(lambda bad=bad: load(bad))
    bad = tmp_path / "emptied.onnx"
    data = (folder / "m.onnx").read_bytes()
    written = re.search(rb'"file_sha256": "[0-9a-f]{64}"', data)[0]
    bad.write_bytes(data.replace(written, b'"file_sha256": ""'.ljust(len(written))))
    assert f"{bad} is damaged" in error(lambda: load(bad))
    other = onnx.load(folder / "m.onnx")
    entries = {entry.key: entry for entry in other.metadata_props}
    entries["calibration"].value = '{"scores": [1, 2], "peaks": [1]}'
    header = json.loads(entries["adtr_jax"].value)
    entries["adtr_jax"].value = json.dumps(header | {"file_sha256": digest.BLANK})
    onnx.save(other, tmp_path / "other.onnx")
    digest.seal(tmp_path / "other.onnx")
    assert error(lambda: load(tmp_path / "other.onnx")) == (
        f"{tmp_path}/other.onnx has a damaged calibration; export the model again with adtr-jax "
        "export"
    )
    del other.metadata_props[:]
    onnx.save(other, tmp_path / "other.onnx")
    assert "does not say what it is: it is no model of adtr_jax" in error(
        lambda: load(tmp_path / "other.onnx")
    )
    assert error(lambda: load(tmp_path / "none.onnx")).endswith("make it with adtr-jax export")
    assert "end it with .onnx or .stablehlo" in error(lambda: model.export(tmp_path / "m.pb"))
    words = [str(folder / "m.adtr"), "--out=m.pb"]
    assert error(lambda: export_command.main(words)) == (
        "--out=m.pb must end with .onnx, by which it is known"
    )


def test_the_metadata_says_what_other_languages_need(fitted):
    model, folder = fitted
    said = {entry.key: entry.value for entry in onnx.load(folder / "m.onnx").metadata_props}
    assert said.keys() == {
        *("adtr_jax", "calibration", "preprocessing", "threshold", "pixel_threshold"),
        *("false_alarms", "version", "method", "backbone", "licence"),
    }
    assert (said["method"], said["backbone"], said["licence"]) == ("adtr", "pixels", "Apache-2.0")
    assert json.loads(said["threshold"]) == model.decision.threshold
    assert json.loads(said["preprocessing"])["resize"] == [80, 80]
    assert json.loads(said["preprocessing"])["bits"] is None
    assert json.loads(said["preprocessing"])["crop"] == [8, 8, 72, 72]
    calibration = json.loads(said["calibration"])
    assert calibration["scores"] == model.calibration.scores.tolist()
    assert json.loads(said["adtr_jax"])["settings"]["image_size"] == SIDE


def test_the_benchmark_has_a_row_for_each_way():
    rows = list(exports.measure(exports.QUICK, 1))
    assert [row[1] for row in rows] == ["JAX", "StableHLO", "ONNX Runtime"]
    assert all(len(row) == len(exports.HEADER) and float(row[-1]) > 0 for row in rows)
    start = {row[1]: float(row[4].split()[0]) for row in rows}
    assert start["ONNX Runtime"] < start["JAX"]
