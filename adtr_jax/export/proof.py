"""Whether an export computes what the detector computes: it is loaded and run in a new process."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from adtr_jax.detectors.detector import Detector
from adtr_jax.errors import InputError
from adtr_jax.files import temporary

LARGEST = 1e-4  # relative difference that an export may have
BATCHES = (5, 1)  # images at a time; the program that scores five serves for one, too
_RUN = """
import sys
from pathlib import Path
import numpy as np
from adtr_jax.export.exported import load
run = load(Path(sys.argv[1])).detector.run
with np.load(sys.argv[2]) as batches:
    found = [array for name in batches for array in run(batches[name])]
np.savez(sys.argv[3], *found)
"""


class Difference(NamedTuple):
    """The largest difference of an export from its detector.

    Attributes:
        maps: of the score maps, relative to the largest value of the same map.
        scores: of the image scores, relative to the score.
    """

    maps: float
    scores: float

    @property
    def is_small(self) -> bool:
        """Whether both are at most `LARGEST`; not where one is NaN."""
        return self.maps <= LARGEST and self.scores <= LARGEST


def difference(detector: Detector, path: Path) -> Difference:
    """The largest difference, on generated images, five at a time and one.

    An export runs on the CPU here, whatever the detector runs on.

    Raises:
        InputError: the export cannot be loaded or run.
    """
    batches = [images(count, detector.settings.image_size) for count in BATCHES]
    maps: list[float] = []
    scores: list[float] = []
    for pixels, theirs in zip(batches, _run(path, batches), strict=True):
        for ours, found, differences in zip(
            detector.score(pixels), theirs, (maps, scores), strict=True
        ):
            if found.shape != ours.shape:
                raise InputError(f"{path.name} gives {found.shape} in place of {ours.shape}")
            far = np.abs(found - ours).reshape(len(ours), -1).max(axis=1)
            differences += list(far / np.abs(ours).reshape(len(ours), -1).max(axis=1))
    return Difference(float(np.max(maps)), float(np.max(scores)))


def images(count: int, size: int) -> UInt8[np.ndarray, "n s s 3"]:
    """Images of noise from fine to coarse, the same in every call."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        side = max(2, size >> i)
        noise = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
        made.append(np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC)))
    return np.stack(made)


def _run(path: Path, batches: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Runs the export on each batch, in a process that has nothing but the file."""
    with temporary.folder(None, "adtr_jax") as folder:
        given, results = folder / "images.npz", folder / "results.npz"
        np.savez(given, *batches)
        # An accelerator may be held by this process alone.
        done = subprocess.run(
            [sys.executable, "-c", _RUN, str(path), str(given), str(results)],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"the export does not run: {reason.split('Error: ')[-1][:300]}")
        with np.load(results) as arrays:
            found = [arrays[name] for name in arrays]
    return list(zip(found[::2], found[1::2], strict=True))
