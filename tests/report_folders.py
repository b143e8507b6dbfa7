"""Folders of results with generated images, as evaluate and predict write them, without a model."""

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from adtr_jax.calibration.calibration import Calibration
from adtr_jax.config import AdtrSettings
from adtr_jax.data.samples import GOOD, Sample
from adtr_jax.evaluation import report
from adtr_jax.evaluation.figures import Findings, Scale
from adtr_jax.evaluation.metrics import evaluate
from adtr_jax.evaluation.preview import Preview
from adtr_jax.evaluation.report import ScoreRow
from adtr_jax.evaluation.results import PredictionRow, Results
from adtr_jax.html_report import evaluated
from adtr_jax.html_report.card import ModelCard

SETTINGS = AdtrSettings(
    backbone="efficientnet-lite0",
    layers=(1, 2),
    image_size=64,
    standardise=True,
    epochs=1,
    batch_size=4,
    learning_rate=1e-3,
    dropout=0.0,
    image_score="top",
)
# A path may hold a slash, so that a file's and its folders' names can end a script together.
HOSTILE = (
    "test/x</script><script>window.harmed=1</script>.png",
    "test/<img src=x onerror=window.harmed=1>.png",
    "test/\"double\" and 'single' & `back` ${window.harmed=1}.png",
    "test/<!-- 画像 \u2028 \u202e é 🙂 \udcff.png",
)
HOSTILE_KIND = "<b onmouseover=window.harmed=1>dent</b>"


def texture(
    rng: np.random.Generator, width: int, height: int, fineness: float = 1.5
) -> Image.Image:
    """A photograph's worth of detail, in colour."""
    noise = gaussian_filter(rng.normal(size=(height, width, 3)), (1.5, 1.5, 0))
    pixels = 127 + 45 * noise / noise.std()
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write_evaluation(
    directory: Path, count: int = 60, *, calibrated: bool = True
) -> list[ScoreRow]:
    """A third of the images good, two kinds of defects, overlapping scores, odd names; 96 x 64."""
    rng = np.random.default_rng(1)
    kinds = [(GOOD, "crack", HOSTILE_KIND)[i % 3] for i in range(count)]
    names = [*HOSTILE, *(f"test/{i}.png" for i in range(len(HOSTILE), count))]
    scores = [float(rng.normal(8 if kind == GOOD else 11, 2)) for kind in kinds]
    rows = [
        ScoreRow(name, kind, int(kind != GOOD), score)
        for name, kind, score in zip(names, kinds, scores, strict=True)
    ]
    file = directory.with_name(f"{directory.name}.png")
    texture(rng, 96, 64).save(file)
    samples = [Sample(row.path, file, row.defect) for row in rows]
    maps = np.stack([score * bump(rng) for score in scores]).astype(np.float32)
    labels = np.array([row.label for row in rows])
    report.write(directory, evaluate(np.array(scores), labels), rows)
    calibration = Calibration(rng.normal(8, 2, 30), rng.normal(8, 2, 30))
    decision = calibration.decision(0.1)
    card = ModelCard.of(
        "bolt.adtr", "3fa9" * 16, SETTINGS, calibration=calibration, decision=decision
    )
    images = np.zeros((count, 64, 64, 3), np.uint8)
    findings = Findings(images, maps, None, rows, Scale.of(maps))
    shown = evaluated.Shown.of(rows, decision.threshold, None).listed
    evaluated.keep(directory, samples, findings, SETTINGS, shown, card=card, decision=decision)
    return rows


def bump(rng: np.random.Generator, side: int = 64) -> np.ndarray:
    """A smooth map with one maximum, of 1."""
    y, x = np.mgrid[:side, :side] - rng.uniform(10, side - 10, 2)[:, None, None]
    return np.exp(-(x**2 + y**2) / 200)


def write_predictions(directory: Path, scores: Sequence[float], side: int = 640) -> None:
    """Predictions of a model without calibration, with pictures full of detail; one unreadable."""
    rng = np.random.default_rng(2)
    images = [texture(rng, side, side) for _ in range(4)]
    maps = [gaussian_filter(rng.normal(size=(256, 256)), 8) for _ in images]
    previews = [
        Preview.of(image, score_map, (0.0, float(score_map.max())))
        for image, score_map in zip(images, maps, strict=True)
    ]
    with Results(directory, {"model": "3fa9"}) as results:
        for i, score in enumerate(scores):
            row = PredictionRow(
                f"inbox/{i:05}.png", None, None, None, score, None, (), None, (side, side)
            )
            results.add(row, None, previews[i % len(previews)])
        failed = PredictionRow(
            "inbox/bad.png", None, None, None, None, None, (), "inbox/bad.png is not a png"
        )
        results.add(failed)


def data_of(file: Path) -> dict[str, Any]:
    """What a report tells its scripts."""
    text = file.read_text("utf-8")
    return json.loads(re.search('<script type="application/json" id="data">(.*)</script>', text)[1])


def pictures_of(file: Path) -> list[list[bytes]]:
    """The encoded layers of each of a report's images."""
    found = re.findall(
        '<script type="text/plain" id="picture[0-9]+">(.*)</script>', file.read_text()
    )
    return [[base64.b64decode(layer) for layer in each.split()] for each in found]
