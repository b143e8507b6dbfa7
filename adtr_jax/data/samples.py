"""Samples, and the categories that group them."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from adtr_jax.errors import InputError

GOOD = "good"


@runtime_checkable
class File(Protocol):
    """An encoded image: a `pathlib.Path`, or a record of a prepared data set.

    `str(file)` names it in error messages.
    """

    def read_bytes(self) -> bytes:
        """Return the encoded bytes; may raise OSError."""
        ...


@dataclass(frozen=True)
class Sample:
    """One image of a category, not yet read.

    Attributes:
        name: Path relative to the category's folder, with "/" separators: "test/crack/003.png".
        defect: "good" for a normal image, else the name of the defect type's folder; None where
            it is unknown whether the image is normal.
        mask: The encoded ground truth, if available. Always None for a normal image, whose mask is
            zero everywhere.
    """

    name: str
    image: File
    defect: str | None
    mask: File | None = None

    def __str__(self) -> str:
        """The image's file, for messages."""
        return str(self.image)

    @property
    def label(self) -> int:
        """0 for a normal image, 1 for an anomalous one.

        Raises:
            ValueError: it is unknown.
        """
        if self.defect is None:
            raise ValueError(f"it is unknown whether {self.name} is normal")
        return int(self.defect != GOOD)


@dataclass(frozen=True)
class Category:
    """The training and test images of one model.

    Attributes:
        train: Normal images, sorted by name.
        test: Normal and anomalous images, sorted by name; or only normal ones, only images of which
            it is unknown, or none.
    """

    name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]

    @property
    def unmeasurable(self) -> str | None:
        """Why there is nothing to measure on the test images; None: there is."""
        if not self.test:
            return "there are no test images"
        if any(sample.defect is None for sample in self.test):
            return "it is unknown which test images are normal"
        if not any(sample.label for sample in self.test):
            return "there are no anomalous test images"
        return None

    def measurable(self) -> "Category":
        """Itself.

        Raises:
            InputError: there is nothing to measure on the test images.
        """
        if self.unmeasurable:
            raise InputError(
                f"{self.name}: {self.unmeasurable}: put normal ones into test/good, and anomalous "
                "ones into test/DEFECT"
            )
        return self

    @property
    def has_masks(self) -> bool:
        """Whether there are anomalous test images and all of them have a mask."""
        anomalous = [sample for sample in self.test if sample.defect != GOOD]
        return bool(anomalous) and all(sample.mask is not None for sample in anomalous)


def united(name: str, categories: Iterable[Category]) -> Category:
    """The normal images of several categories as those of one, under `CATEGORY/NAME`; no others."""
    train = [
        dataclasses.replace(sample, name=f"{category.name}/{sample.name}")
        for category in categories
        for sample in category.train
    ]
    return Category(name, tuple(sorted(train, key=lambda sample: sample.name)), ())
