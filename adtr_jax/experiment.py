"""One category from images to results: train, score, measure, and write everything to a folder."""

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import UInt8

from adtr_jax import backbones, features, figures, metrics, report, run_folder, train
from adtr_jax.backbones.efficientnet import EfficientNet
from adtr_jax.config import Settings
from adtr_jax.data.images import load_images, load_masks
from adtr_jax.data.samples import Category
from adtr_jax.detector import Detector
from adtr_jax.files import write_atomically
from adtr_jax.sharding import device_mesh


def run(
    category: Category, settings: Settings, weights: Path, directory: Path, *, retrain: bool = False
) -> tuple[dict[str, float], dict[str, float]]:
    """Trains on a category's normal images, tests on its test images, and writes the results.

    Everything is read and checked before anything is trained. A run that was stopped goes on; a
    finished one is only evaluated again.

    Args:
        category: the images.
        settings: how to train and score.
        weights: the folder of converted backbone weights.
        directory: gets `settings.json`, `checkpoints/`, `log.jsonl`, `tensorboard/`,
            `model.safetensors`, `metrics.json`, `scores.csv`, `timings.json`,
            `overview.png`, `histogram.png` and `pictures/`.
        retrain: forget what the directory holds, and train from the start.

    Returns:
        The metrics, and the seconds that each stage took.

    Raises:
        InputError: bad images or masks, missing or damaged weights, or a directory that holds a
            run with other settings or images.
        Stopped: on Ctrl-C, after saving.
    """
    timings: dict[str, float] = {}
    mesh = device_mesh()
    with _timed(timings, "reading images"):
        size = settings.image_size
        images = load_images(category.train, size)
        test_images = load_images(category.test, size)
        masks = load_masks(category.test, size) if category.has_masks else None
    backbone = backbones.load(settings.backbone, weights)
    run_folder.claim(directory, _identity(settings, weights, images), retrain=retrain)
    # Without this, float32 products run in TF32 on GPUs and in bfloat16 on TPUs.
    precision = "highest" if settings.dtype == "float32" else "default"
    jax.config.update("jax_default_matmul_precision", precision)
    detector = _trained(
        backbone,
        images,
        settings,
        mesh=mesh,
        directory=directory,
        label=category.name,
        timings=timings,
    )
    with _timed(timings, "scoring"):
        maps, scores = detector.score(test_images, mesh)
    with _timed(timings, "metrics"):
        labels = np.array([sample.label for sample in category.test])
        values = metrics.evaluate(scores, labels, maps, masks)
    with _timed(timings, "pictures"):
        rows = [
            report.ScoreRow(sample.name, sample.defect, sample.label, float(score))
            for sample, score in zip(category.test, scores, strict=True)
        ]
        report.write(directory, values, rows)
        findings = figures.Findings(test_images, maps, masks, rows)
        shutil.rmtree(directory / "pictures", ignore_errors=True)
        figures.save_pictures(directory / "pictures", findings)
        figures.save_overview(directory / "overview.png", findings)
        figures.save_histogram(directory / "histogram.png", rows, values["image_auroc"])
    file = directory / "timings.json"  # a run that is only evaluated again keeps the others
    earlier = json.loads(file.read_text()) if file.exists() else {}
    write_atomically(file, json.dumps(earlier | timings, indent=2) + "\n")
    return values, timings


def _trained(
    backbone: EfficientNet,
    images: UInt8[np.ndarray, "n s s 3"],
    settings: Settings,
    *,
    mesh: Mesh,
    directory: Path,
    label: str,
    timings: dict[str, float],
) -> Detector:
    """The detector of a finished run, or of the run that is now started or goes on."""
    file = directory / run_folder.MODEL
    if file.exists():
        blank = features.Statistics.identity(features.channels(backbone, settings.layers))
        return Detector.create(backbone, settings, blank).load(file)
    with _timed(timings, "features"):
        cached = features.compute(backbone, images, settings, mesh)
        statistics = features.statistics(cached, settings.standardise)
        if settings.standardise:
            cached = statistics.standardise(cached)
    with _timed(timings, "training"):
        detector = Detector.create(backbone, settings, statistics)
        params = train.fit(
            detector.loss,
            detector.params,
            cached,
            settings=settings,
            mesh=mesh,
            directory=directory,
            label=label,
        )
    detector = dataclasses.replace(detector, params=params)
    detector.save(file)
    return detector


def _identity(
    settings: Settings, weights: Path, images: UInt8[np.ndarray, "..."]
) -> dict[str, Any]:
    """What a run's parameters depend on, as JSON values."""
    run = dataclasses.asdict(settings) | {"layers": list(settings.layers)}
    del run["placement"], run["image_score"]  # of the evaluation alone
    file = weights / f"{settings.backbone}.safetensors"
    run["backbone_weights"] = hashlib.sha256(file.read_bytes()).hexdigest()
    run["training_images"] = hashlib.sha256(images.tobytes()).hexdigest()
    return run


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[stage] = round(time.perf_counter() - start, 2)
