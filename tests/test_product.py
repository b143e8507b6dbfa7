"""From a folder of good images to decisions: fit, the model's file, predict, evaluate."""

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_folders import data_of
from stripes import ROOT, SIDE, write_category

import adtr_jax
from adtr_jax.api.fit import fit
from adtr_jax.api.model import Model, load
from adtr_jax.config import AdtrSettings, Plus
from adtr_jax.errors import InputError, Stopped
from adtr_jax.training import log, train

FLAGS = [
    *("--backbone=pixels", "--layers", "4", f"--image_size={SIDE}", "--width=32", "--heads=4"),
    *("--depth=1", "--hidden=64", "--epochs=30", "--max_steps=60", "--batch_size=4"),
]
SETTINGS = AdtrSettings(
    backbone="pixels",
    layers=(4,),
    image_size=SIDE,
    standardise=True,
    width=32,
    heads=4,
    depth=1,
    hidden=64,
    epochs=30,
    batch_size=4,
    learning_rate=2e-3,
    dropout=0.0,
    image_score="top",
)


def command(*words: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "adtr_jax", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def category(tmp_path_factory) -> Path:
    """16 good images in train/good; 8 good and 8 defective ones in test/, with masks."""
    folder = tmp_path_factory.mktemp("data") / "stripes"
    write_category(folder, wide=8)
    return folder


@pytest.fixture(scope="module")
def fitted(category, tmp_path_factory) -> tuple[Path, str]:
    """A model's file that the command has made, and what it has printed."""
    folder = tmp_path_factory.mktemp("model")
    done = command("fit", str(category / "train/good"), "--out=m.adtr", *FLAGS, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["m.adtr"]  # nothing else is left
    return folder / "m.adtr", done.stdout


@pytest.fixture(scope="module")
def model(fitted) -> Model:
    return load(fitted[0])


def test_fit_says_what_its_threshold_promises(fitted):
    lines = fitted[1].splitlines()
    assert lines[0] == "16 good images: 13 to train on, 3 held out to calibrate"
    assert "in at most 1 of 4 (25 %): 3 held-out good images cannot promise the 1 %" in lines[1]
    assert lines[-1] == f"  adtr-jax predict {fitted[0].name} NEW_PHOTOS --out=results"


def test_images_that_calibrate_decide_nothing_of_the_training(category, monkeypatch):
    """Their loss is logged; where training may stop early, it goes by others."""
    seen, real = [], train.fit

    def watched(loss, start, data, **rest):
        seen.append((data.normal, data.held_out and data.held_out.total))
        return real(loss, start, data, **rest)

    monkeypatch.setattr(train, "fit", watched)
    short = dataclasses.replace(SETTINGS, epochs=2)
    assert fit(category, short).calibration is not None
    fit(category, short, folds=2)
    stopping = dataclasses.replace(short, held_out=0.25, patience=1)
    model = fit(category, stopping)
    assert seen == [(13, 3), (8, 8), (8, 8), (16, None), (10, 3)]
    assert len(model.about["trained_on"]) == 13  # and those that chose the epoch
    assert len(model.calibration.scores) == 3


def test_an_interrupted_fit_says_whether_it_can_go_on(category, tmp_path, monkeypatch):
    real = log.TrainingLog.epoch

    def interrupted(*arguments, **rest):
        real(*arguments, **rest)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(log.TrainingLog, "epoch", interrupted)
    with pytest.raises(Stopped, match=r"^stopped; give `out`, the model's file, and the same call"):
        fit(category, SETTINGS)
    with pytest.raises(Stopped, match=r"^stopped after epoch 1 of 30 and saved in .* goes on$"):
        fit(category, SETTINGS, out=tmp_path / "m.adtr")


def test_a_model_knows_all_about_itself(model, category):
    assert model.calibration is not None and len(model.calibration.scores) == 3
    assert len(model.about["trained_on"]) == 13
    assert model.sizes == [(SIDE, SIDE)]
    assert model.decision is not None and model.decision.rate == 0.25
    assert model.with_false_alarms(0.6).decision.rate == 0.5
    with pytest.raises(InputError, match=r"^--false_alarms=1.0 is no share"):
        model.with_false_alarms(1.0)


def test_predictions_of_every_kind_of_image_are_the_same(model, category):
    path = sorted((category / "test/noise").iterdir())[0]
    picture = Image.open(path)
    found = [model.predict(image) for image in (path, str(path), picture, np.asarray(picture))]
    assert len({prediction.raw_score for prediction in found}) == 1
    first = found[0]
    assert first.anomalous and first.p_value == 0.25 and first.score > 0.5
    assert first.threshold == model.decision.threshold < first.raw_score
    assert min(first.overlay().size) >= SIDE  # a strip for the verdict makes it larger
    # The patch is at columns 24 to 44 and rows 20 to 36; tokens are 16 px.
    left, top, right, bottom = first.regions[0].box
    assert left < 44 and right > 24 and top < 36 and bottom > 20
    many = list(model.predict(category / "test/noise"))
    assert [Path(each.path).name for each in many] == sorted(
        each.name for each in (category / "test/noise").iterdir()
    )
    assert many[0].raw_score == pytest.approx(first.raw_score, rel=1e-5)


def test_an_image_that_cannot_be_read(model, category, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"x")
    with pytest.raises(InputError, match=r"bad\.png is not a png"):
        model.predict(bad)
    good = sorted((category / "test/good").iterdir())[0]
    errors = [each.error for each in model.predict([good, bad, good])]
    assert errors[0] is errors[2] is None and "is not a png" in str(errors[1])
    with pytest.raises(InputError, match=r"an image in memory is uint8 of shape \(0, 3, 3\)"):
        model.predict(np.ones((0, 3, 3), np.uint8))


def test_a_saved_model_is_the_same_model(model, tmp_path, category):
    model.with_false_alarms(0.3).save(tmp_path / "other.adtr")
    again = adtr_jax.load(tmp_path / "other.adtr")
    assert again.false_alarms == 0.3 and again.about == model.about
    image = sorted((category / "test/noise").iterdir())[0]
    ours, theirs = model.predict(image), again.predict(image)
    # One is computed by the program of a batch, the other by that of a single image.
    assert theirs.raw_score == pytest.approx(ours.raw_score, rel=1e-5)
    np.testing.assert_allclose(ours.score_map, theirs.score_map, rtol=1e-5)
    assert again.scale == model.scale and again.digest == model.digest


def test_a_flipped_bit_is_found(fitted, tmp_path):
    data = bytearray(fitted[0].read_bytes())
    data[-5] ^= 1
    (tmp_path / "m.adtr").write_bytes(data)
    with pytest.raises(InputError, match=r"m\.adtr is damaged: it does not hold what was written"):
        load(tmp_path / "m.adtr")


def test_predict_writes_a_row_an_image_and_goes_on(fitted, category, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"x")
    words = ["predict", str(fitted[0]), str(category / "test"), "bad.png", "--out=results"]
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "17 images; " in done.stdout and "1 could not be read" in done.stdout
    table = rows(tmp_path / "results")
    assert len(table) == 17 and list(table[0]) == [
        *("path", "anomalous", "score", "p_value", "raw_score", "threshold", "regions", "error"),
        "product",
    ]
    verdicts = {row["path"]: row["anomalous"] for row in table}
    assert all(verdicts[path] == "true" for path in verdicts if "noise" in path)
    assert table[-1]["error"].startswith("bad.png is not a png")
    lines = (tmp_path / "results/predictions.jsonl").read_text().splitlines()
    assert len(lines) == 17 and json.loads(lines[-2])["regions"][0]["area"] > 100
    assert len(list((tmp_path / "results/overlays").iterdir())) == 16
    reported = command("report", "results", "--out=r.html", cwd=tmp_path)
    assert (reported.returncode, reported.stdout) == (0, "r.html\n")
    report = data_of(tmp_path / "r.html")
    assert len(report["images"]) == 16 and report["errors"][0][0] == "bad.png"
    assert all(image["layered"] and image["size"] == [SIDE, SIDE] for image in report["images"])
    raw = {row["path"]: float(row["raw_score"]) for row in table if row["raw_score"]}
    assert {image["path"]: image["score"] for image in report["images"]} == raw
    assert report["start"] == float(table[0]["threshold"])
    again = command(*words, "--fail_on=anomalous", cwd=tmp_path)
    assert again.returncode == 1 and "16 were scored before" in again.stdout
    assert rows(tmp_path / "results") == table
    other = command(*words, "--false_alarms=0.5", cwd=tmp_path)
    assert other.returncode == 2 and "false_alarms" in other.stderr


def test_predict_takes_a_list_from_standard_input(fitted, category, tmp_path):
    image = str(sorted((category / "test/good").iterdir())[0])
    words = ["predict", str(fitted[0]), "-", "--no_overlays"]
    done = command(*words, cwd=tmp_path, stdin=f"{image}\n")
    assert done.returncode == 0, done.stderr
    assert [row["path"] for row in rows(tmp_path / "results")] == [image]


def started(*words: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "adtr_jax", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_rows(file: Path, count: int) -> None:
    """Until so many rows are in the CSV file, the heading apart."""
    end = time.monotonic() + 120
    while not file.exists() or file.read_bytes().count(b"\n") <= count:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_nothing_is_lost_or_doubled_by_a_kill(fitted, category, tmp_path):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    images = sorted((category / "test/good").iterdir())
    for i in range(150):
        shutil.copy(images[i % len(images)], inbox / f"{i:03}.png")
    words = ["predict", str(fitted[0]), "inbox"]
    for count in (1, 40):
        process = started(*words, cwd=tmp_path)
        wait_for_rows(tmp_path / "results/predictions.csv", count)
        process.kill()
        process.communicate()
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kept = int(done.stdout.split(" were scored before")[0].split()[-1])
    assert 40 <= kept < 150 and done.stdout.startswith(f"{150 - kept} images; ")
    found = [Path(row["path"]).name for row in rows(tmp_path / "results")]
    assert sorted(found) == [f"{i:03}.png" for i in range(150)]
    lines = (tmp_path / "results/predictions.jsonl").read_text().splitlines()
    assert [Path(json.loads(line)["path"]).name for line in lines] == found
    assert len(list((tmp_path / "results/overlays").iterdir())) == 150


def test_watching_scores_what_arrives_and_goes_on_after_a_kill(fitted, category, tmp_path):
    (tmp_path / "inbox").mkdir()
    images = sorted((category / "test/noise").iterdir())
    table = tmp_path / "results/predictions.csv"
    process = started("predict", str(fitted[0]), "inbox", "--watch", cwd=tmp_path)
    shutil.copy(images[0], tmp_path / "inbox")
    wait_for_rows(table, 1)
    process.kill()
    process.communicate()
    shutil.copy(images[1], tmp_path / "inbox")
    process = started("predict", str(fitted[0]), "inbox", "--watch", cwd=tmp_path)
    wait_for_rows(table, 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Traceback" not in err and "1 image; 1 anomalous, 0 normal; 1 were scored" in out
    found = [Path(row["path"]).name for row in rows(tmp_path / "results")]
    assert found == [images[0].name, images[1].name]


def test_evaluate_measures_false_alarms_and_misses(fitted, category, tmp_path):
    words = ["evaluate", str(fitted[0]), f"--good={category / 'test/good'}"]
    words += [f"--defects={category / 'test/noise'}", f"--masks={category / 'ground_truth/noise'}"]
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Here it rejects " in done.stdout and "misses 0 of 8 (0.0 %)" in done.stdout
    metrics = json.loads((tmp_path / "evaluation/metrics.json").read_text())
    assert metrics["image_auroc"] > 0.9 and metrics["pixel_auroc"] > 0.8
    assert done.stdout.splitlines()[-1] == str(Path("evaluation/report.html"))
    report = data_of(tmp_path / "evaluation/report.html")
    model = load(fitted[0])
    assert report["start"] == model.decision.threshold
    assert report["calibration"] == sorted(model.calibration.scores.tolist())
    assert len(report["images"]) == 16 and all(image["layered"] for image in report["images"])
    assert all(image["boxes"] for image in report["images"] if image["defect"] == "noise")
    facts = {heading: dict(pairs) for heading, pairs in report["facts"]}
    assert facts["Model"]["SHA-256"] == model.digest
    assert set(facts["Times"]) == {"begun", "reading", "scoring"}
    (tmp_path / "evaluation/report.html").unlink()
    done = command(*words, "--no_report", cwd=tmp_path)
    assert done.returncode == 0 and not (tmp_path / "evaluation/report.html").exists()


def test_known_defects_go_on_from_the_model(fitted, category, tmp_path):
    start = load(fitted[0])
    improved = fit(
        category / "train/good",
        defects=category / "test/noise",
        masks=category / "ground_truth/noise",
        start=start,
        plus=Plus(epochs=2, max_steps=4),
    )
    np.testing.assert_array_less(0, improved.calibration.scores)
    assert improved.about["trained_on"] == start.about["trained_on"]
    assert improved.calibration.scores.tolist() != start.calibration.scores.tolist()
    assert len(improved.calibration.scores) == 3


def test_cross_fitting_holds_every_image_out_once(category):
    said: list[str] = []
    images = sorted((category / "train/good").iterdir())[:4]
    settings = AdtrSettings(**{**vars(SETTINGS), "epochs": 2})
    model = fit(images, settings, folds=2, say=said.append)
    assert said == ["fold 1 of 2", "fold 2 of 2", "all 4 good images"]
    assert len(model.calibration.scores) == 4 and len(model.about["trained_on"]) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "none"], "none does not exist: give a folder of good images"),
        (["fit", ".", *FLAGS], ". holds no images: put good ones there"),
        (["fit", ".", "--from=x.adtr"], "--from is the model that ADTR+ goes on from: give --def"),
        (["fti", "."], "no command of adtr-jax is called fti: did you mean fit?"),
        (["predict", "none.adtr", "."], "none.adtr does not exist: make a model with adtr-jax fit"),
    ],
)
def test_bad_input_is_one_line(words, message, tmp_path):
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1


def test_the_api_is_imported_in_no_time():
    code = "import sys, adtr_jax; print('jax' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "False False\n"
    assert set(adtr_jax.__all__) <= set(dir(adtr_jax))
    with pytest.raises(AttributeError, match="has no attribute 'predict'"):
        _ = adtr_jax.predict
