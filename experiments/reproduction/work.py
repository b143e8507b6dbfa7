"""What a job trains: the settings of every model, and how many steps that takes."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from adtr_jax.command_line import parse, peek
from adtr_jax.config import OF_THE_EVALUATION, PLUS_PRESETS, Preset, Settings
from adtr_jax.detectors.methods import PRESETS
from experiments import ablation, cifar10, mvtec
from experiments.identical_mapping import IdenticalMapping
from experiments.options import Options
from experiments.reproduction.plan import Job, Places

# Of MVTec-AD's categories the normal training images, as published.
MVTEC_AD = {
    **{"bottle": 209, "cable": 224, "capsule": 219, "carpet": 280, "grid": 264},
    **{"hazelnut": 391, "leather": 245, "metal_nut": 220, "pill": 267, "screw": 320},
    **{"tile": 230, "toothbrush": 60, "transistor": 213, "wood": 247, "zipper": 240},
}
CIFAR10 = 5000  # a class
_EXPERIMENTS: Mapping[str, Any] = {
    "experiments.mvtec": (mvtec.defaults, PRESETS),
    "experiments.cifar10": (cifar10.defaults, cifar10.SETTINGS),
    "experiments.ablation": (ablation.defaults, PRESETS),
}


class Training(NamedTuple):
    """One model's training; with as many anomalous images as normal ones, if it is ADTR+'s."""

    settings: Settings
    anomalous: bool = False

    def steps(self, images: int) -> int:
        """Returns the steps that it takes on so many normal images."""
        from adtr_jax.training.sampling import Sampling, split

        settings = self.settings
        kept = len(split(images, settings.held_out, settings.seed)[0])
        others = kept if self.anomalous else 0
        steps = Sampling(kept, others, settings.batch_size, settings.seed).steps
        return steps * settings.epochs_of(steps)


def read(words: Sequence[str]) -> Options | IdenticalMapping:
    """Returns the options of an experiment's command line, read as it reads them itself.

    Args:
        words: the module, and what follows.

    Raises:
        InputError: an option or a value that it refuses.
    """
    module, *rest = words
    prog = f"python -m {module}"
    if module not in _EXPERIMENTS:
        return parse(IdenticalMapping, rest, prog=prog)
    defaults, presets = _EXPERIMENTS[module]
    method = peek(rest, "method", presets) or "adtr"
    preset: Preset = peek(rest, "preset", PLUS_PRESETS) or "paper"
    default: Options = dataclasses.replace(
        defaults(presets[method][preset]),
        method=method,
        preset=preset,
        plus=PLUS_PRESETS[preset],
    )
    return parse(type(default), rest, prog=prog, default=default)


def trainings(options: Options | IdenticalMapping) -> list[Training]:
    """Returns what an experiment trains for a category, but for Section 3.2's layers.

    Raises:
        InputError: settings that make no sense.
    """
    if isinstance(options, IdenticalMapping):
        return []
    settings = options.settings
    if isinstance(options, ablation.Ablation):
        changes = ablation.variants(options.study, settings).values()
        own = [c for c in changes if not c or not c.keys() <= OF_THE_EVALUATION]
        rows = [Training(dataclasses.replace(settings, **changed)) for changed in own]
        return rows if len(own) == len(changes) else [*rows, Training(settings)]
    if options.anomalies is not None:
        return [Training(options.plus.settings(settings), anomalous=True)]  # type: ignore[arg-type]
    return [Training(settings)]


def networks(options: Options | IdenticalMapping) -> list[str]:
    """Returns the backbones that an experiment uses."""
    if isinstance(options, IdenticalMapping):
        return [options.backbone]
    return [training.settings.backbone for training in trainings(options)]


def images_of(job: Job, places: Places) -> int:
    """Returns the number of normal training images of a job of one category.

    Raises:
        InputError: they cannot be read.
    """
    if job.part.module == "cifar10":
        return CIFAR10 if places.cifar10 is None else _images_of_a_class(places.cifar10)
    (name,) = job.categories
    return MVTEC_AD[name] if places.data is None else _images_in(places.data, name)


@functools.cache
def _images_in(data: Path, name: str) -> int:
    from adtr_jax.data import folders

    return len(folders.read_category(data, name).train)


@functools.cache
def _images_of_a_class(source: Path) -> int:
    from adtr_jax.data import cifar

    return len(cifar.read_category(cifar.CLASSES[0], source, seed=0).train)
