"""ADTR and ADTR+ on CIFAR-10: one class against all others (You et al., Section 4.3).

python -m experiments.cifar10 --class=cat
python -m experiments.cifar10 --class=all --anomalies=cifar100
python -m experiments.cifar10 --class=cat --preset=fast --backbone=efficientnet-lite2
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from adtr_jax.config import ADTR_PRESETS, Plus, Settings
from adtr_jax.detectors.methods import Presets
from adtr_jax.errors import InputError
from experiments.categories import run_categories
from experiments.options import Options, main

if TYPE_CHECKING:
    from adtr_jax.data.anomalies import Choice
    from adtr_jax.data.samples import Category

# The paper's images are 32 px on a side, with 8 x 8 tokens. Enlarged, they have features that tell
# what is in them: the deepest layer's are one position an image at 32 px.
SETTINGS: Presets = {
    "adtr": {
        name: dataclasses.replace(preset, image_size=32, token_stride=4, batch_size=128)
        if name == "paper"
        else dataclasses.replace(preset, image_size=128, token_stride=16, layers=(3, 4, 5))
        for name, preset in ADTR_PRESETS.items()
    }
}


@dataclass(frozen=True, kw_only=True)
class Cifar10(Options):
    """Train ADTR on one class of CIFAR-10 and tell it from the other nine."""

    method: Literal["adtr"] = "adtr"
    """The paper of GTrans has no CIFAR-10."""
    normal: Annotated[str, tyro.conf.arg(name="class")]
    """The normal class, or `all`: one model each."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """The official python batches (folder or tar.gz), or a folder or zip of train/CLASS/* and
    test/CLASS/*. Default: prepared by TFDS."""
    anomalies: str | None = None
    """ADTR+: go on with as many anomalies; results go to OUT/CLASS+NAME. cifar100, or a path to
    images of another data set (as for --data; IDX files too), or classes of CIFAR-10 that are then
    left out of the test: dog,truck."""


def run(options: Cifar10) -> bool:
    from adtr_jax.data import cifar
    from experiments.papers import adtr as adtr_paper

    if options.unified:
        raise InputError(
            "--unified: what is normal of one class is anomalous of another: leave it out"
        )
    seed = options.settings.seed

    def read(name: str) -> "Category":
        return cifar.read_category(name, options.data, seed)

    def read_anomalies(word: str, category: "Category", settings: Settings, plus: Plus) -> "Choice":
        from adtr_jax.data.anomalies import Choice, Labelled

        count = len(category.train)
        known = [part for part in word.split(",") if part in cifar.CLASSES]
        if known:
            classes = word.split(",")
            samples = cifar.read_known_anomalies(classes, options.data, count, seed)
            category = cifar.read_category(category.name, options.data, seed, leave_out=classes)
            name = "+".join(classes)
        else:
            source = None if word == "cifar100" else Path(word)
            samples = cifar.read_irrelevant_anomalies(source, count, seed)
            name = source.resolve().name.partition(".")[0] if source else word
        return Choice(name, Labelled.read(samples, settings), category)

    every = options.normal == "all"
    names = cifar.CLASSES if every else [options.normal]
    return run_categories(names, read, options, adtr_paper.CIFAR10, read_anomalies)


def defaults(settings: Settings) -> Cifar10:
    return Cifar10(normal=tyro.MISSING, settings=settings, out=Path("runs/cifar10"))


if __name__ == "__main__":
    prog = "python -m experiments.cifar10"
    sys.exit(main(run, defaults, presets=SETTINGS, preset="paper", prog=prog))
