"""Anomalies that ADTR+ learns from: synthetic, or given by the user."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8

from adtr_jax.config import Plus, Settings
from adtr_jax.data import bit_depth, labelled
from adtr_jax.data.images import load_images
from adtr_jax.data.lazy import LazyArray
from adtr_jax.data.masks import load_masks
from adtr_jax.data.samples import Category, Sample
from adtr_jax.data.synthetic import KINDS, Kind, synthesise_one
from adtr_jax.errors import unknown

PIXELS = 2**24  # of normal images, and of a chunk of synthetic ones, that are in memory at once
Chunk = tuple[UInt8[np.ndarray, "_ s s 3"], Bool[np.ndarray, "_ s s"] | None]


@runtime_checkable
class Anomalies(Protocol):
    """Interface of the anomalous training images."""

    @property
    def masked(self) -> bool:
        """Whether some of the images have masks."""
        ...

    def count(self, normal: int) -> int:
        """Returns the number of images, given the number of normal training images."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Returns the JSON values that a run's parameters depend on."""
        ...

    def chunks(
        self, normal: UInt8[np.ndarray | LazyArray, "n s s 3"], part: slice
    ) -> Iterator[Chunk]:
        """Yields some of the images in chunks, each with its masks or without.

        Args:
            normal: all normal training images.
            part: which of the `count` images, in order; start and stop are within them.
        """
        ...


@dataclass(frozen=True)
class Synthetic:
    """Synthetic anomalies with exact masks: `variants` of every normal image."""

    kind: Kind
    variants: int
    seed: int

    masked: ClassVar[bool] = True

    def count(self, normal: int) -> int:
        return self.variants * normal

    def fingerprint(self) -> dict[str, Any]:
        return {"anomalies": self.kind, "variants": self.variants, "seed": self.seed}

    def chunks(
        self, normal: UInt8[np.ndarray | LazyArray, "n s s 3"], part: slice
    ) -> Iterator[Chunk]:
        """Yields one variant of all images after the other; draws nothing but this part."""

        def draw(number: int) -> tuple[UInt8[np.ndarray, "s s 3"], Bool[np.ndarray, "s s"]]:
            variant, i = divmod(number, len(normal))
            return synthesise_one(self.kind, normal, i, self.seed * self.variants + variant)

        at_once = max(1, PIXELS // normal.shape[1] ** 2)
        if len(normal) <= at_once:
            normal = np.asarray(normal)  # decoded once, not for every variant
        with ThreadPoolExecutor() as pool:
            for first in range(part.start, part.stop, at_once):
                numbers = range(first, min(first + at_once, part.stop))
                pixels = np.empty((len(numbers), *normal.shape[1:]), np.uint8)
                masks = np.empty(pixels.shape[:3], bool)
                for i, drawn in enumerate(pool.map(draw, numbers)):
                    pixels[i], masks[i] = drawn
                yield pixels, masks


@dataclass(frozen=True, eq=False)
class Labelled:
    """Anomalies given by the user: with masks (Eq. 7), without (Eqs. 8 and 9), or some of each."""

    parts: tuple[Chunk, ...]

    @property
    def masked(self) -> bool:
        return any(masks is not None for _, masks in self.parts)

    def count(self, normal: int) -> int:
        del normal
        return sum(len(images) for images, _ in self.parts)

    def fingerprint(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for images, masks in self.parts:
            digest.update(images.data.cast("B"))
            digest.update(b"" if masks is None else masks.data.cast("B"))
        return {"anomalies": digest.hexdigest()}

    def chunks(
        self, normal: UInt8[np.ndarray | LazyArray, "n s s 3"], part: slice
    ) -> Iterator[Chunk]:
        del normal
        first = 0
        for images, masks in self.parts:
            here = slice(max(part.start - first, 0), max(part.stop - first, 0))
            if len(images[here]):
                yield images[here], None if masks is None else masks[here]
            first += len(images)

    @classmethod
    def read(cls, samples: Sequence[Sample], settings: Settings) -> "Labelled":
        """Reads the images, and the masks of those that have one, at the settings' size.

        Raises InputError for a bad image or mask.
        """
        size, crop = settings.image_size, settings.crop
        parts: list[Chunk] = []
        for with_masks in (True, False):
            if some := [sample for sample in samples if (sample.mask is not None) == with_masks]:
                masks = load_masks(some, size, crop).marked if with_masks else None
                parts.append((load_images(some, size, crop, settings.bits), masks))
        return cls(tuple(parts))


@dataclass(frozen=True)
class Choice:
    """The value of `--anomalies`, resolved.

    Attributes:
        name: part of the run's folder name.
        anomalies: the anomalous training images.
        category: the category without the test images that are trained on.
    """

    name: str
    anomalies: Anomalies
    category: Category


def read(word: str, category: Category, settings: Settings, plus: Plus) -> Choice:
    """Resolves `--anomalies`: one of `KINDS`, or a folder of the user's anomalies (`labelled`).

    Test images that are also in the folder are removed from the test set.

    Raises:
        InputError: neither, or a bad image or mask in the folder.
    """
    if word in KINDS:
        return Choice(word, Synthetic(word, plus.variants, settings.seed), category)
    folder = Path(word)
    if not folder.exists():
        raise unknown("no kind of synthetic anomalies and no folder", word, KINDS)
    samples = labelled.read_anomalies(folder)
    normal = [sample.image for sample in category.train]
    bits = bit_depth.common(bit_depth.depths(normal, settings.bits), normal, settings.bits)
    settings = dataclasses.replace(settings, bits=bits)
    given = Labelled.read(samples, settings)
    return Choice(folder.resolve().name, given, labelled.without(category, samples))
