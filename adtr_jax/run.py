"""Runs one category from images to results: trains, scores, evaluates, and writes to a folder."""

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, UInt8

from adtr_jax import backbones, detectors
from adtr_jax.calibration.decision import Decision
from adtr_jax.config import BITS, OF_THE_EVALUATION, AdtrSettings, Bits, Plus, Settings
from adtr_jax.data import bit_depth
from adtr_jax.data.anomalies import Anomalies
from adtr_jax.data.images import digest, load_images
from adtr_jax.data.masks import Masks, load_masks
from adtr_jax.data.samples import Category, Sample
from adtr_jax.detectors import model_file
from adtr_jax.detectors.adtr import AdtrDetector
from adtr_jax.detectors.adtr_plus import AdtrPlusDetector, token_labels
from adtr_jax.detectors.detector import Detector
from adtr_jax.detectors.learn import learn
from adtr_jax.devices import hosts
from adtr_jax.devices.feature_cache import FeatureCache
from adtr_jax.devices.sharding import device_mesh
from adtr_jax.errors import InputError
from adtr_jax.evaluation import figures, metrics, plots, report
from adtr_jax.files import run_folder
from adtr_jax.files.atomic import write_atomically
from adtr_jax.html_report import evaluated
from adtr_jax.html_report.card import ModelCard
from adtr_jax.training.curves import Curves

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True, eq=False)
class Task(Generic[S]):
    """The images of one category, read and checked, with the settings and devices of a run.

    Every process has all images; the computations on them are shared.
    """

    category: Category
    settings: S
    images: UInt8[np.ndarray, "n s s 3"]
    test_images: UInt8[np.ndarray, "m s s 3"]
    masks: Bool[np.ndarray, "m s s"] | None
    mesh: Mesh

    @classmethod
    def read(cls, category: Category, settings: S, devices: int | None = None) -> "Task[S]":
        """Reads all images and masks before anything is trained.

        Args:
            devices: number of each process's devices to train on; None: as `device_mesh`.

        Raises:
            InputError: a bad image or mask, or too few devices.
        """
        mesh = device_mesh(devices)
        settings = dataclasses.replace(settings, bits=_bits(category, settings.bits))
        size, crop = settings.image_size, settings.crop

        def read(samples: tuple[Sample, ...]) -> np.ndarray:
            with hosts.together():  # decoding is shared too
                own = load_images(samples[hosts.share(len(samples))], size, crop, settings.bits)
            return hosts.gather(own, len(samples))

        images, test_images = read(category.train), read(category.test)
        masks = _masks(category, settings) if category.has_masks else None
        return cls(category, settings, images, test_images, masks, mesh)

    @property
    def required_masks(self) -> Bool[np.ndarray, "m s s"]:
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
            sample.name.removeprefix("train/good/"): digest(pixels)
            for sample, pixels in zip(self.category.train, self.images, strict=True)
        }
        return run


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


def _masks(category: Category, settings: Settings) -> Bool[np.ndarray, "m s s"] | None:
    """The masks of the test images, after saying what is odd about them; None: nothing is marked.

    Raises:
        InputError: a bad mask.
    """
    samples, kept = category.test, settings.mask_filter
    with hosts.together():
        own = load_masks(
            samples[hosts.share(len(samples))], settings.image_size, settings.crop, kept
        )
    masks = Masks(*(hosts.gather(part, len(samples)) for part in own))
    if hosts.first():
        for text in masks.findings(samples, kept):
            print(f"warning: {category.name}: {text}", file=sys.stderr)
    return masks.marked if masks.marked.any() else None


class Result(NamedTuple):
    """The metrics on the test images, the seconds per stage, and the trained detector."""

    metrics: dict[str, float]
    timings: dict[str, float]
    detector: Detector


