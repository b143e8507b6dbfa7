"""What benchmarks on real images share: a category by its name, and a network with its weights."""

import dataclasses
from pathlib import Path

from adtr_jax import backbones
from adtr_jax.backbones.backbone import Backbone
from adtr_jax.config import AdtrSettings
from adtr_jax.data import cifar, solar_cells
from adtr_jax.run import Task
from conversion import weights_folder
from experiments import cifar10, mvtec
from experiments.categories import ensure_weights


def read(name: str, data: Path | None, settings: AdtrSettings) -> Task[AdtrSettings]:
    """Reads and checks the images of a category, as its experiment does.

    Args:
        name: `mono` or `poly`, the solar cells; a class of CIFAR-10; else a folder in `data`.
        data: CIFAR-10, or a folder in MVTec-AD's layout; None: prepared by TFDS.
        settings: for images of some size. CIFAR-10's get the size, tokens and layers of its
            experiment.

    Raises:
        InputError: no such category, or its images cannot be read.
    """
    if name in cifar.CLASSES:
        own = cifar10.SETTINGS["adtr"]["fast"]
        assert isinstance(own, AdtrSettings)
        settings = dataclasses.replace(
            settings,
            layers=own.layers,
            image_size=own.image_size,
            token_stride=own.token_stride,
        )
        return Task.read(cifar.read_category(name, data, settings.seed), settings)
    if name in solar_cells.CATEGORIES:
        return Task.read(solar_cells.read_category(name), settings)
    options = mvtec.Mvtec(category=name, data=data, settings=settings, out=Path())
    _, read_category = mvtec.source(options)
    return Task.read(read_category(name), settings)


def network(settings: AdtrSettings) -> Backbone:
    """Returns the pretrained network; raises InputError if its weights are not to be had."""
    ensure_weights(settings.backbone, weights_folder())
    backbone = backbones.load(settings.backbone, weights_folder())
    backbone.trim(max(settings.layers))
    return backbone
