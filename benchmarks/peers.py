"""One image scored on the CPU: ADTR against anomalib's EfficientAD-S and PatchCore.

python -m benchmarks.peers [--quick]

Runs by hand, in an environment of its own that has both:

    python -m venv peers
    peers/bin/pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu
    peers/bin/pip install -e . anomalib

All weights are random, and so are the 25,600 patches of PatchCore's memory bank (a tenth of those
of 250 images): the speed does not depend on them, and nothing is downloaded. Every method gets the
same images, as decoded pixels and as PNG files, and does all that it does in use, from its own
resize to the score and the score map. Each is in a process of its own, so that the threads of JAX
and PyTorch do not get in each other's way; they are timed in turn, and the median counts.
"""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np

from adtr_jax.command_line import guarded, parse
from adtr_jax.config import ADTR_PRESETS, FIT_SETTINGS, AdtrSettings
from adtr_jax.data.inputs import Picture
from adtr_jax.errors import InputError
from benchmarks import machine
from benchmarks.images import random_images, write_images
from benchmarks.rows import show
from benchmarks.timing import Way, interleaved

PROG = "python -m benchmarks.peers"
BATCHES = (1, 16)
HEADER = ("method", *(f"{kind}, batch {b}" for b in BATCHES for kind in ("pixels", "files")))
SIDE, BANK = 256, 25_600  # pixels; patches
PAUSE = 0.2  # seconds; threads of PyTorch's wait for work in a loop for some milliseconds
Score = Callable[[Sequence[Picture]], object]


@dataclass(frozen=True)
class Peers:
    """Print a table of milliseconds an image, of 256 px, on the CPU."""

    repeats: int = 7
    """How often each is timed, in turn."""
    quick: bool = False
    """A small ADTR and one repeat: whether everything runs, not how fast."""


def adtr(settings: AdtrSettings) -> Score:
    """Ours, with these settings."""
    from adtr_jax.devices.sharding import one_device_a_core
    from benchmarks.jax_pipeline import random_model

    one_device_a_core()
    model = random_model(settings)
    return lambda pictures: list(cast(Iterator[object], model.predict(pictures)))


def smallest() -> Score:
    """Ours, compiled in no time."""
    from benchmarks.exports import QUICK

    return adtr(QUICK)


def efficient_ad() -> Score:
    """EfficientAD-S (Batzner et al.)."""
    from anomalib.models import EfficientAd

    return _anomalib(EfficientAd(model_size="small"))


def patchcore(backbone: str) -> Score:
    """PatchCore (Roth et al.) with a network of timm's."""
    import torch
    from anomalib.models import Patchcore

    module = Patchcore(backbone, pre_trained=False)
    channels = sum(module.model.feature_extractor.out_dims)
    module.model.memory_bank = torch.randn(BANK, channels)
    return _anomalib(module)


def _anomalib(module: Any) -> Score:
    """A module of anomalib's: its own resize, network and normalisation of scores and maps."""
    import torch
    from anomalib.data.utils import read_image

    module.eval()

    def tensor(picture: Any) -> torch.Tensor:
        if isinstance(picture, np.ndarray):
            return torch.from_numpy(picture).permute(2, 0, 1).float() / 255
        return read_image(picture, as_tensor=True)

    def score(pictures: Sequence[Picture]) -> object:
        with torch.inference_mode():
            return module(torch.stack([tensor(picture) for picture in pictures]))

    return score


OURS: dict[str, Callable[[], Score]] = {
    "ADTR, `fast`, EfficientNet-Lite2 at 160 px": partial(adtr, FIT_SETTINGS),
    "ADTR, the paper's, EfficientNet-B4 at 256 px": partial(adtr, ADTR_PRESETS["paper"]),
}
SMALLEST: dict[str, Callable[[], Score]] = {"ADTR, small": smallest}
THEIRS: dict[str, Callable[[], Score]] = {
    "EfficientAD-S": efficient_ad,
    "PatchCore, ResNet-18": partial(patchcore, "resnet18"),
    "PatchCore, Wide-ResNet-50": partial(patchcore, "wide_resnet50_2"),
}


# In a method's own process:
@functools.cache
def scorer(name: str) -> Score:
    return (OURS | SMALLEST | THEIRS)[name]()


@functools.cache
def pixels() -> np.ndarray:
    return random_images(max(BATCHES), SIDE)


def score(name: str, batch: int, folder: Path | None) -> None:
    """Scores so many images: the files of a folder, or else pixels that are decoded already."""
    pictures = pixels() if folder is None else sorted(folder.iterdir())
    scorer(name)(list(pictures[:batch]))


def in_pool(pool: ProcessPoolExecutor, *task: Any) -> None:
    """Runs `score` in a method's process."""
    pool.submit(score, *task).result()


def measure(names: Sequence[str], repeats: int) -> Iterator[tuple[str, ...]]:
    """Yields the table's row of each method, once all are timed."""
    columns: list[dict[str, float]] = []
    with TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        write_images(folder, max(BATCHES), SIDE)
        spawn = get_context("spawn")
        pools = {n: stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn)) for n in names}
        for batch in BATCHES:
            for source in (None, folder):
                ways: dict[str, Way] = {
                    name: partial(in_pool, pools[name], name, batch, source) for name in names
                }
                seconds = interleaved(ways, repeats, pause=PAUSE)
                columns.append({name: value / batch for name, value in seconds.items()})
    for name in names:
        yield name, *(f"{1e3 * column[name]:,.1f} ms" for column in columns)


def run(command: Peers) -> int:
    """Measures and prints the table; returns the exit status."""
    if find_spec("anomalib") is None:
        raise InputError(
            "anomalib is not installed: make an environment of its own for this benchmark, as the "
            "head of benchmarks/peers.py says"
        )
    ours = SMALLEST if command.quick else OURS
    table = show(HEADER, measure([*ours, *THEIRS], 1 if command.quick else command.repeats))
    words = " ".join([PROG, *sys.argv[1:]])
    print(f"\n`{words}`, anomalib {version('anomalib')}: {machine.describe()}\n\n{table}", end="")
    return 0


def main(words: Sequence[str]) -> int:
    """Parses the command line and runs; returns the exit status."""
    return guarded(lambda: run(parse(Peers, words, prog=PROG)), "interrupted")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
