"""Writes the folder of an evaluation: metrics, scores, pictures, and what its report needs."""

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from adtr_jax.calibration.decision import Decision
from adtr_jax.calibration.regions import Region, find_regions
from adtr_jax.config import PICTURES, Settings
from adtr_jax.data.decode import decode_image
from adtr_jax.data.lazy import PART
from adtr_jax.data.samples import Sample
from adtr_jax.detectors.task import Task
from adtr_jax.devices import hosts
from adtr_jax.evaluation import figures, metrics, report, sheets
from adtr_jax.evaluation.preview import save_previews
from adtr_jax.files.scratch import scratch
from adtr_jax.html_report.card import ModelCard
from adtr_jax.html_report.results import write_images
from adtr_jax.html_report.selection import choose, choose_judged, starting_threshold


@dataclass(frozen=True)
class Shown:
    """Which test images are shown where, by their indices, ascending.

    Attributes:
        pictures: in a picture of their own.
        listed: in the report.
        all: anywhere.
    """

    pictures: Int[np.ndarray, " p"]
    listed: Int[np.ndarray, " r"]
    all: Int[np.ndarray, " a"]

    @classmethod
    def of(
        cls, rows: Sequence[report.ScoreRow], threshold: float | None, pictures: int | None
    ) -> "Shown":
        """Chooses them.

        Args:
            rows: the results, normal and anomalous ones among them.
            threshold: the model's; None: it is not calibrated.
            pictures: at most so many; None: one of each image.
        """
        scores, labels = np.array([row.score for row in rows]), [row.label for row in rows]
        start, _ = starting_threshold(scores, labels, threshold)
        limit = len(rows) if pictures is None else pictures
        drawn, listed = choose_judged(scores, labels, start, limit), choose(scores, start)
        overview = [i for group in figures.overview_groups(rows).values() for i in group]
        return cls(drawn, listed, np.unique(np.concatenate([drawn, listed, overview])))


def measured(
    task: Task, maps: Float[np.ndarray, "own s s"], scores: Float[np.ndarray, "m"]
) -> dict[str, float]:
    """Computes the metrics of what `Task.scored` returns, in every process."""
    labels = np.array([sample.label for sample in task.category.test])
    masks = None if task.masks is None else task.masks[task.tested]
    return metrics.evaluate(scores, labels, maps, masks)


def score_rows(task: Task, scores: Float[np.ndarray, "m"]) -> list[report.ScoreRow]:
    """Returns the result of every test image, given its score."""
    return [
        report.ScoreRow(sample.name, str(sample.defect), sample.label, float(score))
        for sample, score in zip(task.category.test, scores, strict=True)
    ]


def write(
    task: Task,
    directory: Path,
    maps: Float[np.ndarray, "own s s"],
    scores: Float[np.ndarray, "m"],
    values: dict[str, float],
    *,
    card: Callable[[], ModelCard],
    decision: Decision | None = None,
    pictures: int | None = PICTURES,
) -> None:
    """Writes metrics, scores and pictures of the test images to a folder, in the first process.

    All processes take part: each has the score maps of its own images.

    Args:
        maps, scores: as `Task.scored` returns them.
        card: returns that of the model that made the scores.
        decision: finds the regions that the report shows; None: there are none.
        pictures: how many are drawn, of the images that `selection.choose_judged` chooses; None:
            one of each image.
    """
    rows = score_rows(task, scores)
    shown = Shown.of(rows, None if decision is None else decision.threshold, pictures)
    scale = figures.Scale.of(maps)
    columns = sheets.sheet_columns(rows, task.masks is not None)
    maps = _of_all(maps, np.union1d(shown.all, columns), directory, len(rows))
    if not hosts.first():
        return
    report.write(directory, values, rows)
    findings = figures.Findings(task.test_images, maps, task.masks, rows, scale)
    try:
        shutil.rmtree(directory / "pictures", ignore_errors=True)
        figures.save_pictures(directory / "pictures", findings, shown.pictures.tolist())
        figures.save_overview(directory / "overview.png", findings)
        sheets.save_sheet(directory / "sheet.png", findings, columns)
        figures.save_histogram(directory / "histogram.png", rows, values["image_auroc"])
        samples, settings = task.category.test, task.settings
        keep(directory, samples, findings, settings, shown.listed, card=card(), decision=decision)
    except Exception as error:  # of any type: what is measured is measured
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"warning: {directory}: pictures are missing ({reason})", file=sys.stderr)


def _of_all(
    maps: Float[np.ndarray, "own s s"],
    shown: Int[np.ndarray, "k"],
    directory: Path,
    total: int,
) -> Float[np.ndarray, "_ s s"]:
    """Returns, in the first process, the score maps that are shown, at their places among all."""
    if not hosts.several():
        return maps
    own = hosts.share(total)
    rows = total if hosts.first() else 0
    whole = scratch(directory, (rows, *maps.shape[1:]), maps.dtype)
    for start in range(0, len(shown), PART):
        part = shown[start : start + PART]
        here = part[(part >= own.start) & (part < own.stop)] - own.start
        found = hosts.concatenate(maps[here])  # the processes' images are in the order of all
        if rows:
            whole[part] = found
    return whole


def keep(
    directory: Path,
    samples: Sequence[Sample],
    findings: figures.Findings,
    settings: Settings,
    shown: Int[np.ndarray, " m"],
    *,
    card: ModelCard,
    decision: Decision | None = None,
) -> None:
    """Writes the card, and of the images that the report will show the previews and regions.

    Args:
        samples: the images of the findings, in the same order; they are decoded again, for the
            previews keep their shape.
        findings: their scores, score maps and colours.
        settings: how the images were read, and the maps are of them.
        shown: the indices of those that the report will show.
        card: of the model that made the scores.
        decision: finds the regions; None: there are none.
    """
    rows, maps, scale = findings.rows, findings.score_maps, findings.scale
    crop = settings.crop
    card.write(directory)
    names = [Path(name).stem for name in figures.picture_names(rows)]
    jobs = [
        (names[i], partial(decode_image, samples[i].image, settings.bits), maps[i])
        for i in shown.tolist()
    ]
    found = save_previews(directory, jobs, (scale.low, scale.high), crop)
    sizes = dict(zip(shown.tolist(), found, strict=True))
    regions: dict[int, Sequence[Region]] = {}
    if decision is not None:
        for i, (width, height) in sizes.items():
            regions[i] = find_regions(maps[i], decision.pixel_threshold, width, height, crop)
    write_images(directory, rows, sizes, regions, names)
