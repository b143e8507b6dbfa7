"""One model of several products: fit, its file, predict with and without their names, reports."""

import csv
import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_folders import data_of
from stripes import SIDE, call, run, write_category

from adtr_jax.api.fit import fit
from adtr_jax.api.model import Model, load
from adtr_jax.calibration.recogniser import Recogniser
from adtr_jax.config import AdtrSettings
from adtr_jax.data import good_images
from adtr_jax.data.product_folders import product_folders
from adtr_jax.detectors.header import KEY
from adtr_jax.errors import InputError
from adtr_jax.files import state_file

adtr_jax = functools.partial(call, module="adtr_jax")
FLAGS = [
    *("--backbone=pixels", "--layers", "4", f"--image_size={SIDE}", "--width=32", "--heads=4"),
    *("--depth=1", "--hidden=64", "--epochs=30", "--max_steps=60", "--batch_size=4"),
]


pytestmark = pytest.mark.usefixtures("soon_compiled")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Bright stripes and dark ones, which are noisier and of another size, in MVTec layout."""
    root = tmp_path_factory.mktemp("data")
    write_category(root / "bright", wide=8)
    write_category(root / "dark", wide=5)
    rng = np.random.default_rng(1)
    for file in (root / "dark").glob("t*/*/*.png"):
        with Image.open(file) as image:
            noisy = np.asarray(image) / 2 + rng.normal(0, 25, (SIDE, SIDE, 3))
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).resize((96, 72)).save(file)
    return root


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory) -> tuple[Path, str]:
    """A model's file that the command has made, and what it has printed."""
    file = tmp_path_factory.mktemp("model") / "m.adtr"
    done = run("fit", str(data), "--unified", f"--out={file}", *FLAGS, module="adtr_jax")
    assert done.returncode == 0, done.stderr
    return file, done.stdout


@pytest.fixture(scope="module")
def model(fitted) -> Model:
    return load(fitted[0])


def test_fit_says_what_it_has_learned_of_each(fitted):
    printed = fitted[1].splitlines()
    assert printed[0] == "32 good images of 2 products: 26 to train on, 6 held out to calibrate"
    assert printed[1] == "recognises the product in 6 of 6 held-out images (100.0%)"
    assert printed[2].startswith("bright: ") and printed[3].startswith("dark: ")


def test_the_file_knows_the_products(model, data, tmp_path):
    assert list(model.products) == ["bright", "dark"] and model.calibration is None
    bright, dark = model.products.values()
    assert bright.sizes == [(SIDE, SIDE)] and dark.sizes == [(96, 72)]
    assert bright.detector is dark.detector is model.detector
    assert len(bright.calibration.scores) == len(dark.calibration.scores) == 3
    assert bright.decision.threshold != dark.decision.threshold and bright.scale != dark.scale
    model.save(tmp_path / "again.adtr")
    again = load(tmp_path / "again.adtr")
    assert again.digest == model.digest
    for name, one in model.products.items():
        other = again.products[name]
        np.testing.assert_array_equal(other.calibration.scores, one.calibration.scores)
        assert other.decision == one.decision and other.scale == one.scale


def test_each_image_is_judged_by_its_own_products_threshold(model, data):
    for name in ("dark", "bright"):
        images = sorted((data / name / "test").glob("*/*.png"))
        recognised, named = list(model.predict(images)), list(model.of(name).predict(images))
        assert [found.product for found in recognised] == [name] * 16
        for one, other in zip(recognised, named, strict=True):
            assert one.threshold == model.products[name].decision.threshold == other.threshold
            assert (one.anomalous, one.score) == (other.anomalous, pytest.approx(other.score))
            np.testing.assert_allclose(one.score_map, other.score_map, rtol=1e-5, atol=1e-6)
        assert all(one.anomalous for one in recognised if "noise" in one.path)
        assert recognised[0].verdict.startswith(f"{name}: ")
    assert model.with_false_alarms(0.5).products["dark"].decision.rate == 0.5


def test_predict_names_the_product_of_each_image(fitted, data, tmp_path):
    out, folders = tmp_path / "results", [str(data / name / "test") for name in ("bright", "dark")]
    words = ["predict", str(fitted[0]), *folders, f"--out={out}"]
    done = adtr_jax(*words)
    assert done.returncode == 0, done.stderr
    assert not done.stderr and "32 images" in done.stdout
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["product"] for row in rows] == ["bright"] * 16 + ["dark"] * 16
    assert len({row["threshold"] for row in rows}) == 2
    done = adtr_jax("report", str(out))
    assert done.returncode == 0, done.stderr
    report = data_of(out / "report.html")
    shown = {image["path"]: image for image in report["images"]}
    assert report["threshold"] == report["start"] == 0.5
    for row in rows:
        assert shown[row["path"]]["score"] == float(row["score"])
        assert shown[row["path"]]["product"] == row["product"]
    facts = {heading: dict(pairs) for heading, pairs in report["facts"]}
    assert facts["Model"]["threshold"].startswith("bright: ")
    done = adtr_jax(*words, "--product=dark")
    assert done.returncode == 2 and '(product was "recognised", is now "dark")' in done.stderr
    done = adtr_jax(*words[:-1], f"--out={tmp_path / 'dark'}", "--product=dark")
    with (tmp_path / "dark/predictions.csv").open(newline="") as file:
        assert {row["product"] for row in csv.DictReader(file)} == {"dark"}