def train_and_evaluate(
    task: Task,
    weights: Path,
    directory: Path,
    *,
    retrain: bool = False,
    memory_limit: int | None = None,
    keep_checkpoints: bool = False,
) -> Result:
    """Trains on a category's normal images, evaluates on its test images, and writes the results.

    A stopped run is resumed; a finished one is only evaluated again.

    Args:
        weights: the folder of converted backbone weights.
        directory: for all that `run_folder.PARTS` lists.
        retrain: delete what the directory holds of an earlier run, and train from the start.
        memory_limit: bytes that cached features may take, on the host and on each device; larger
            ones go to a folder beside `directory`. None: two fifths of the free memory.
        keep_checkpoints: keep those of the training once the model is written.

    Raises:
        InputError: missing or damaged weights, or a directory that holds a run with other settings
            or images.
        Stopped: on Ctrl-C, after saving.
    """
    this = _Run(task, directory, memory_limit, keep_checkpoints)
    return this.evaluated(this.normal_only(weights, retrain=retrain))


def train_and_evaluate_plus(
    start: tuple[Task, Path],
    anomalies: Anomalies,
    plus: Plus,
    weights: Path,
    directory: Path,
    *,
    retrain: bool = False,
    memory_limit: int | None = None,
    keep_checkpoints: bool = False,
) -> tuple[Result, Result]:
    """Trains ADTR+ from the normal-only model, which is trained first if necessary.

    Args:
        start: the images and settings of the normal-only model, and the folder of its run.
        anomalies: images that the model learns not to reconstruct.
        plus: the settings of the second training.
        weights, memory_limit, keep_checkpoints: as in `train_and_evaluate`.
        retrain: as in `train_and_evaluate` for `directory`; the normal-only model is kept.

    Returns:
        The results of ADTR and of ADTR+, on the same test images.

    Raises:
        InputError, Stopped: as in `train_and_evaluate`.
    """
    task, normal_only = start
    if not isinstance(task.settings, AdtrSettings):
        raise InputError("ADTR+ goes on from ADTR: leave out --anomalies, or --method")
    plus.settings(task.settings)  # checks the settings before anything is trained
    hosts.agree("the anomalies", anomalies.fingerprint())
    before = _Run(task, normal_only, memory_limit, keep_checkpoints)
    adtr = cast(AdtrDetector, before.normal_only(weights, retrain=False))
    metrics = measured(task, *adtr.score(task.test_images, before.mesh))
    improved = AdtrPlusDetector.of(adtr, plus, anomalies)
    this = _Run(task, directory, memory_limit, keep_checkpoints)
    # Only the first process is sure to see the file, and only it makes the claim.
    model = before.digest() if hosts.first() else ""
    fingerprint = task.fingerprint(weights) | anomalies.fingerprint() | {"normal_only_model": model}
    fingerprint |= {f"plus.{key}": value for key, value in dataclasses.asdict(plus).items()}
    this.claim(fingerprint, retrain=retrain)
    result = this.evaluated(this.trained(improved))
    return Result(metrics, before.timings, adtr), result


def save_tsne(detector: AdtrDetector, task: Task, path: Path) -> None:
    """Saves Fig. 5: a t-SNE of 600 difference vectors of the test images, half anomalous."""
    differences = detector.differences(task.test_images, task.mesh)
    anomalous = token_labels(task.required_masks, detector.settings.tokens_per_side)
    vectors, labels = plots.sample_differences(differences, anomalous, task.settings.seed)
    scores = np.linalg.norm(vectors, axis=-1)
    if hosts.first():
        plots.save_tsne(path, vectors, labels, scores, task.settings.seed)


def measured(
    task: Task, maps: Float[np.ndarray, "m s s"], scores: Float[np.ndarray, "m"]
) -> dict[str, float]:
    """Computes the metrics of the test images' score maps and image scores."""
    labels = np.array([sample.label for sample in task.category.test])
    return metrics.evaluate(scores, labels, maps, task.masks)


