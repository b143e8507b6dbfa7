"""`adtr-jax fit PHOTOS --out=MODEL`."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from adtr_jax.calibration.decision import ThresholdKind
from adtr_jax.command_line import parse, peek, value_of
from adtr_jax.config import (
    FIT_PRESETS,
    FIT_SETTINGS,
    PLUS_PRESETS,
    Plus,
    Preset,
    Settings,
)
from adtr_jax.data.product_folders import product_folders
from adtr_jax.detectors.methods import METHODS
from adtr_jax.errors import InputError

if TYPE_CHECKING:
    from adtr_jax.api.model import Model

PROG = "adtr-jax fit"
_LITE2 = FIT_SETTINGS.backbone


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Train on a folder of good images, and find the score above which an image is anomalous."""

    photos: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PHOTOS")]
    """A folder of good images, or one in MVTec layout, of which train/good is taken."""
    unified: bool = False
    """One model of several products: PHOTOS holds a folder of each, by its name. Each gets its own
    threshold; predict recognises which one an image shows, or is told by --product."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("model.adtr")
    """The model's file, which is all that predict needs."""
    false_alarms: float = 0.01
    """The share of good images that may be called anomalous."""
    threshold: ThresholdKind = "conformal"
    """conformal: it promises that share, as far as the number of held-out images allows.
    estimated: from a fitted tail, which promises nothing."""
    calibration: float = 0.2
    """The share of the good images that is held out of the training, for the threshold."""
    folds: int | None = None
    """For few images: every image is held out once, of a training of its own. That takes FOLDS + 1
    times as long, and the promise is approximate."""
    defects: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Known defects, which ADTR+ learns not to reconstruct; they do not touch the threshold."""
    masks: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Masks of the defects, by the images' names."""
    start: Annotated[Path | None, tyro.conf.arg(name="from", metavar="FILE")] = None
    """The model that ADTR+ goes on from. Default: it is trained first."""
    weights: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The folder of converted backbone weights; missing ones are converted into it."""
    devices: int | None = None
    """How many devices to train on. Default: all; one, of a CPU's."""
    method: str = "adtr"
    """adtr: the features are reconstructed. gtrans: a second network imitates the frozen one.
    Installed packages may add others."""
    preset: Preset = "fast"
    """Where the settings below start from. Single settings override it."""
    settings: tyro.conf.OmitArgPrefixes[Settings]
    plus: Plus = field(default_factory=Plus)
    """How ADTR+ goes on."""


def _presets(method: str) -> Mapping[Preset, Settings]:
    """A method's presets, ours with a network whose weights come with the installation.

    Raises:
        InputError: there is no such method.
    """
    if method == "adtr":
        return FIT_PRESETS
    presets = METHODS[method].presets
    if method == "gtrans":
        return {name: dataclasses.replace(s, backbone=_LITE2) for name, s in presets.items()}
    return presets


def main(words: Sequence[str]) -> int:
    """Parses the command line and fits; returns the exit status."""
    method = value_of(words, "method") or "adtr"
    presets = _presets(method)
    preset: Preset = peek(words, "preset", presets) or "fast"
    default = Fit(
        photos=tyro.MISSING,
        method=method,
        preset=preset,
        settings=presets[preset],
        plus=PLUS_PRESETS[preset],
    )
    options = parse(Fit, words, prog=PROG, default=default)
    if options.start is not None and options.defects is None:
        raise InputError("--from is the model that ADTR+ goes on from: give --defects, too")
    if not options.photos.is_dir():
        what = "is not a folder" if options.photos.exists() else "does not exist"
        raise InputError(f"{options.photos} {what}: give a folder of good images")
    if options.unified:
        product_folders(options.photos)
    if options.out.is_dir():
        raise InputError(f"--out={options.out} is a folder: name the model's file")
    run(options)
    return 0


def run(options: Fit) -> "Model":
    """Fits the model, and says what its threshold promises."""
    from adtr_jax.devices.sharding import one_device_a_core, require_devices

    one_device_a_core()
    require_devices()
    from adtr_jax.api.fit import fit
    from adtr_jax.api.model import load

    begun = time.monotonic()
    model = fit(
        product_folders(options.photos) if options.unified else options.photos,
        options.settings,
        out=options.out,
        false_alarms=options.false_alarms,
        threshold=options.threshold,
        calibration=options.calibration,
        folds=options.folds,
        defects=options.defects,
        masks=options.masks,
        start=None if options.start is None else load(options.start, options.weights),
        plus=options.plus,
        weights=options.weights,
        devices=options.devices,
        say=print,
    )
    for name, each in (model.products or {"": model}).items():
        if each.decision is not None:
            print(f"{name}: " * bool(name) + each.decision.describe())
    size = options.out.stat().st_size / 2**20
    print(f"wrote {options.out} ({size:.1f} MiB) after {time.monotonic() - begun:.0f} s; next:")
    print(f"  adtr-jax predict {options.out} NEW_PHOTOS --out=results")
    return model
