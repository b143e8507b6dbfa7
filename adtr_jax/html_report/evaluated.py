"""Keeps in the folder of an evaluation what its report needs: the card, previews, regions."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from adtr_jax.calibration.decision import Decision
from adtr_jax.calibration.regions import Region, find_regions
from adtr_jax.config import Settings
from adtr_jax.data.decode import decode_image
from adtr_jax.data.samples import Sample
from adtr_jax.evaluation.figures import Findings, picture_names
from adtr_jax.evaluation.preview import save_previews
from adtr_jax.html_report.card import ModelCard
from adtr_jax.html_report.results import write_images
from adtr_jax.html_report.selection import choose, starting_threshold


def keep(
    directory: Path,
    samples: Sequence[Sample],
    findings: Findings,
    settings: Settings,
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
        card: of the model that made the scores.
        decision: finds the regions; None: there are none.
    """
    rows, maps, scale = findings.rows, findings.score_maps, findings.scale
    crop = settings.crop
    card.write(directory)
    scores = np.array([row.score for row in rows], np.float64)
    start, _ = starting_threshold(scores, [row.label for row in rows], card.threshold)
    shown = choose(scores, start).tolist()
    names = [Path(name).stem for name in picture_names(rows)]
    jobs = [
        (names[i], partial(decode_image, samples[i].image, settings.bits), maps[i]) for i in shown
    ]
    found = save_previews(directory, jobs, (scale.low, scale.high), crop)
    sizes = dict(zip(shown, found, strict=True))
    regions: dict[int, Sequence[Region]] = {}
    if decision is not None:
        for i, (width, height) in sizes.items():
            regions[i] = find_regions(maps[i], decision.pixel_threshold, width, height, crop)
    write_images(directory, rows, sizes, regions, names)