def write_results(
    task: Task,
    directory: Path,
    maps: Float[np.ndarray, "m s s"],
    scores: Float[np.ndarray, "m"],
    values: dict[str, float],
    *,
    card: ModelCard,
    decision: Decision | None = None,
) -> None:
    """Writes metrics, scores and pictures of the test images to a folder.

    Args:
        card: of the model that made the scores.
        decision: finds the regions that the report shows; None: there are none.
    """
    rows = [
        report.ScoreRow(sample.name, str(sample.defect), sample.label, float(score))
        for sample, score in zip(task.category.test, scores, strict=True)
    ]
    report.write(directory, values, rows)
    findings = figures.Findings(task.test_images, maps, task.masks, rows)
    shutil.rmtree(directory / "pictures", ignore_errors=True)
    figures.save_pictures(directory / "pictures", findings)
    figures.save_overview(directory / "overview.png", findings)
    figures.save_histogram(directory / "histogram.png", rows, values["image_auroc"])
    samples, settings = task.category.test, task.settings
    evaluated.keep(directory, samples, findings, settings, card=card, decision=decision)


class _Run:
    """One training and its evaluation, in one folder."""

    def __init__(
        self, task: Task, directory: Path, memory_limit: int | None, keep_checkpoints: bool
    ):
        self.task, self.directory, self.keep_checkpoints = task, directory, keep_checkpoints
        self.cache = FeatureCache(directory.parent / ".features", memory_limit)
        self.model = directory / run_folder.MODEL
        self.mesh = task.mesh
        self.timings: dict[str, float] = {}

    def normal_only(self, weights: Path, *, retrain: bool) -> Detector:
        """Returns the normal-only detector of this folder's run, finished, resumed or new."""
        settings = self.task.settings
        with hosts.together():
            backbone = backbones.load(settings.backbone, weights)
        fingerprint = self.task.fingerprint(weights)
        hosts.agree("the backbone's weights", fingerprint)
        self.claim(fingerprint, retrain=retrain)
        return self.trained(detectors.create(backbone, settings))

    def claim(self, fingerprint: Mapping[str, Any], *, retrain: bool) -> None:
        with hosts.together():
            if hosts.first():
                run_folder.claim(self.directory, fingerprint, retrain=retrain)

    def trained(self, detector: Detector) -> Detector:
        """Returns the detector with what this folder's run has learned, now or earlier."""
        if hosts.largest(hosts.first() and self.model.exists()):
            with hosts.together():
                held = model_file.load_into(detector, self.model) if hosts.first() else detector
            params, rest = hosts.from_first((held.params, held.rest))
            return dataclasses.replace(detector, params=params, rest=rest)
        detector = learn(
            detector,
            self.task.images,
            self.mesh,
            directory=self.directory,
            cache=self.cache,
            label=self.directory.name,
            timed=self.timed,
        )
        if hosts.first():
            plots.save_curves(self.directory / run_folder.CURVES, Curves.read(self.directory))
            model_file.save(detector, self.model)
            if not self.keep_checkpoints:  # eight times as large as the model
                shutil.rmtree(self.directory / run_folder.CHECKPOINTS, ignore_errors=True)
        return detector

    def digest(self) -> str:
        """Returns the SHA-256 of the model file."""
        return sha256(self.model.read_bytes()).hexdigest()

    def evaluated(self, detector: Detector) -> Result:
        """Scores the test images, and writes metrics, scores and pictures to the folder."""
        with self.timed("scoring"):
            maps, scores = detector.score(self.task.test_images, self.mesh)
        with self.timed("metrics"):
            values = measured(self.task, maps, scores)
        if hosts.first():
            with self.timed("pictures"):
                digest = model_file.read_header(self.model).sha256
                card = ModelCard.of(self.directory.name, digest, detector.settings)
                write_results(self.task, self.directory, maps, scores, values, card=card)
            file = self.directory / "timings.json"  # evaluating again keeps the other stages
            earlier = json.loads(file.read_text()) if file.exists() else {}
            write_atomically(file, json.dumps(earlier | self.timings, indent=2) + "\n")
        return Result(values, self.timings, detector)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Records the seconds that a stage takes."""
        start = time.perf_counter()
        yield
        self.timings[stage] = round(time.perf_counter() - start, 2)
