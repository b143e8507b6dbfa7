"""A model and its exports: how soon each gives its first result, and how many images a second.

python -m benchmarks.exports [--quick]

The same model on JAX, as StableHLO and on ONNX Runtime, in turn in one run; the median counts.
Pixels to score maps and scores, without decoding; the start is that of a process that loads the
file and predicts one image. Its compilation cache is filled, as after a first use.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from adtr_jax.api.model import load
from adtr_jax.command_line import guarded, parse
from adtr_jax.config import ADTR_PRESETS, FIT_SETTINGS, AdtrSettings, Settings
from adtr_jax.export import proof
from benchmarks import machine
from benchmarks.jax_pipeline import random_model
from benchmarks.rows import show
from benchmarks.timing import Way, interleaved

PROG = "python -m benchmarks.exports"
HEADER = ("model", "runs on", "MiB", "difference", "start", "images/s, batch 1", "batch 16")
SETTINGS: tuple[Settings, ...] = (FIT_SETTINGS, ADTR_PRESETS["paper"])
QUICK = AdtrSettings(backbone="pixels", layers=(4,), image_size=64, width=32, heads=4, depth=1)
FILES = {"JAX": "m.adtr", "StableHLO": "m.stablehlo", "ONNX Runtime": "m.onnx"}
BATCHES = (1, 16)
_FIRST = "import sys, adtr_jax; print(adtr_jax.load(sys.argv[1]).predict(sys.argv[2]).raw_score)"


@dataclass(frozen=True)
class Exports:
    """Print a table of a model's speed on JAX, as StableHLO and on ONNX Runtime."""

    repeats: int = 7
    """How often each is timed, in turn."""
    quick: bool = False
    """A small model and one repeat: whether everything runs, not how fast."""


def measure(settings: Settings, repeats: int) -> Iterator[tuple[str, ...]]:
    """Yields a row for each way to run a model of these settings, with random weights."""
    model = random_model(settings)
    size = settings.image_size
    with TemporaryDirectory() as name:
        files = {way: Path(name) / file for way, file in FILES.items()}
        model.save(files["JAX"])
        found = {"JAX": 0.0}
        found |= {way: max(model.export(file)) for way, file in files.items() if way != "JAX"}
        image = Path(name) / "image.png"
        Image.fromarray(proof.images(1, size)[0]).save(image)
        start = interleaved(
            {way: partial(first, file, image) for way, file in files.items()}, min(3, repeats)
        )
        detector = {way: load(file).detector for way, file in files.items()}
        pixels = np.repeat(proof.images(4, size), max(BATCHES) // 4, axis=0)
        seconds = {}
        for batch in BATCHES:
            part = pixels[:batch]
            ways: dict[str, Way] = {way: partial(detector[way].score, part) for way in files}
            seconds[batch] = interleaved(ways, repeats)
        for way, file in files.items():
            yield (
                f"{settings.method}, {settings.backbone}, {size} px",
                way,
                f"{file.stat().st_size / 2**20:.1f}",
                f"{found[way]:.1g}",
                f"{start[way]:.2f} s",
                *(f"{batch / seconds[batch][way]:.1f}" for batch in BATCHES),
            )


def first(model: Path, image: Path) -> None:
    """One image's score, in a process of its own."""
    words = [sys.executable, "-c", _FIRST, str(model), str(image)]
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)


def run(command: Exports) -> int:
    """Measures and prints the table; returns the exit status."""
    from adtr_jax.devices.sharding import one_device_a_core

    one_device_a_core()
    models, repeats = ((QUICK,), 1) if command.quick else (SETTINGS, command.repeats)
    table = show(HEADER, chain.from_iterable(measure(settings, repeats) for settings in models))
    print(f"\n`{PROG}`: {machine.describe()}\n\n{table}", end="")
    return 0


def main(words: Sequence[str]) -> int:
    """Parses the command line and runs; returns the exit status."""
    return guarded(lambda: run(parse(Exports, words, prog=PROG)), "interrupted")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
