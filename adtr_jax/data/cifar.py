"""CIFAR-10 as one-class categories, and the anomalies for ADTR+.

One model per class: trained on its training images, tested on its test images and an equal number
from the other classes (You et al., Section 4.3). For ADTR+ the paper adds an equal number of
irrelevant images, drawn from CIFAR-100.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from adtr_jax.data import image_sources, tfds_images
from adtr_jax.data.image_set import ImageSet, Split
from adtr_jax.data.samples import GOOD, Category, Sample
from adtr_jax.errors import InputError, unknown

# In the official order.
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def read_category(
    name: str, source: Path | None, seed: int, leave_out: Sequence[str] = ()
) -> Category:
    """List the images of one class, and images of the other classes as anomalies.

    Args:
        name: One of `CLASSES`.
        source: CIFAR-10 (see `image_sources`); None: downloaded and prepared by TFDS.
        seed: Of the draw, which also depends on the classes and the order of their images.
        leave_out: Classes that are known anomalies in training, excluded from the test.

    Returns:
        All training images of the class; all its test images and an equal number from the other
        classes, drawn at random without replacement (all, if there are fewer). A sample is named
        "test/dog/0012" after its class and its index in the class; its defect is its class, or
        "good".

    Raises:
        InputError: if there is no such class, it is itself left out, no other class remains, or the
            source cannot be read or is not CIFAR-10.
    """
    for each in (name, *leave_out):
        _check_class(each)
    if name in leave_out:
        raise InputError(f"{name} is the normal class: known anomalies are of other classes")
    others = [each for each in CLASSES if each not in (name, *leave_out)]
    if not others:
        raise InputError("all other classes are known anomalies: leave at least one to the test")
    images = _read_cifar10(source)
    normal = _samples(images, "test", name, GOOD)
    anomalies = [sample for each in others for sample in _samples(images, "test", each, each)]
    return Category(
        name,
        train=tuple(_samples(images, "train", name, GOOD)),
        test=tuple(sorted([*normal, *_draw(anomalies, len(normal), seed)], key=_by_name)),
    )


def read_known_anomalies(
    classes: Sequence[str], source: Path | None, count: int, seed: int
) -> tuple[Sample, ...]:
    """Draw training images of some classes of CIFAR-10 as known anomalies.

    The test must leave these classes out: see `read_category`.

    Args:
        classes: At least one of `CLASSES`.
        source: As in `read_category`.
        count: Number of images, drawn without replacement from all of `classes` together.
        seed: Of the draw.

    Returns:
        `count` samples without masks, or all if there are fewer, sorted by name.

    Raises:
        InputError: if there is no such class, or as in `read_category` for the source.
    """
    for name in classes:
        _check_class(name)
    return _draw_training_images(_read_cifar10(source), sorted(set(classes)), count, seed)


def read_irrelevant_anomalies(source: Path | None, count: int, seed: int) -> tuple[Sample, ...]:
    """Draw training images of another data set as anomalies; the paper uses CIFAR-100.

    Args:
        source: The data set (see `image_sources`); None: CIFAR-100, prepared by TFDS.
        count: Number of images, drawn without replacement from all classes together.
        seed: Of the draw.

    Returns:
        `count` samples without masks, or all if there are fewer, sorted by name.

    Raises:
        InputError: if the source cannot be read, has no training images, or has classes of
            CIFAR-10, which are not irrelevant.
    """
    images = tfds_images.read("cifar100") if source is None else image_sources.read(source)
    for name in images.classes:
        if name in CLASSES or name == GOOD:
            raise InputError(
                f"{images.where} holds the class {name}, which is normal or tested on: give "
                "another data set, or name classes of CIFAR-10 as known anomalies"
            )
    return _draw_training_images(images, images.classes, count, seed)


def _check_class(name: str) -> None:
    if name not in CLASSES:
        raise unknown("no class of CIFAR-10", name, CLASSES)


def _read_cifar10(source: Path | None) -> ImageSet:
    images = tfds_images.read("cifar10") if source is None else image_sources.read(source)
    missing = [name for name in CLASSES if name not in images.classes]
    further = [name for name in images.classes if name not in CLASSES]
    if missing or further:
        what = f"no class {missing[0]}" if missing else f"a class {further[0]}"
        raise InputError(f"{images.where} is not CIFAR-10, for it has {what}: give CIFAR-10")
    return images


def _samples(images: ImageSet, split: Split, name: str, defect: str) -> list[Sample]:
    return [
        Sample(f"{split}/{name}/{index:04d}", file, defect)
        for index, file in enumerate(images.of(split, name))
    ]


def _draw_training_images(
    images: ImageSet, classes: Sequence[str], count: int, seed: int
) -> tuple[Sample, ...]:
    pool = [sample for name in classes for sample in _samples(images, "train", name, name)]
    return tuple(sorted(_draw(pool, count, seed), key=_by_name))


def _draw(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    order = np.random.default_rng(seed).permutation(len(samples))
    return [samples[index] for index in order[:count]]


def _by_name(sample: Sample) -> str:
    return sample.name
