"""Runs one category from images to results: trains, scores, evaluates, and writes to a folder."""

import dataclasses
import functools
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Bool, Float

from adtr_jax import backbones, detectors
from adtr_jax.config import PICTURES, AdtrSettings, Plus
from adtr_jax.data.anomalies import Anomalies
from adtr_jax.data.lazy import PART
from adtr_jax.detectors import model_file
from adtr_jax.detectors.adtr import AdtrDetector
from adtr_jax.detectors.adtr_plus import AdtrPlusDetector, token_labels
from adtr_jax.detectors.detector import Detector
from adtr_jax.detectors.gtrans import GtransDetector
from adtr_jax.detectors.learn import learn
from adtr_jax.detectors.task import Task
from adtr_jax.devices import hosts
from adtr_jax.devices.feature_cache import FeatureCache
from adtr_jax.errors import InputError
from adtr_jax.evaluation import figures, plots, sheets
from adtr_jax.files import run_folder
from adtr_jax.html_report.card import ModelCard
from adtr_jax.html_report.evaluated import measured, score_rows, write
from adtr_jax.training.curves import Curves


class Result(NamedTuple):
    """The metrics on the test images, the seconds per stage, the detector, the image scores."""

    metrics: dict[str, float]
    timings: dict[str, float]
    detector: Detector
    scores: Float[np.ndarray, "m"]


class Trained(NamedTuple):
    """A detector, the file of its model, and the seconds per stage of its training."""

    detector: Detector
    file: Path
    timings: dict[str, float]


