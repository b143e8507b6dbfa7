"""MVTec-AD, or any folder in its layout: one model per category or one for all, of any method.

python -m experiments.mvtec --category=grid
python -m experiments.mvtec --category=all --data=DIR
python -m experiments.mvtec --category=all --unified
python -m experiments.mvtec --category=grid --anomalies=confetti
python -m experiments.mvtec --category=grid --method=gtrans
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from adtr_jax.config import Settings
from experiments.categories import chosen, run_categories
from experiments.options import Options, main

if TYPE_CHECKING:
    from adtr_jax.data.samples import Category


@dataclass(frozen=True, kw_only=True)
class Mvtec(Options):
    """Train on a category's normal images and find the defects in its test images.

    Without anomalous test images there is nothing to measure: then some of the normal ones are held
    out, and the model gets a threshold.
    """

    category: str
    """A category's name, several with commas between, or `all`: any folder in DIR that holds
    train/good."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """A folder in MVTec-AD's layout. Default: MVTec-AD, downloaded and prepared by TFDS."""


def source(
    options: Mvtec, *, measurable: bool = True
) -> "tuple[Sequence[str], Callable[[str], Category]]":
    """Returns the requested categories and their reader.

    Args:
        measurable: refuse a category that has no anomalous test images.

    Raises:
        InputError: no such category.
    """
    from adtr_jax.data import folders, mvtec_ad, mvtec_ad_archive

    def read(name: str) -> "Category":
        if options.data is None:
            return mvtec_ad.read_category(name)
        category = folders.read_category(options.data, name)
        return category.measurable() if measurable else category

    known = folders.categories(options.data) if options.data else mvtec_ad_archive.CATEGORIES
    return chosen(options.category, known), read


def run(options: Mvtec) -> bool:
    from adtr_jax.data.mvtec_ad_archive import GROUPS
    from adtr_jax.devices import hosts
    from experiments.papers import adtr as adtr_paper
    from experiments.papers import gtrans as gtrans_paper

    with hosts.together():
        names, read = source(options, measurable=False)
    wide = options.settings.backbone == "wide-resnet-50-2"
    gtrans = gtrans_paper.MVTEC_AD["GTrans-WR50" if wide else "GTrans-R34"]
    paper = adtr_paper.MVTEC_AD | {"GTrans": gtrans}
    return run_categories(names, read, options, paper, groups=GROUPS)


def defaults(settings: Settings) -> Mvtec:
    return Mvtec(category=tyro.MISSING, settings=settings, out=Path("runs/mvtec"))


if __name__ == "__main__":
    prog = "python -m experiments.mvtec"
    sys.exit(main(run, defaults, preset="paper", prog=prog))
