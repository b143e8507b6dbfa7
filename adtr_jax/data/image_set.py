"""What a source of classed images consists of: encoded images by split and class.

`image_sources` finds and reads the sources; nothing is decoded here.
"""

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
    """Images in classes, split into training and test images, not yet read.

    Attributes:
        where: The source's name, for messages.
        classes: The names of the classes, in the source's order.
        files: The images of a split and class, in the source's order; a class without images in a
            split is not there.
    """

    where: str
    classes: tuple[str, ...]
    files: Mapping[tuple[Split, str], tuple[File, ...]] = field(repr=False)

    def of(self, split: Split, name: str) -> tuple[File, ...]:
        """Return the images of one class.

        Raises:
            InputError: if there is no such class, or it has no images in the split.
        """
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
    """An image that is kept as pixels: `read_bytes` encodes it as a BMP file, without loss.

    Attributes:
        pixels: 8-bit colour or grey.
        name: What messages call it.
    """

    pixels: UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w"]
    name: str

    def read_bytes(self) -> bytes:
        """Return the encoded image."""
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(self.pixels)).save(buffer, "BMP")
        return buffer.getvalue()

    def __str__(self) -> str:
        return self.name


def by_class(
    files: Iterable[tuple[File, int]], classes: Sequence[str]
) -> dict[str, tuple[File, ...]]:
    """Group images by class, in their order; a class without images is left out.

    Args:
        files: Images and the indices of their classes.
        classes: The names of the classes.
    """
    groups: dict[str, list[File]] = {name: [] for name in classes}
    for file, label in files:
        groups[classes[label]].append(file)
    return {name: tuple(group) for name, group in groups.items() if group}


def check_labels(labels: Integer[np.ndarray, "..."], images: int, classes: int, file: Path) -> None:
    """Check that there is one label an image, each the index of a class.

    Args:
        labels: The labels in `file`.
        images: How many images there are.
        classes: How many classes there are.
        file: The file, for the message.

    Raises:
        InputError: if that is not so.
    """
    if labels.shape != (images,):
        raise InputError(
            f"{file} has {labels.size:,} labels for {images:,} images: get the data set again"
        )
    if images and not 0 <= labels.min() <= labels.max() < classes:
        raise InputError(
            f"{file} has labels from {labels.min()} to {labels.max()}, but there are {classes} "
            "classes: get the data set again"
        )
