"""What a training and an evaluation take as the images become more: memory and time.

python -m benchmarks.many_images [--images 1000 2000] [--image_size=256] [--quick]

Generates so many images to train on and as many to test, half of them defective, with masks, and
runs the product's command on them in a process of its own, for one epoch of a small model, with
half a GB for cached features. The pages of its own files, which the system takes away where others
need the room, are no memory that it needs: what counts is all else (`resident - shared`).
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, NamedTuple

import numpy as np
import psutil
import tyro
from PIL import Image, ImageFilter

from adtr_jax.command_line import guarded, parse
from benchmarks import machine
from benchmarks.rows import show

PROG = "python -m benchmarks.many_images"
STAGES = ("features", "training", "scoring", "metrics", "pictures")
HEADER = ("images", "peak memory", "with file pages", *STAGES, "all", "processor time")
MEMORY = 0.5  # GB that cached features may take
SMALL = ("--width=64", "--heads=4", "--depth=1", "--hidden=128", "--batch_size=64")
CATEGORY = "generated"
SECONDS = 0.02  # between two looks at the memory


@dataclass(frozen=True)
class ManyImages:
    """Print a table of the memory and time that more and more images take."""

    images: tuple[int, ...] = (1000, 2000)
    """How many to train on, and as many to test."""
    image_size: int = 256
    """Their side, and the model's, in pixels."""
    backbone: str = "efficientnet-lite2"
    """The frozen network."""
    folder: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """For images and results; default: a temporary one."""
    quick: bool = False
    """A few images of 32 px and no network: whether everything runs, not how it scales."""


def measure(command: ManyImages, folder: Path) -> Iterator[tuple[str, ...]]:
    """Yields a row for each number of images."""
    for count in command.images:
        data, out = folder / f"images{count}", folder / f"runs{count}"
        write_category(data / CATEGORY, count, command.image_size)
        words = [sys.executable, "-m", "experiments.mvtec", f"--category={CATEGORY}"]
        words += [f"--data={data}", f"--out={out}", "--preset=fast", "--max_steps=1"]
        words += [f"--backbone={command.backbone}", f"--image_size={command.image_size}"]
        words += [f"--memory={MEMORY}", *SMALL]
        if command.quick:
            words += ["--layers", "4"]
        start = time.perf_counter()
        taken = watched(words)
        seconds = time.perf_counter() - start
        spent = json.loads((out / CATEGORY / "timings.json").read_text())
        gib = (f"{peak / 2**30:.2f} GiB" for peak in (taken.own, taken.resident))
        stages = (spent[stage] for stage in STAGES)
        times = (f"{value:.0f} s" for value in (*stages, seconds, taken.processor))
        yield f"{count:,}", *gib, *times


def write_category(folder: Path, count: int, size: int) -> None:
    """Writes `count` images to train on and as many to test, every second one with a defect."""
    for name in ("train/good", "test/good", "test/spot", "ground_truth/spot"):
        (folder / name).mkdir(parents=True)

    def write(i: int) -> None:
        rng = np.random.default_rng(i)
        for part in ("train", "test"):
            coarse = rng.integers(90, 160, (size // 8, size // 8, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BILINEAR)
            kind = "spot" if part == "test" and i % 2 else "good"
            if kind == "spot":
                mask = np.zeros((size, size), np.uint8)
                y, x = rng.integers(0, size * 3 // 4, 2)
                mask[y : y + size // 6, x : x + size // 6] = 255
                spot = Image.fromarray(mask)
                spot.save(folder / f"ground_truth/spot/{i:05}_mask.png")
                image.paste((230, 60, 60), mask=spot.filter(ImageFilter.GaussianBlur(1)))
            image.save(folder / part / kind / f"{i:05}.png", compress_level=1)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(count)))


class Taken(NamedTuple):
    """What a command took.

    Attributes:
        own: peak bytes without the pages of its files.
        resident: with them.
        processor: seconds of all cores together.
    """

    own: int
    resident: int
    processor: float


def watched(words: Sequence[str]) -> Taken:
    """Runs a command, and looks at it now and then.

    Raises:
        subprocess.CalledProcessError: it failed; its errors are on stderr.
    """
    own, resident, processor = 0, 0, 0.0
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        seen = psutil.Process(process.pid)
        while process.poll() is None:
            memory, times = seen.memory_info(), seen.cpu_times()
            own = max(own, memory.rss - getattr(memory, "shared", 0))  # of Linux alone
            resident = max(resident, memory.rss)
            processor = max(processor, times.user + times.system)  # 0 once it has ended
            time.sleep(SECONDS)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return Taken(own, resident, processor)


def run(command: ManyImages) -> int:
    """Measures and prints the table; returns the exit status."""
    if command.quick:
        command = ManyImages((8,), 32, "pixels", command.folder, quick=True)
    with TemporaryDirectory(dir=command.folder) as folder:
        table = show(HEADER, measure(command, Path(folder)))
    words = " ".join([PROG, *sys.argv[1:]])
    print(f"\n`{words}`: {machine.describe()}\n\n{table}", end="")
    return 0


def main(words: Sequence[str]) -> int:
    """Parses the command line and runs; returns the exit status."""
    return guarded(lambda: run(parse(ManyImages, words, prog=PROG)), "interrupted")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
