"""An exported detector, which scores images without the library it was trained with."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from adtr_jax.config import Settings
from adtr_jax.data.lazy import LazyArray
from adtr_jax.detectors.collect import ScoredPart
from adtr_jax.detectors.header import Header
from adtr_jax.errors import InputError
from adtr_jax.export import format_of, metadata
from adtr_jax.export.onnx_runtime import Run

BATCH = 16  # images at once, at most


@dataclass(frozen=True, eq=False)
class ExportedDetector:
    """Scores images as the `Detector` does that was exported.

    Attributes:
        settings: how the detector was trained and scores.
        run: pixels `[b s s 3]` -> score maps, scores.
    """

    settings: Settings
    run: Run

    @property
    def batch(self) -> int:
        """The images that `score` takes at once, where there are enough."""
        return BATCH

    def score(
        self, images: UInt8[np.ndarray | LazyArray, "n s s 3"]
    ) -> tuple[Float[np.ndarray, "n s s"], Float[np.ndarray, "n"]]:
        """Computes the score maps and image scores of RGB images; larger is more anomalous."""
        _, *parts = zip(*self.scores_in_parts(images), strict=True)
        maps, scores = map(np.concatenate, parts)
        return maps, scores

    def scores_in_parts(
        self, images: UInt8[np.ndarray | LazyArray, "n s s 3"]
    ) -> Iterator[ScoredPart]:
        """As `score`, some images at a time, and which of them they are."""
        for start in range(0, len(images), BATCH):
            part = slice(start, min(start + BATCH, len(images)))
            maps, scores = self.run(np.asarray(images[part]))
            yield part, maps, scores


class Contents(NamedTuple):
    """What an export holds.

    Attributes:
        header: what it says about itself.
        detector: scores images.
        calibration: one array `[n]` a name, of held-out normal images; empty: there is none.
    """

    header: Header
    detector: ExportedDetector
    calibration: dict[str, np.ndarray]


def load(path: Path) -> Contents:
    """Loads an export; imports JAX only for StableHLO.

    Raises:
        InputError: the file is not there, or damaged, or is no export of adtr_jax; or what runs
            it is not installed.
    """
    if not path.is_file():
        raise InputError(f"{path} is not there: make it with adtr-jax export")
    if format_of(path) == "onnx":
        from adtr_jax.export.onnx_runtime import open_file
    else:
        from adtr_jax.export.stablehlo import open_file
    found, run = open_file(path)
    header, calibration = metadata.read(found, path)
    return Contents(header, ExportedDetector(header.settings, run), calibration)
