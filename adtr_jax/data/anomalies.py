"""The anomalies that ADTR+ learns from: made on normal images, or known to the user."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8

from adtr_jax.config import Plus, Settings
from adtr_jax.data import labelled
from adtr_jax.data.images import load_images, load_masks
from adtr_jax.data.samples import Category, Sample
from adtr_jax.data.synthetic import KINDS, Kind, synthesise
from adtr_jax.errors import unknown

Chunk = tuple[UInt8[np.ndarray, "n s s 3"], Bool[np.ndarray, "n s s"] | None]


@runtime_checkable
class Anomalies(Protocol):
    """Anomalous images with masks, or all without."""

    @property
    def masked(self) -> bool:
        """Whether they have masks."""
        ...

    def count(self, normal: int) -> int:
        """How many there are, for so many normal images."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What a run's parameters depend on, as JSON values."""
        ...

    def chunks(self, normal: UInt8[np.ndarray, "n s s 3"]) -> Iterator[Chunk]:
        """The images, a part at a time, and their masks; `normal` are the training images."""
        ...


@dataclass(frozen=True)
class Synthetic:
    """Anomalies made on the normal images, `variants` of each; their masks are exact."""

    kind: Kind
    variants: int
    seed: int

    masked: ClassVar[bool] = True

    def count(self, normal: int) -> int:
        """See `Anomalies`."""
        return self.variants * normal

    def fingerprint(self) -> dict[str, Any]:
        """See `Anomalies`."""
        return {"anomalies": self.kind, "variants": self.variants, "seed": self.seed}

    def chunks(self, normal: UInt8[np.ndarray, "n s s 3"]) -> Iterator[Chunk]:
        """See `Anomalies`: one variant of every image after the other."""
        for variant in range(self.variants):
            yield synthesise(self.kind, normal, self.seed * self.variants + variant)


@dataclass(frozen=True, eq=False)
class Labelled:
    """Anomalies that the user knows, with masks (Eq. 7) or without (Eqs. 8 and 9)."""

    images: UInt8[np.ndarray, "m s s 3"]
    masks: Bool[np.ndarray, "m s s"] | None

    @property
    def masked(self) -> bool:
        """See `Anomalies`."""
        return self.masks is not None

    def count(self, normal: int) -> int:
        """See `Anomalies`."""
        del normal
        return len(self.images)

    def fingerprint(self) -> dict[str, Any]:
        """See `Anomalies`."""
        digest = hashlib.sha256(self.images.tobytes())
        if self.masks is not None:
            digest.update(self.masks.tobytes())
        return {"anomalies": digest.hexdigest()}

    def chunks(self, normal: UInt8[np.ndarray, "n s s 3"]) -> Iterator[Chunk]:
        """See `Anomalies`: all at once."""
        yield self.images, self.masks

    @classmethod
    def read(cls, samples: tuple[Sample, ...], settings: Settings) -> "Labelled":
        """Reads the images, and the masks if they have any, at the settings' size.

        Raises:
            InputError: a bad image or mask.
        """
        masked = all(sample.mask is not None for sample in samples)
        size, crop = settings.image_size, settings.crop
        masks = load_masks(samples, size, crop) if masked else None
        return cls(load_images(samples, size, crop), masks)


@dataclass(frozen=True)
class Choice:
    """What `--anomalies` stands for.

    Attributes:
        name: names the run's folder.
        anomalies: the anomalies.
        category: the category, without the test images that are now trained on.
    """

    name: str
    anomalies: Anomalies
    category: Category


def read(word: str, category: Category, settings: Settings, plus: Plus) -> Choice:
    """The anomalies that `--anomalies` names: one of `KINDS`, or a folder of the user's own.

    Test images that are also in the folder are taken out of the test.

    Raises:
        InputError: neither, or a bad image or mask in the folder.
    """
    if word in KINDS:
        return Choice(word, Synthetic(word, plus.variants, settings.seed), category)
    folder = Path(word)
    if not folder.exists():
        raise unknown("no kind of synthetic anomalies and no folder", word, KINDS)
    samples = labelled.read_anomalies(folder)
    given = Labelled.read(samples, settings)
    return Choice(folder.resolve().name, given, labelled.without(category, samples))
