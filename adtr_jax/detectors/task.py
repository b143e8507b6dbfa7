"""The images of one category, with the settings and devices of a run, and their scores."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, UInt8

from adtr_jax.config import OF_THE_EVALUATION, Settings
from adtr_jax.data.images import load_images, load_masks
from adtr_jax.data.lazy import LazyArray, digests
from adtr_jax.data.samples import Category
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
        size, crop = settings.image_size, settings.crop
        load = functools.partial(load_images, size=size, crop=crop)
        images, test_images = (
            _checked(LazyArray(samples, load, (size, size, 3), np.dtype(np.uint8), "image"))
            for samples in (category.train, category.test)
        )
        masks = None
        if category.has_masks:
            load = functools.partial(load_masks, size=size, crop=crop)
            rows = LazyArray(category.test, load, (size, size), np.dtype(bool), "mask")
            masks = _checked(rows)
        return cls(category, settings, images, test_images, masks, mesh)

    @property
    def tested(self) -> slice:
        """This process's share of the test images."""
        return hosts.share(len(self.test_images))

    @property
    def required_masks(self) -> Bool[np.ndarray | LazyArray, "m s s"]:
        """The masks; raises InputError if there are none."""
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
