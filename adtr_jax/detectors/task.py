"""The images of one category, with the settings and devices of a run, and their scores."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, UInt8

from adtr_jax.config import BITS, OF_THE_EVALUATION, Bits, Settings
from adtr_jax.data import bit_depth
from adtr_jax.data.images import load_images
from adtr_jax.data.lazy import PART, LazyArray, digest, digests
from adtr_jax.data.masks import Found, load_masks
from adtr_jax.data.samples import Category, Sample
from adtr_jax.detectors.collect import ScoredPart, collect
from adtr_jax.detectors.detector import Images
from adtr_jax.devices import hosts
from adtr_jax.devices.sharding import device_mesh
from adtr_jax.errors import InputError

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True, eq=False)
class Task(Generic[S]):
    """The images of one category, checked, with the settings and devices of a run.

    They are decoded when they are used, so there may be more than fit into memory. Every process
    can read all of them; the computations on them are shared.
    """

    category: Category
    settings: S
    images: UInt8[np.ndarray | LazyArray, "n s s 3"]
    test_images: UInt8[np.ndarray | LazyArray, "m s s 3"]
    masks: Bool[np.ndarray | LazyArray, "m s s"] | None
    mesh: Mesh

    @classmethod
    def read(cls, category: Category, settings: S, devices: int | None = None) -> "Task[S]":
        """Decodes all images and masks once, before anything is trained.

        Args:
            devices: number of each process's devices to train on; None: as `device_mesh`.

        Raises:
            InputError: a bad image or mask, or too few devices.
        """
        mesh = device_mesh(devices)
        settings = dataclasses.replace(settings, bits=_bits(category, settings.bits))
        size, crop = settings.image_size, settings.crop
        load = functools.partial(load_images, size=size, crop=crop, bits=settings.bits)
        images, test_images = (
            _checked(LazyArray(samples, load, (size, size, 3), np.dtype(np.uint8), "image"))
            for samples in (category.train, category.test)
        )
        masks = _masks(category, settings) if category.has_masks else None
        return cls(category, settings, images, test_images, masks, mesh)

    @property
    def tested(self) -> slice:
        """This process's share of the test images."""
        return hosts.share(len(self.test_images))

    @property
    def required_masks(self) -> Bool[np.ndarray | LazyArray, "m s s"]:
        """The masks; raises InputError if there are none, or none that marks a pixel."""
        if self.masks is None:
            raise InputError(
                f"{self.category.name}: there are no masks, which --tsne needs to know where the "
                "images are anomalous; add them, or leave it out"
            )
        return self.masks

    def fingerprint(self, weights: Path) -> dict[str, Any]:
        """Returns all that the parameters of a run depend on, as JSON values."""
        settings = self.settings
        run = dataclasses.asdict(settings) | {"layers": list(settings.layers)}
        run = {name: value for name, value in run.items() if name not in OF_THE_EVALUATION}
        run["method"] = settings.method
        file = weights / f"{settings.backbone}.safetensors"
        if file.exists():  # `pixels` has no weights
            run["backbone_weights"] = sha256(file.read_bytes()).hexdigest()
        run["training images"] = {
            sample.name.removeprefix("train/good/"): digest
            for sample, digest in zip(self.category.train, digests(self.images), strict=True)
        }
        return run

    def scored(
        self, score: Callable[[Images], Iterator[ScoredPart]], directory: Path
    ) -> tuple[Float[np.ndarray, "own s s"], Float[np.ndarray, "m"]]:
        """Scores the test images.

        Args:
            score: yields score maps and scores of images, some at a time, and which they are of.
            directory: for a temporary file, should the maps be many.

        Returns:
            The score maps of this process's share of the test images, and the scores of all.
        """
        own = self.test_images[self.tested]
        maps, scores = collect(score(own), len(own), self.settings.image_size, directory)
        return maps, hosts.gather(scores, len(self.test_images))


def _checked(rows: LazyArray) -> LazyArray:
    """Decodes this process's share of the files, which may not change from then on."""
    with hosts.together():
        own = np.array(digests(rows[hosts.share(len(rows))]), "S16")
    found = hosts.gather(own, len(rows)).astype(str).tolist()
    return dataclasses.replace(rows, expected=tuple(found))


def _masks(category: Category, settings: Settings) -> LazyArray | None:
    """The masks of the test images, after saying what is odd about them; None: nothing is marked.

    Raises:
        InputError: a bad mask.
    """
    samples, size, kept = category.test, settings.image_size, settings.mask_filter
    load = functools.partial(load_masks, size=size, crop=settings.crop, mask_filter=kept)
    own = samples[hosts.share(len(samples))]
    parts, names = [Found.none()], list[str]()
    with hosts.together():
        for start in range(0, len(own), PART):
            masks = load(own[start : start + PART])
            parts.append(masks.found)
            names += map(digest, masks.marked)
    found = Found(
        *(hosts.gather(np.concatenate(part), len(samples)) for part in zip(*parts, strict=True))
    )
    if hosts.first():
        for text in found.warnings(samples, size, kept):
            print(f"warning: {category.name}: {text}", file=sys.stderr)
    if not found.share.any():
        return None
    expected = hosts.gather(np.array(names, "S16"), len(samples)).astype(str).tolist()

    def marked(samples: Sequence[Sample]) -> Bool[np.ndarray, "n s s"]:
        return load(samples).marked

    row = size, size
    return LazyArray(samples, marked, row, np.dtype(bool), "mask", tuple(expected))


def _bits(category: Category, given: Bits | None) -> Bits | None:
    """How many bits of a category's 16-bit images are used: of a model's, what it was trained on.

    Raises:
        InputError: images of different depths.
    """
    if not category.train:
        return given

    def depths(samples: tuple[Sample, ...], bits: Bits | None) -> np.ndarray:
        files = [sample.image for sample in samples[hosts.share(len(samples))]]
        with hosts.together():
            own = bit_depth.depths(files, bits)
        return hosts.gather(own, len(samples))

    names = [sample.image for sample in category.train + category.test]
    train = depths(category.train, given)
    with hosts.together():
        bits = bit_depth.common(train, names, given)
    found = np.concatenate([train, depths(category.test, bits or BITS[-1])])
    with hosts.together():
        return bit_depth.common(found, names, bits)
