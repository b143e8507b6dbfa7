"""Experiments and commands on images of 12 bits, and on masks of which nothing is left."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from image_files import sixteen_bit_png
from PIL import Image
from report_folders import data_of
from stripes import SIDE, call, save, write_category
from test_experiments import PIXELS
from test_product import SETTINGS

import adtr_jax
from adtr_jax.data.folders import read_category
from adtr_jax.data.images import load_images
from adtr_jax.errors import InputError

LARGE = 4 * SIDE


def small_defects(folder: Path) -> Path:
    """Images four times as large as the score map, each with a defect of 2 x 2 pixels."""
    write_category(folder, wide=8)
    for path in folder.glob("t*/*/*.png"):
        save(path, np.asarray(Image.open(path)).repeat(4, axis=0).repeat(4, axis=1))
    for path in folder.glob("ground_truth/*/*.png"):
        mask = np.zeros((LARGE, LARGE), np.uint8)
        mask[84:86, 100:102] = 255  # nearest neighbour takes row 86 and column 102
        save(path, mask)
    return folder


def test_what_becomes_of_small_defects(tmp_path: Path) -> None:
    """Lost: said before the training, and all but the pixel metrics is there. Kept: all is."""
    folder = small_defects(tmp_path / "data/stripes")
    flags = [f"--data={tmp_path / 'data'}", "--category=stripes", f"--out={tmp_path / 'out'}"]
    done = call(*flags, *PIXELS, "--mask_filter=nearest", "--no_report")
    assert done.returncode == 0, done.stderr
    mask = folder / "ground_truth/noise/016_mask.png"
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: stripes")]
    assert warnings == [
        f"warning: stripes: 8 defect regions in 8 images (the first is {mask}) vanish at {SIDE} x "
        f"{SIDE} pixels by nearest neighbour, and count as normal: leave out "
        "--mask_filter=nearest, or take a larger --image_size",
        "warning: stripes: no pixel is marked in any mask at the score maps' size, so there are no "
        "pixel metrics",
    ]
    results = tmp_path / "out/stripes"
    metrics = json.loads((results / "metrics.json").read_text())
    assert list(metrics) == ["image_auroc", "image_ap", "image_f1_max", "image_f1_max_fpr"]
    assert len((results / "scores.csv").read_text().splitlines()) == 17
    assert len(list((results / "pictures").iterdir())) == 16
    model = (results / "model.safetensors").read_bytes()
    done = call(*flags, *PIXELS, "--no_report")  # a setting of the evaluation: nothing is trained
    assert "warning: stripes" not in done.stderr
    assert (results / "model.safetensors").read_bytes() == model
    both = json.loads((results / "metrics.json").read_text())
    assert both.items() >= metrics.items()
    assert both["pixel_auroc"] > 0.5


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stripes as a 12-bit camera writes them into 16-bit files."""
    root = tmp_path_factory.mktemp("data")
    write_category(root / "stripes", wide=8)
    for path in (root / "stripes").glob("t*/*/*.png"):
        values = np.asarray(Image.open(path)).astype(int) * 4095 // 255
        sixteen_bit_png(path, values.astype(np.uint16))
    return root


def test_twelve_bits_are_found_kept_and_named(twelve: Path, tmp_path: Path) -> None:
    words = [f"--data={twelve}", "--category=stripes", f"--out={tmp_path}", *PIXELS]
    done = call(*words)
    assert done.returncode == 0, done.stderr
    assert "stripes: 16-bit images, of which 12 bits are used (values up to 4,095)" in done.stdout
    assert json.loads((tmp_path / "stripes/metrics.json").read_text())["image_auroc"] == 1.0
    assert json.loads((tmp_path / "stripes/settings.json").read_text())["bits"] == 12
    facts = dict(data_of(tmp_path / "stripes/report.html")["facts"])
    assert dict(facts["Settings"])["bits"] == "12"
    model = adtr_jax.load(tmp_path / "stripes")
    assert model.settings.bits == 12
    with (tmp_path / "stripes/scores.csv").open() as file:
        scores = {row["path"]: float(row["score"]) for row in csv.DictReader(file)}
    for name in ("test/good/016.png", "test/noise/016.png"):
        found = model.predict(twelve / "stripes" / name)
        assert found.raw_score == pytest.approx(scores[name], rel=1e-5)
    done = call(*words, "--bits=14")
    assert done.stderr.splitlines()[-1].startswith(
        f"error: {tmp_path / 'stripes'}: holds a run of other settings or images (bits was 12, is "
        "now 14"
    )


def test_a_model_of_twelve_bits_takes_nothing_else(twelve: Path, tmp_path: Path) -> None:
    good = twelve / "stripes/train/good"
    out = tmp_path / "m.adtr"
    said: list[str] = []
    adtr_jax.fit(good, SETTINGS, out=out, say=said.append)
    assert said[0].startswith("16-bit images, of which 12 bits are used (values up to 4,095);")
    model = adtr_jax.load(out)
    assert model.settings.bits == 12
    values = np.full((SIDE, SIDE, 3), 4096, np.uint16)
    bright = sixteen_bit_png(tmp_path / "bright.png", values)
    save(tmp_path / "eight.png", np.zeros((SIDE, SIDE, 3), np.uint8))
    found = [item.error or "" for item in model.predict([bright, tmp_path / "eight.png", good])]
    assert found[0].startswith(f"{bright} has the value 4,351, and ") or "4,096" in found[0]
    assert (
        f"{tmp_path / 'eight.png'} has 8 bits a channel where 16-bit images are expec" in found[1]
    )
    samples = read_category(twelve, "stripes").train[:1]
    seen = load_images(samples, SIDE, bits=12)[0].astype(int)
    raw = np.asarray(Image.open(samples[0].image)).astype(int)  # the upper bytes alone
    assert len(np.unique(raw)) < 17 and len(np.unique(seen)) > 100


def test_mixed_depths_are_an_error_before_anything_is_trained(twelve: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_category(root / "stripes", wide=8)
    deep = root / "stripes/test/good/016.png"
    sixteen_bit_png(deep, np.zeros((SIDE, SIDE, 3), np.uint16))
    done = call(f"--data={root}", "--category=stripes", f"--out={tmp_path / 'out'}", *PIXELS)
    assert done.returncode == 2
    first = root / "stripes/train/good/000.png"
    assert done.stderr.splitlines()[-1] == (
        f"error: {first} has 8 bits a channel and {deep} has 16: convert the images of a category "
        "to one depth"
    )
    with pytest.raises(InputError, match="has 8 bits a channel and"):
        adtr_jax.fit(sorted((root / "stripes/test/good").iterdir()))