def test_what_is_of_one_product_asks_for_its_name(fitted, data, tmp_path):
    dark = data / "dark/test"
    words = ["evaluate", str(fitted[0]), f"--good={dark / 'good'}", f"--defects={dark / 'noise'}"]
    words += [f"--out={tmp_path / 'evaluation'}", "--pictures=0", "--no_report"]
    asks = "error: the model knows several products: name one with --product, of bright, dark\n"
    done = adtr_jax(*words)
    assert (done.returncode, done.stderr) == (2, asks)
    done = adtr_jax(*words, "--product=dark")
    assert done.returncode == 0 and "misses 0 of 8" in done.stdout, done.stderr
    done = adtr_jax("export", str(fitted[0]), f"--out={tmp_path / 'm.onnx'}")
    assert (done.returncode, done.stderr) == (2, asks)
    file = tmp_path / "dark.onnx"
    done = adtr_jax("export", str(fitted[0]), f"--out={file}", "--product=dark")
    assert done.returncode == 0, done.stderr
    exported, one = load(file), load(fitted[0]).of("dark")
    assert exported.decision == one.decision and not exported.products
    done = adtr_jax("predict", str(file), str(dark), "--product=dark")
    assert "the model is of one product: leave --product out" in done.stderr
    done = adtr_jax("predict", str(fitted[0]), str(dark), "--product=drak")
    assert done.stderr == "error: --product=drak: the model knows bright, dark\n"


def test_a_damaged_header_is_one_line(fitted, tmp_path):
    header = json.loads(state_file.read_metadata(fitted[0], "")[KEY])
    model = load(fitted[0])
    whole = header["extra"]["products"]
    for damaged, reason in [
        ([{**whole[0], "calibrated": 5}, whole[1]], "calibrated on"),
        ([whole[0], {**whole[1], "name": "bright"}], "of the same name"),
        ([whole[0], {**whole[1], "scale": [1, "a"]}], "neither float"),
        ([whole[0], {"name": "dark"}], "is not a list"),
    ]:
        described = model._described()
        described["extra"]["products"] = damaged
        from adtr_jax.detectors import model_file

        model_file.save(model.trained, tmp_path / "bad.adtr", **described)
        with pytest.raises(InputError, match=rf"bad.adtr has a damaged header \(.*{reason}"):
            load(tmp_path / "bad.adtr")


def test_cross_fitting_deals_each_products_images_into_folds(data):
    settings = AdtrSettings(
        backbone="pixels",
        layers=(4,),
        image_size=SIDE,
        standardise=True,
        width=32,
        heads=4,
        depth=1,
        hidden=64,
        epochs=1,
        batch_size=4,
        image_score="top",
    )
    images = {name: good_images.files(data / name)[:4] for name in ("bright", "dark")}
    said: list[str] = []
    model = fit(images, settings, folds=2, say=said.append)
    assert said[-1] == "recognises the product in 8 of 8 held-out images (100.0%)"
    assert [len(one.calibration.scores) for one in model.products.values()] == [4, 4]
    with pytest.raises(InputError, match=r"--folds=5 of 4 of bright: give at most 4"):
        fit(images, settings, folds=5)
    with pytest.raises(InputError, match="bright: 1 good image is not enough"):
        fit(images | {"bright": images["bright"][:1]}, settings)
    with pytest.raises(InputError, match="one model of 1 product: give two or more"):
        fit({"bright": images["bright"]}, settings)


def test_recognition_goes_by_the_spread_of_each_channel():
    """A channel that varies within products tells little, however far the means are apart."""
    embeddings = np.array([[0.0, 0], [0, 10], [1, 0], [1, 10]], np.float32)
    embeddings = np.repeat(embeddings, 2, axis=0) + np.float32([[-0.1, 0], [0.1, 0]] * 4)
    fitted = Recogniser.fit(("a", "b"), embeddings, np.repeat([0, 1], 4))
    np.testing.assert_allclose(fitted.means, [[0, 5], [1, 5]], atol=1e-6)
    spread = np.array([0.1, 5])
    np.testing.assert_allclose(fitted.spread, spread + 0.1 * spread.mean(), rtol=1e-5)
    assert fitted.nearest(np.float32([[0.2, 25], [0.8, -15]])).tolist() == [0, 1]
    single = Recogniser.fit(("a", "b"), embeddings[[0, 7]], np.array([0, 1]))
    assert single.nearest(embeddings).tolist() == [0, 0, 1, 1] * 2


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ([], "holds no folders of several products, but none"),
        (["train/good/0.png", "test/good/0.png"], "of several products, but test, train: give the"),
        (["a/0.png", "b/0.png", "c.jpg"], "images beside the folders of the products, such as c"),
    ],
)
def test_a_folder_without_products(layout, message, tmp_path):
    for name in layout:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=message):
        product_folders(tmp_path)


def test_a_folder_of_categories_says_how_to_take_them_all(data):
    with pytest.raises(
        InputError, match=r"holds 2 categories .* or all of them to adtr-jax fit --unif"
    ):
        good_images.files(data)


def test_each_product_keeps_an_image_to_train_on_and_one_to_calibrate(data):
    bright, dark = (good_images.files(data / name) for name in ("bright", "dark"))
    images = {"bright": bright, "dark": dark[:2]}
    good = good_images.GoodImages.read(images, SIDE, 1.0)
    held = good.held_out(0.25, 0)
    assert [np.count_nonzero(held[good.products == i]) for i in (0, 1)] == [4, 1]
    alone = good_images.GoodImages.read(images["bright"], SIDE, 1.0)
    assert alone.held_out(0.25, 0).tolist() == held[:16].tolist()
    assert dataclasses.astuple(alone)[1] == good.digests[:16] and alone.names == ("",)
