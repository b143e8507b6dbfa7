"""`adtr-jax evaluate MODEL --good=DIR --defects=DIR`."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from adtr_jax.command_line import parse
from adtr_jax.commands.model_options import ModelOptions
from adtr_jax.config import PICTURES, MaskFilter, Pictures, at_most
from adtr_jax.files import run_folder
from adtr_jax.files.lock import locked

PROG = "adtr-jax evaluate"


@dataclass(frozen=True, kw_only=True)
class Evaluate(ModelOptions):
    """Measure how many good images a model rejects, and how many defects it misses."""

    good: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """A folder of good images that the model was not trained on."""
    defects: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """A folder of defective images, or one folder a kind."""
    masks: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Masks of the defects, by the images' names: the pixels are measured, too."""
    mask_filter: MaskFilter | None = None
    """How masks are brought to the score map's size. keep: a defect that would vanish is marked
    wherever it lies; nearest: as in the papers. Default: the model's."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("evaluation")
    """Gets metrics.json, scores.csv, pictures and report.html."""
    pictures: Pictures = PICTURES
    """How many pictures are drawn: of the images that are judged worst and best, and of those next
    to the threshold. all: of every image."""
    report: bool = True
    """Write report.html, to be opened in a browser."""


def main(words: Sequence[str]) -> int:
    """Parses the command line and evaluates; returns the exit status."""
    options = parse(Evaluate, words, prog=PROG)
    with locked(options.out):
        run(options)
    return 0


def run(options: Evaluate) -> dict[str, float]:
    """Measures, prints, and writes the results; returns the metrics."""
    model = options.load().of(None)
    from adtr_jax.data import labelled
    from adtr_jax.data.good_images import files
    from adtr_jax.data.samples import GOOD, Category, Sample
    from adtr_jax.detectors.task import Task
    from adtr_jax.evaluation import report
    from adtr_jax.html_report import evaluated, page

    good = [Sample(f"{GOOD}/{path.name}", path, GOOD) for path in files(options.good)]
    defects = labelled.read_anomalies(options.defects, options.masks)
    labelled.require_all_or_no_masks(defects)
    pictures = at_most(options.pictures)
    category = Category(options.model.stem, train=(), test=(*good, *defects))
    begun = time.perf_counter()
    settings = model.settings
    if options.mask_filter is not None:
        settings = dataclasses.replace(settings, mask_filter=options.mask_filter)
    task = Task.read(category, settings)
    read = time.perf_counter()
    maps, scores = task.scored(model.detector.scores_in_parts, options.out)
    timings = {"reading": read - begun, "scoring": time.perf_counter() - read}
    values = evaluated.measured(task, maps, scores)
    decision = model.decision
    evaluated.write(
        task,
        options.out,
        maps,
        scores,
        values,
        card=partial(options.card, model),
        decision=decision,
        pictures=pictures,
    )
    run_folder.write_timings(options.out, timings)
    print(report.table({category.name: values}, what="model"))
    if decision is None:
        print("the model is not calibrated: it has no threshold to measure")
    else:
        labels = np.array([sample.label for sample in category.test], bool)
        anomalous = decision.is_anomalous(np.asarray(scores, np.float64))
        print(decision.describe())
        print(
            f"Here it rejects {_share(anomalous[~labels])} of the good images, and misses "
            f"{_share(~anomalous[labels])} of the defects."
        )
    print(page.write(options.out) if options.report else options.out / "overview.png")
    return values


def _share(chosen: np.ndarray) -> str:
    return f"{np.count_nonzero(chosen)} of {len(chosen)} ({100 * chosen.mean():.1f} %)"