def train(
    task: Task,
    weights: Path,
    directory: Path,
    *,
    retrain: bool = False,
    memory_limit: int | None = None,
    keep_checkpoints: bool = False,
) -> Trained:
    """Trains on a category's normal images, and keeps the model in a folder.

    A stopped run is resumed; of a finished one the model is read.

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
    detector = this.normal_only(weights, retrain=retrain)
    this.write_timings()
    return Trained(detector, this.model, this.timings)


def evaluate(
    trained: Trained,
    task: Task,
    directory: Path,
    *,
    retrain: bool = False,
    pictures: int | None = PICTURES,
) -> Result:
    """Evaluates a model on test images, and writes metrics, scores and pictures to a folder.

    Args:
        directory: that of the model, or one of the results' own.
        retrain: delete what the results' own directory holds of another run.
        pictures: as for `evaluated.write`.

    Raises:
        InputError: the directory holds another run.
    """
    this = _Run(task, directory, pictures=pictures, model=trained.file)
    if directory != trained.file.parent:
        this.claim({"model": os.path.relpath(trained.file, directory)}, retrain=retrain)
    return this.evaluated(trained.detector)


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
    pictures: int | None = PICTURES,
) -> tuple[Result, Result]:
    """Trains ADTR+ from the normal-only model, which is trained first if necessary.

    Args:
        start: the images and settings of the normal-only model, and the folder of its run.
        anomalies: images that the model learns not to reconstruct.
        plus: the settings of the second training.
        weights, memory_limit, keep_checkpoints: as for `train`.
        retrain: as for `train`, of `directory`; the normal-only model is kept.
        pictures: as for `evaluated.write`.

    Returns:
        The results of ADTR and of ADTR+, on the same test images.

    Raises:
        InputError, Stopped: as from `train`.
    """
    task, normal_only = start
    if not isinstance(task.settings, AdtrSettings):
        raise InputError("ADTR+ goes on from ADTR: leave out --anomalies, or --method")
    plus.settings(task.settings)  # checks the settings before anything is trained
    hosts.agree("the anomalies", anomalies.fingerprint())
    before = _Run(task, normal_only, memory_limit, keep_checkpoints, pictures)
    adtr = cast(AdtrDetector, before.normal_only(weights, retrain=False))
    maps, scores = before.scored(adtr)
    metrics = measured(task, maps, scores)
    improved = AdtrPlusDetector.of(adtr, plus, anomalies)
    this = _Run(task, directory, memory_limit, keep_checkpoints, pictures)
    # Only the first process is sure to see the file, and only it makes the claim.
    model = before.digest() if hosts.first() else ""
    fingerprint = task.fingerprint(weights) | anomalies.fingerprint() | {"normal_only_model": model}
    fingerprint |= {f"plus.{key}": value for key, value in dataclasses.asdict(plus).items()}
    this.claim(fingerprint, retrain=retrain)
    result = this.evaluated(this.trained(improved))
    return Result(metrics, before.timings, adtr, scores), result


class Differences(NamedTuple):
    """Feature differences d(:, u) of test images: at most 600 positions, half of them anomalous."""

    vectors: Float[np.ndarray, "p c"]
    anomalous: Bool[np.ndarray, "p"]


def save_tsne(detector: AdtrDetector, task: Task, path: Path) -> Differences:
    """Saves Fig. 5 of the ADTR paper for one category, and returns what it shows."""
    side = detector.settings.tokens_per_side
    masks, n = task.required_masks, len(task.test_images)
    anomalous = [token_labels(np.asarray(masks[i : i + PART]), side) for i in range(0, n, PART)]
    chosen, labels = plots.sample_positions(np.concatenate(anomalous), task.settings.seed)
    image, position = np.divmod(chosen, side**2)
    needed, place = np.unique(image, return_inverse=True)
    differences = detector.differences(task.test_images[needed], task.mesh)
    shown = Differences(differences.reshape(len(needed), side**2, -1)[place, position], labels)
    _draw_tsne(shown, task.settings.seed, path)
    return shown


def save_tsne_of_all(parts: Sequence[Differences], seed: int, path: Path) -> None:
    """Saves Fig. 5 as the paper draws it, of several categories together.

    Each has its own model. The 600 are drawn at random from those of the categories' own figures,
    so that every category counts alike, however many test images it has.
    """
    vectors, anomalous = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    chosen, labels = plots.sample_positions(anomalous[:, None, None], seed)
    _draw_tsne(Differences(vectors[chosen], labels), seed, path)


def _draw_tsne(shown: Differences, seed: int, path: Path) -> None:
    scores = np.linalg.norm(shown.vectors, axis=-1)
    if hosts.first():
        plots.save_tsne(path, shown.vectors, shown.anomalous, scores, seed)


def save_layer_maps(
    detector: GtransDetector, task: Task, scores: Float[np.ndarray, "m"], path: Path
) -> None:
    """Saves Fig. 4 of the GTrans paper, of the overview's test images: at most nine.

    Args:
        scores: of all test images.
    """
    rows, settings = score_rows(task, scores), detector.settings
    chosen = [i for group in figures.overview_groups(rows).values() for i in group]
    images = np.asarray(task.test_images[chosen])
    maps = detector.layer_maps(images, task.mesh)
    if not hosts.first():
        return
    masks = None if task.masks is None else np.asarray(task.masks[chosen])
    strides = enumerate((2**layer for layer in settings.layers), start=1)
    captions = [f"layer {i} (stride {stride})" for i, stride in strides]
    columns = dict(zip([*captions, f"fused ({settings.fusion})"], maps, strict=True))
    sheets.save_layer_maps(path, images, masks, [rows[i] for i in chosen], columns)


class _Run:
    """One training and its evaluation, in one folder."""

    def __init__(
        self,
        task: Task,
        directory: Path,
        memory_limit: int | None = None,
        keep_checkpoints: bool = False,
        pictures: int | None = PICTURES,
        *,
        model: Path | None = None,
    ):
        self.task, self.directory, self.keep_checkpoints = task, directory, keep_checkpoints
        self.pictures = pictures
        self.cache = FeatureCache(directory.parent / ".features", memory_limit)
        self.model = model or directory / run_folder.MODEL
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
            curves = Curves.read(self.directory)
            if len(curves.epochs):
                plots.save_curves(self.directory / run_folder.CURVES, curves)
            model_file.save(detector, self.model)
            if not self.keep_checkpoints:  # eight times as large as the model
                shutil.rmtree(self.directory / run_folder.CHECKPOINTS, ignore_errors=True)
        return detector

    def digest(self) -> str:
        """Returns the SHA-256 of the model file."""
        return sha256(self.model.read_bytes()).hexdigest()

    def scored(
        self, detector: Detector
    ) -> tuple[Float[np.ndarray, "own s s"], Float[np.ndarray, "m"]]:
        """As `Task.scored`."""
        score = functools.partial(detector.scores_in_parts, mesh=self.mesh)
        return self.task.scored(score, self.cache.directory)

    def evaluated(self, detector: Detector) -> Result:
        """Scores the test images, and writes metrics, scores and pictures to this folder."""
        with self.timed("scoring"):
            maps, scores = self.scored(detector)
        with self.timed("metrics"):
            values = measured(self.task, maps, scores)

        def card() -> ModelCard:
            digest = model_file.read_header(self.model).sha256
            return ModelCard.of(self.directory.name, digest, detector.settings)

        with self.timed("pictures"):
            results = maps, scores, values
            write(self.task, self.directory, *results, card=card, pictures=self.pictures)
        self.write_timings()
        return Result(values, self.timings, detector, scores)

    def write_timings(self) -> None:
        """Notes the seconds of the stages; those of others that were noted before stay."""
        if hosts.first():
            earlier = run_folder.read_timings(self.directory)
            run_folder.write_timings(self.directory, earlier | self.timings)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Records the seconds that a stage takes."""
        start = time.perf_counter()
        yield
        self.timings[stage] = round(time.perf_counter() - start, 2)
