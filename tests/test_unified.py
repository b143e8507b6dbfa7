"""One model for several categories, as a user types it, on small generated images."""

import csv
import json
from pathlib import Path

import jax
import pytest
from stripes import SIDE, call, write_category

import adtr_jax

SMALL = ["--backbone=pixels", f"--image_size={SIDE}", "--width=32", "--heads=4", "--depth=1"]
SMALL += ["--hidden=64", "--batch_size=8", "--learning_rate=2e-3", "--dropout=0", "--pictures=0"]
LEARNING = [*SMALL, "--layers", "4", "--epochs=30", "--image_score=top"]


@pytest.fixture(scope="module", autouse=True)
def soon_compiled():
    """For the numbers' sake programs need not be fast."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


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
    flags = [f"--data={data}", f"--out={out}", *LEARNING]
    result = call("--category=waves,stripes", "--unified", *flags)
    assert result.returncode == 0, result.stderr
    return out, result.stdout


def test_one_model_is_trained_on_all_and_evaluated_on_each(finished):
    out, printed = finished
    assert "unified: 32 normal images of 2 categories\n" in printed
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
    flags = [f"--data={data}", f"--out={out}", *LEARNING, "--unified"]
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
    where = [f"--data={data}", f"--out={tmp_path}", *LEARNING, "--unified"]
    result = call(*flags, *where, module=f"experiments.{module}")
    assert result.returncode == 2
    assert message in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_study_has_a_row_for_each_of_uniads_parts(data, tmp_path):
    flags = [f"--data={data}", f"--out={tmp_path}", *SMALL, "--layers", "3", "--token_stride=8"]
    flags += ["--epochs=1", "--no_report", "--study=unified"]
    result = call("--category=stripes,waves", *flags, module="experiments.ablation")
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "unified/results.json").read_text())
    assert [*rows] == [
        *("ADTR", "neighbour mask", "layer-wise query", "jitter", "clipping", "all"),
        "all of layers 1-4",
    ]
    assert all(row.keys() == {"stripes", "waves"} for row in rows.values())
    changed = {}
    for row in rows:
        folder = tmp_path / "unified" / row.replace(" ", "_") / "unified"
        held = json.loads((folder / "settings.json").read_text())
        changed[row] = [held[key] for key in ("neighbours", "model", "jitter", "clip", "layers")]
    assert changed == {
        "ADTR": [None, "adtr", None, None, [3]],
        "neighbour mask": [7, "adtr", None, None, [3]],
        "layer-wise query": [None, "layerwise_query", None, None, [3]],
        "jitter": [None, "adtr", 20.0, None, [3]],
        "clipping": [None, "adtr", None, 0.1, [3]],
        "all": [7, "layerwise_query", 20.0, 0.1, [3]],
        "all of layers 1-4": [7, "layerwise_query", 20.0, 0.1, [1, 2, 3, 4]],
    }
    scores = {json.dumps(row) for row in rows.values()}
    assert len(scores) == len(rows)  # no part is without effect


def test_a_study_that_cannot_be_says_so_before_anything_is_trained(data, tmp_path):
    flags = [f"--data={data}", f"--out={tmp_path}", *LEARNING, "--study=unified"]
    result = call("--category=stripes", *flags, module="experiments.ablation")
    assert result.returncode == 2
    assert "--neighbours=7 must be odd, above 0 and below 4, the tokens" in result.stderr
    assert list(tmp_path.iterdir()) == []
