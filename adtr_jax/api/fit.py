"""From good images to a model with a threshold."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from adtr_jax import backbones, detectors
from adtr_jax.api.model import Model
from adtr_jax.calibration.decision import ThresholdKind
from adtr_jax.calibration.recogniser import Recogniser
from adtr_jax.config import FIT_SETTINGS, PLUS_PRESETS, AdtrSettings, Plus, Settings
from adtr_jax.data import bit_depth, good_images, labelled
from adtr_jax.data.anomalies import Labelled
from adtr_jax.data.good_images import GoodImages, Source
from adtr_jax.detectors import extraction
from adtr_jax.detectors.adtr import AdtrDetector
from adtr_jax.detectors.adtr_plus import AdtrPlusDetector
from adtr_jax.detectors.collect import collect
from adtr_jax.detectors.detector import Detector
from adtr_jax.detectors.learn import learn
from adtr_jax.devices.compile_cache import keep_compiled_programs
from adtr_jax.devices.feature_cache import FeatureCache
from adtr_jax.devices.sharding import device_mesh
from adtr_jax.errors import InputError, Stopped
from adtr_jax.files import lock, temporary
from adtr_jax.files.atomic import write_atomically
from adtr_jax.files.scratch import scratch


def fit(
    images: Source | Mapping[str, Source],
    settings: Settings = FIT_SETTINGS,
    *,
    out: str | Path | None = None,
    false_alarms: float = 0.01,
    threshold: ThresholdKind = "conformal",
    calibration: float = 0.2,
    folds: int | None = None,
    defects: str | Path | None = None,
    masks: str | Path | None = None,
    start: Model | None = None,
    plus: Plus = PLUS_PRESETS["fast"],
    weights: str | Path | None = None,
    devices: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Model:
    """Trains a model on good images, and calibrates its threshold on others of them.

    Args:
        images: a folder of good images (also one in MVTec layout), or the images: paths, PIL
            images, or RGB values `[h w 3]`, uint8 or uint16. For one model of several products:
            these by the products' names.
        settings: how to train and score; the default takes minutes on a CPU.
        out: the file to write the model to; a training that was interrupted goes on beside it.
        false_alarms: the share of good images that may be called anomalous.
        threshold: `conformal`, which promises that share, or `estimated`, from a fitted tail.
        calibration: the share of the good images that is not trained on, and calibrates. What
            `settings.held_out` says is a share of the others.
        folds: cross-fitting instead: the images are dealt into so many parts, a model is trained
            without each of them to score it, and the model that is kept is trained on all. Every
            image calibrates; the training takes folds + 1 times as long; the promise is
            approximate.
        defects: known anomalies (ADTR+): a folder of images, or one as `data.labelled` describes.
            They never touch the calibration.
        masks: a folder of masks of the defects, by their names.
        start: the normal-only model that ADTR+ goes on from; None: it is trained first.
        plus: how ADTR+ goes on.
        weights: the folder of converted backbone weights; None: the usual one.
        devices: how many devices to train on; None: all, and of a CPU one.
        say: is told what is done, a line at a time.

    Raises:
        InputError: images that cannot be read, too few of them, or settings that do not fit.
        Stopped: on Ctrl-C; the same call with the same `out` goes on.
    """
    keep_compiled_programs()
    _require_sense(calibration, folds, defects, masks)
    if start is not None:
        settings, detector, licence = start.settings, start.trained, start.licence
    else:
        detector, licence = _untrained(settings, weights)
    if start is None:
        settings = dataclasses.replace(settings, bits=good_images.bits(images, settings.bits))
        detector = dataclasses.replace(detector, settings=settings)
    if settings.bits is not None:
        say(bit_depth.describe(settings.bits))
    good = GoodImages.read(images, settings.image_size, settings.crop, settings.bits)
    anomalies = _anomalies(defects, masks, settings)
    known = start.about.get("trained_on", ()) if start is not None else ()
    job = _Job(good, detector, start is None, anomalies, plus, device_mesh(devices), say)
    with _work_folder(out, job.fingerprint(settings, calibration, folds)) as folder:
        if folds is None:
            held = [good.held_out(calibration, settings.seed, known)]
            kept, (trained, maps, scores) = ~held[0], job.hold_out(held[0], folder)
        else:
            held = good.folds(folds, settings.seed)
            kept, (trained, maps, scores) = np.full_like(held[0], True), job.cross_fit(held, folder)
        trained_on = [digest for digest, one in zip(good.digests, kept, strict=True) if one]
        about = {"trained_on": sorted({*known, *trained_on}), "folds": folds}
        plain = Model(
            trained, None, (0.0, 1.0), false_alarms, threshold, about=about, licence=licence
        )
        each = _calibrated(plain, good, good.products[np.any(held, axis=0)], maps, scores)
        if len(each) == 1:
            (model,) = each.values()
        else:
            recogniser = job.recogniser(kept, held)
            model = dataclasses.replace(plain, products=each, recogniser=recogniser)
        if out is not None:
            model.save(Path(out).expanduser())
    return model


def _calibrated(
    model: Model,
    good: GoodImages,
    shown: Int[np.ndarray, "m"],
    maps: Float[np.ndarray, "m s s"],
    scores: Float[np.ndarray, "m"],
) -> dict[str, Model]:
    """The models of each product, by name; `shown` is the one of each score map and score."""
    models = {}
    for i, name in enumerate(good.names):
        own = shown == i if len(good.names) > 1 else slice(None)  # no copy of all
        made = model.calibrated(maps[own], scores[own])
        about = model.about | {"sizes": [list(size) for size in good.sizes[i]]}
        models[name] = dataclasses.replace(made, about=about, product=name)
    return models


def _require_sense(
    calibration: float,
    folds: int | None,
    defects: str | Path | None,
    masks: str | Path | None,
) -> None:
    """Raises InputError where an option makes no sense."""
    if not 0 < calibration < 1:
        raise InputError(
            f"--calibration={calibration} must be a share of the images, above 0, below 1"
        )
    if folds is not None and folds < 2:
        raise InputError(f"--folds={folds} must be at least 2")
    if masks is not None and defects is None:
        raise InputError("--masks are of --defects: give both, or none")


# A trained detector, and the score maps and scores of images that it has not seen.
Trained = tuple[Detector, Float[np.ndarray, "m s s"], Float[np.ndarray, "m"]]


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    """What all trainings of one fit have in common."""

    good: GoodImages
    detector: Detector
    fresh: bool  # the normal-only model is to be trained, too
    anomalies: Labelled | None
    plus: Plus
    mesh: Mesh
    say: Callable[[str], None]

    def fingerprint(self, *more: Any) -> str:
        """Tells this job from others whose training may have been interrupted."""
        known = None if self.anomalies is None else self.anomalies.fingerprint()
        start = "" if self.fresh else backbones.digest(self.detector.params)
        good = [self.good.digests, self.good.names, self.good.products.tolist()]
        text = json.dumps([good, known, repr(self.plus), start, repr(more)])
        return hashlib.sha256(text.encode()).hexdigest()

    def train(self, kept: Bool[np.ndarray, "n"], folder: Path) -> Detector:
        """Trains on some of the good images; then, where there are known anomalies, ADTR+.

        The loss of the others, which calibrate, is logged unless the settings hold out some of
        these images: that costs no image, and decides nothing. The threshold's promise is of images
        that had no part in the training, nor in the choice of the epoch where it stops: `patience`
        goes by those that the settings hold out.
        """
        images, cache = self.good.pixels[kept], FeatureCache(folder / ".features")
        others = None if kept.all() else self.good.pixels[~kept]
        detector = self.detector
        if self.fresh:
            detector = learn(
                detector,
                images,
                self.mesh,
                directory=folder,
                cache=cache,
                label="fit",
                held_out=others,
            )
        if self.anomalies is None:
            return detector
        improved = AdtrPlusDetector.of(cast(AdtrDetector, detector), self.plus, self.anomalies)
        return learn(
            improved,
            images,
            self.mesh,
            directory=folder / "plus",
            cache=cache,
            label="ADTR+",
            held_out=others,
        )

    def hold_out(self, held: Bool[np.ndarray, "n"], folder: Path) -> Trained:
        """Trains without the images that are held out, and scores these."""
        repeated = self.good.repeated
        several = f" of {len(self.good.names)} products" if len(self.good.names) > 1 else ""
        self.say(
            f"{len(held)} good images{several}: {np.count_nonzero(~held)} to train on, "
            f"{np.count_nonzero(held)} held out to calibrate"
            + (f"; {repeated} were the same as others" if repeated else "")
        )
        trained = self.train(~held, folder / "model")
        return trained, *self.score(trained, held, folder)

    def score(
        self, trained: Detector, held: Bool[np.ndarray, "n"], folder: Path
    ) -> tuple[Float[np.ndarray, "m s s"], Float[np.ndarray, "m"]]:
        """The score maps and scores of the images that are held out."""
        images = self.good.pixels[held]
        parts = trained.scores_in_parts(images, self.mesh)
        return collect(parts, len(images), images.shape[1], folder)

    def cross_fit(self, folds: Sequence[Bool[np.ndarray, "n"]], folder: Path) -> Trained:
        """Scores every image by a model that has not seen it; then trains one on all."""
        n, side = self.good.pixels.shape[:2]
        maps, scores = scratch(folder, (n, side, side), np.float32), np.empty(n, np.float32)
        for i, held in enumerate(folds):
            self.say(f"fold {i + 1} of {len(folds)}")
            trained = self.train(~held, folder / f"fold{i}")
            maps[held], scores[held] = self.score(trained, held, folder)
        self.say(f"all {n} good images")
        return self.train(np.ones(n, bool), folder / "model"), maps, scores

    def recogniser(
        self, kept: Bool[np.ndarray, "n"], folds: Sequence[Bool[np.ndarray, "n"]]
    ) -> Recogniser:
        """Learns to recognise the products from some of the images, and says how well it does.

        That is counted on the images of each fold by what the others alone would have taught.
        """
        good, detector = self.good, self.detector
        embeddings = extraction.embeddings(
            detector.backbone, good.pixels, detector.settings, self.mesh
        )

        def fitted(chosen: Bool[np.ndarray, "n"]) -> Recogniser:
            return Recogniser.fit(good.names, embeddings[chosen], good.products[chosen])

        right = sum(
            np.count_nonzero(fitted(~held).nearest(embeddings[held]) == good.products[held])
            for held in folds
        )
        n = np.count_nonzero(folds)
        self.say(f"recognises the product in {right} of {n} held-out images ({right / n:.1%})")
        return fitted(kept)


def _untrained(settings: Settings, weights: str | Path | None) -> tuple[Detector, str]:
    """A detector to train, and the licence of its backbone's weights."""
    from conversion import ensure, licence, weights_folder

    folder = weights_folder() if weights is None else Path(weights).expanduser()
    name = settings.backbone
    if name != backbones.PIXELS:
        ensure(name, folder)
    backbone = backbones.load(name, folder)
    digest = backbones.digest(backbone)
    backbone.trim(max(settings.layers))
    made = detectors.create(backbone, settings)
    return dataclasses.replace(made, backbone_sha256=digest), licence(name)


def _anomalies(
    defects: str | Path | None, masks: str | Path | None, settings: Settings
) -> Labelled | None:
    if defects is None:
        return None
    if not isinstance(settings, AdtrSettings):
        raise InputError("known --defects are of ADTR: leave them out, or --method=gtrans")
    folder = None if masks is None else Path(masks).expanduser()
    return Labelled.read(labelled.read_anomalies(Path(defects).expanduser(), folder), settings)


@contextmanager
def _work_folder(out: str | Path | None, fingerprint: str) -> Iterator[Path]:
    """Where a training that is interrupted goes on; removed once the model is written.

    Without a file to write the model to there is nothing to find it again by.
    """
    if out is None:
        with temporary.folder(None, "adtr_jax") as folder:
            try:
                yield folder
            except Stopped:
                text = "stopped; give `out`, the model's file, and the same call goes on next time"
                raise Stopped(text) from None
        return
    path = Path(out).expanduser().absolute()
    folder = path.parent / f".{path.name}.training"
    held = folder / "job.txt"
    with lock.locked(folder):
        if not (held.is_file() and held.read_bytes() == fingerprint.encode()):
            lock.clear(folder)  # of other images or settings
        write_atomically(held, fingerprint)
        yield folder
        lock.clear(folder)
