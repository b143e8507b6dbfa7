"""How long all of it will take, from a few timed steps."""

import dataclasses
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from adtr_jax.config import Settings
from experiments.reproduction.duration import spoken
from experiments.reproduction.work import Training

_EPOCHS, _STEPS = 3, 2  # the first epoch, with the compilation, does not count


class Size(NamedTuple):
    """What a step's time depends on most; the rows of a study that differ in less share one."""

    method: str
    backbone: str
    image_size: int
    batch_size: int

    @classmethod
    def of(cls, settings: Settings) -> "Size":
        size = settings.image_size, settings.batch_size
        return cls(settings.method, settings.backbone, *size)

    def __str__(self) -> str:
        return f"{self.method}, {self.backbone}, {self.image_size} px, batch {self.batch_size}"


def steps_of(jobs: Iterable[tuple[Sequence[Training], int]]) -> dict[Size, tuple[Settings, int]]:
    """Returns the settings and the steps of all trainings of each size.

    Args:
        jobs: the trainings of each, and its normal training images.
    """
    total: dict[Size, tuple[Settings, int]] = {}
    for trainings, images in jobs:
        for training in trainings:
            size = Size.of(training.settings)
            settings, steps = total.get(size, (training.settings, 0))
            total[size] = settings, steps + training.steps(images)
    return total


def seconds_a_step(settings: Settings) -> float:
    """Trains for a few steps on random images, on one device, and returns what one takes."""
    import numpy as np
    from flax import nnx

    from adtr_jax import backbones, detectors
    from adtr_jax.detectors.learn import learn
    from adtr_jax.devices.feature_cache import FeatureCache
    from adtr_jax.devices.sharding import device_mesh
    from adtr_jax.training import log

    side, count = settings.image_size, _STEPS * settings.batch_size
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    settings = dataclasses.replace(
        settings, epochs=_EPOCHS, max_steps=None, held_out=0.0, patience=None
    )
    backbone = backbones.create(settings.backbone, rngs=nnx.Rngs(0))
    detector = detectors.create(backbone, settings)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = FeatureCache(folder / "features")
        learn(detector, images, device_mesh(1), directory=folder, cache=cache, label="timing")
        return settings.batch_size / log.read(folder)[-1]["images_per_second"]


def lines(total: Mapping[Size, tuple[Settings, int]], devices: int) -> Iterable[str]:
    """Yields what each size's steps take, as it is measured, and what all of them do."""
    seconds = 0.0
    for size, (settings, steps) in total.items():
        each = seconds_a_step(settings)
        seconds += steps * each
        yield f"  {size}: {steps:,} steps of {each:.3g} s: {spoken(steps * each)}"
    at_once = f", {devices} at a time" if devices > 1 else ""
    yield f"  in all about {spoken(seconds / devices)} of training{at_once}; features, scores and"
    yield "  pictures come on top"
