"""Sets of encoded images by split and class, as `image_sources` reads them."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from adtr_jax.data.samples import File
from adtr_jax.errors import InputError, unknown

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True)
class ImageSet:
    """Encoded images by split and class, not yet read.

    Attributes:
        where: The source's name, for messages.
        classes: The names of the classes, in the source's order.
        files: The images of each split and class, in the source's order; there is no entry for a
            class without images in a split.
    """

    where: str
    classes: tuple[str, ...]
    files: Mapping[tuple[Split, str], tuple[File, ...]] = field(repr=False)

    def of(self, split: Split, name: str) -> tuple[File, ...]:
        """Return the images of one class; raises InputError if there are none."""
        if name not in self.classes:
            raise unknown(f"no class in {self.where}", name, self.classes)
        files = self.files.get((split, name), ())
        if not files:
            raise InputError(
                f"{self.where} holds no {split} images of the class {name}: add them, or get the "
                "data set again"
            )
        return files


@dataclass(frozen=True, eq=False)
class PixelImage:
    """An image held as 8-bit RGB or grey; `read_bytes` encodes it losslessly as BMP."""

    pixels: UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w"]
    name: str

    def read_bytes(self) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(self.pixels)).save(buffer, "BMP")
        return buffer.getvalue()

    def __str__(self) -> str:
        return self.name


def by_class(
    files: Iterable[tuple[File, int]], classes: Sequence[str]
) -> dict[str, tuple[File, ...]]:
    """Group images, given with the indices of their classes; empty classes are left out."""
    groups: dict[str, list[File]] = {name: [] for name in classes}
    for file, label in files:
        groups[classes[label]].append(file)
    return {name: tuple(group) for name, group in groups.items() if group}


def check_labels(labels: Integer[np.ndarray, "..."], images: int, classes: int, file: Path) -> None:
    """Raise InputError unless there is one label per image, each the index of a class."""
    if labels.shape != (images,):
        raise InputError(
            f"{file} has {labels.size:,} labels for {images:,} images: get the data set again"
        )
    if images and not 0 <= labels.min() <= labels.max() < classes:
        raise InputError(
            f"{file} has labels from {labels.min()} to {labels.max()}, but there are {classes} "
            "classes: get the data set again"
        )
