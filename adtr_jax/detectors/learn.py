"""The training of a detector, from images to what it has learned."""

import dataclasses
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeVar, cast

from jax.sharding import Mesh

from adtr_jax.detectors.detector import Detector, Images, Others
from adtr_jax.devices import hosts
from adtr_jax.devices.feature_cache import FeatureCache
from adtr_jax.training import train
from adtr_jax.training.curves import Curves
from adtr_jax.training.sampling import split

D = TypeVar("D", bound=Detector)


def learn(
    detector: D,
    images: Images,
    mesh: Mesh,
    *,
    directory: Path,
    cache: FeatureCache,
    label: str,
    held_out: Others | None = None,
    timed: Callable[[str], AbstractContextManager] = nullcontext,
) -> D:
    """Trains a detector, and returns it with what it has learned; resumes a killed training.

    Args:
        detector: one that has learned nothing yet, or that an ADTR+ goes on from.
        images: normal RGB images in 0..255, the same in every process.
        mesh: the devices to train on.
        directory: gets checkpoints and logs, see `train.fit`.
        cache: where features are kept.
        label: names the progress bar.
        held_out: other normal images, to log the loss of; if the settings hold a share of `images`
            out, it is these instead.
        timed: a context for each stage, `features` and `training`.

    Raises:
        Stopped, InputError: as `train.fit`.
    """
    settings = detector.settings
    if settings.held_out:
        kept, out = split(len(images), settings.held_out, settings.seed)
        images, held_out = images[kept], images[out] if len(out) else None
    with timed("features"):
        fitted, data = detector.initialised().training_data(images, mesh, cache, held_out)
    with timed("training"):
        params, rest = train.fit(
            fitted.loss,
            (fitted.params, fitted.rest),
            data,
            settings=fitted.settings,
            mesh=mesh,
            directory=directory,
            label=label,
            limit=cache.limit,
        )
        if hosts.first():
            epochs = settings.epochs_of(data.sampling(settings).steps)
            option = "epochs" if epochs == settings.epochs else "max_steps"
            remark = Curves.read(directory).remark(epochs, f"--{detector.prefix}{option}")
            if remark:
                print(f"{label}: {remark}", file=sys.stderr)
        fitted = dataclasses.replace(fitted, params=params, rest=rest)
        return cast(D, fitted.calibrated(data, mesh))
