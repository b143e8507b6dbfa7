"""One model for several categories, as a user types it, on small generated images."""

import csv
import dataclasses
import json
from pathlib import Path

import pytest
from stripes import SIDE, call, write_category

import adtr_jax
from adtr_jax.config import AdtrSettings
from experiments import ablation

SMALL = [  # a detector that learns the stripes in a second
    *("--backbone=pixels", "--layers", "4", f"--image_size={SIDE}", "--model=no_attention"),
    *("--width=32", "--depth=1", "--hidden=64", "--epochs=30", "--batch_size=8"),
    *("--learning_rate=2e-3", "--dropout=0", "--image_score=top", "--pictures=0"),
]


pytestmark = pytest.mark.usefixtures("soon_compiled")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two categories of stripes, the second one without masks, and one without defects."""
    root = tmp_path_factory.mktemp("data")
    write_category(root / "stripes", wide=8)
    write_category(root / "waves", wide=5, masks=False)
    (root / "plain").mkdir()
    (root / "plain/train").symlink_to(root / "stripes/train")
    return root


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> tuple[Path, str]:
    """The folder of a finished run, and what the command printed."""
    out = tmp_path_factory.mktemp("out")
    flags = [f"--data={data}", f"--out={out}", *SMALL]
    result = call("--category=waves,stripes", "--unified", *flags)
    assert result.returncode == 0, result.stderr
    return out, result.stdout


def test_one_model_is_trained_on_all_and_evaluated_on_each(finished):
    out, printed = finished
    assert "unified: 32 normal images of 2 categories\nunified: features" in printed
    assert {path.name for path in out.iterdir()} == {"unified"}
    folder = out / "unified"
    names = json.loads((folder / "settings.json").read_text())["training images"]
    assert len(names) == 32 and {"stripes/train/good/000.png", "waves/train/good/015.png"} < set(
        names
    )
    assert len((folder / "log.jsonl").read_text().splitlines()) == 30
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line}
    assert "mean of 2" in printed and "ADTR+" not in printed
    for name, count in (("stripes", 8), ("waves", 4)):
        metrics = json.loads((folder / name / "metrics.json").read_text())
        assert metrics["image_auroc"] == 1.0 and rows[name][0] == "100.0"
        assert len(metrics) == count  # without masks those of images alone
        claim = json.loads((folder / name / "settings.json").read_text())
        assert claim == {"model": "../model.safetensors"}
        assert f"{folder / name / 'report.html'}" in printed.splitlines()


def test_the_models_folder_is_loaded_as_any(finished, data):
    folder = finished[0] / "unified"
    with (folder / "waves/scores.csv").open() as file:
        row = next(csv.DictReader(file))
    found = adtr_jax.load(folder).predict(data / "waves" / row["path"])
    assert found.raw_score == pytest.approx(float(row["score"]), rel=1e-5)


def test_the_same_command_evaluates_again_and_other_categories_are_refused(finished, data):
    out, _ = finished
    model = (out / "unified/model.safetensors").stat().st_mtime_ns
    flags = [f"--data={data}", f"--out={out}", *SMALL, "--unified"]
    again = call("--category=stripes,waves", *flags)  # in whatever order
    assert again.returncode == 0, again.stderr
    assert (out / "unified/model.safetensors").stat().st_mtime_ns == model
    fewer = call("--category=stripes", *flags)
    assert fewer.returncode == 2
    assert fewer.stderr.strip().splitlines()[-1] == (
        f"error: {out / 'unified'}: holds a run of other settings or images (training images "
        "changed (32 -> 16: waves/train/good/000.png removed and 15 more)); choose another folder "
        "with --out=DIR, or replace it with --retrain"
    )


@pytest.mark.parametrize(
    ("module", "flags", "message"),
    [
        (
            "mvtec",
            ["--category=stripes,waves", "--anomalies=confetti"],
            "--anomalies is of one model a category: leave it out, or --unified",
        ),
        (
            "mvtec",
            ["--category=all"],
            "plain: there are no test images: put normal ones into test/good, and anomalous",
        ),
        ("cifar10", ["--class=cat"], "--unified: what is normal of one class is anomalous of"),
    ],
)
def test_bad_input_is_one_line(module, flags, message, data, tmp_path):
    where = [f"--data={data}", f"--out={tmp_path}", *SMALL, "--unified"]
    result = call(*flags, *where, module=f"experiments.{module}")
    assert result.returncode == 2
    assert message in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_study_has_a_row_for_each_of_uniads_parts():
    settings = AdtrSettings(layers=(2, 3))
    rows = ablation.variants("unified", settings)
    made = {row: dataclasses.replace(settings, **changed) for row, changed in rows.items()}
    names = ("neighbours", "model", "jitter", "clip", "layers")
    assert {row: tuple(getattr(each, name) for name in names) for row, each in made.items()} == {
        "ADTR": (None, "adtr", None, None, (2, 3)),
        "neighbour mask": (7, "adtr", None, None, (2, 3)),
        "layer-wise query": (None, "layerwise_query", None, None, (2, 3)),
        "jitter": (None, "adtr", 20.0, None, (2, 3)),
        "clipping": (None, "adtr", None, 0.1, (2, 3)),
        "all": (7, "layerwise_query", 20.0, 0.1, (2, 3)),
        "all of layers 1-4": (7, "layerwise_query", 20.0, 0.1, (1, 2, 3, 4)),
    }


def test_the_study_is_of_one_model_and_checked_before_anything_is_trained(data, tmp_path):
    flags = ["--category=stripes", f"--data={data}", f"--out={tmp_path}", *SMALL, "--study=unified"]
    flags += ["--model=adtr"]
    few = call(*flags, module="experiments.ablation")
    assert few.returncode == 2
    assert "--neighbours=7 must be odd, above 0 and below 4, the tokens" in few.stderr
    plus = call(*flags, "--token_stride=8", "--anomalies=confetti", module="experiments.ablation")
    assert plus.returncode == 1
    assert plus.stderr.count("--anomalies is of one model a category: leave it out") == 7
