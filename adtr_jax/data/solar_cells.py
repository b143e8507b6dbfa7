"""Electroluminescence images of solar cells, from the Python package `elpv-dataset`.

2,624 grey images of 300 x 300 pixels, each with the probability that the cell is defective, as
judged by experts (0, 1/3, 2/3 or 1). There are no masks. Licence: CC BY-NC-SA 4.0. Source:
Buerhop-Lutz et al., "A Benchmark for Visual Identification of Defective Solar Cells in
Electroluminescence Imagery", EU PVSEC 2018; https://github.com/zae-bayern/elpv-dataset
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from adtr_jax.data.samples import GOOD, Category, Sample
from adtr_jax.errors import InputError, unknown

CATEGORIES = ("mono", "poly")

_TRAIN_SHARE = 0.8
_SPLIT_SEED = 0


def read_category(name: str) -> Category:
    """List the cells of one kind, "mono" (monocrystalline) or "poly" (polycrystalline).

    Cells of probability 0 are normal: 80 % of them, drawn with a fixed seed, are training images
    and the rest test images (mono 470 and 118, poly 736 and 184). Cells of probability 1 are
    anomalous (mono 313, poly 402), with the defect type "defective". Those in between, of which the
    experts were not sure, are left out.

    Raises:
        InputError: if the package is not installed or incomplete, or there is no such kind.
    """
    if name not in CATEGORIES:
        raise unknown("no category of solar cells", name, CATEGORIES)
    folder = _folder()
    normal, defective = [], []
    for path, probability, kind in _labels(folder / "labels.csv"):
        if kind == name and probability == 0:
            normal.append(Sample(path, folder / path, GOOD))
        elif kind == name and probability == 1:
            defective.append(Sample(path, folder / path, "defective"))
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(normal))
    count = int(_TRAIN_SHARE * len(normal))
    train = sorted((normal[index] for index in order[:count]), key=_by_name)
    test = sorted((normal[index] for index in order[count:]), key=_by_name)
    return Category(name, tuple(train), tuple(sorted(test + defective, key=_by_name)))


def _by_name(sample: Sample) -> str:
    return sample.name


def _folder() -> Path:
    # Only the package's folder is needed; its own loader would decode all images.
    spec = find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the solar cells are not installed: pip install elpv-dataset")
    return Path(spec.submodule_search_locations[0]) / "data"


def _labels(table: Path) -> list[tuple[str, float, str]]:
    """Return the path, probability and kind of every cell."""
    try:
        rows = [line.split() for line in table.read_text().splitlines() if line.strip()]
        return [(path, float(probability), kind) for path, probability, kind in rows]
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read {table} ({error}): pip install --force-reinstall elpv-dataset"
        ) from error
