"""What becomes of a training that is killed: the same command, again, must end with the same model.

python -m benchmarks.kills [--kills=20] [--by=INT]

A small training of `experiments.mvtec` on generated images, from start to report, with a checkpoint
after every epoch. It is killed at a random moment, each time in a new folder; then the same command
runs to its end. Its model and scores are compared, byte by byte, with those of a run that nothing
disturbed, and nothing temporary may be left. With `--by=INT`, as by Ctrl-C, it has to say one line
and end with status 130, or else have ended by itself.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from PIL import Image

from adtr_jax.command_line import guarded, parse
from benchmarks.images import random_images
from benchmarks.startup import cache

PROG = "python -m benchmarks.kills"
SIDE = 32
# Every epoch is saved, where a training of this size would save the last one alone.
_CODE = (
    "import sys, runpy; sys.argv[0] = '-m'; import experiments\n"
    "from adtr_jax.training import train; train.SAVE_SECONDS = 0\n"
    "runpy.run_module('experiments.mvtec', run_name='__main__')"
)
_WORDS = (
    *("--category=patches", "--backbone=pixels", "--layers", "4", f"--image_size={SIDE}"),
    *("--width=32", "--heads=4", "--depth=1", "--hidden=64", "--batch_size=8"),
)


@dataclass(frozen=True)
class Kills:
    """Kill a small training at random moments, go on, and compare how it ends."""

    kills: int = 20
    by: Literal["KILL", "INT"] = "KILL"
    """The signal: KILL, or INT as by Ctrl-C."""
    epochs: int = 30
    seed: int = 0
    """Of the moments."""


def measure(options: Kills) -> Counter[str]:
    """Counts what became of the runs; says so as it goes on."""
    moments, found = random.Random(options.seed), Counter[str]()
    with TemporaryDirectory() as name:
        root = Path(name)
        _write_images(root / "data" / "patches")
        _finish(root, "first", options)  # fills the compilation cache
        begun = time.monotonic()
        wanted = _finish(root, "whole", options)
        span = time.monotonic() - begun
        for i in range(options.kills):
            out, moment = f"run{i}", moments.uniform(0, span)
            process = _start(root, out, options)
            _wait_until_it_runs(process)
            time.sleep(moment)
            process.send_signal(signal.Signals[f"SIG{options.by}"])
            stderr = process.communicate()[1]
            ended = _ended(process.returncode, stderr, options.by)
            same = "identical" if _finish(root, out, options) == wanted else "ANOTHER RESULT"
            left = [*(root / out).rglob("*.part")]
            found[f"{ended}, then {same}{', parts are left' if left else ''}"] += 1
            print(f"{i + 1}: after {moment:.1f} of {span:.1f} s: {ended}, then {same}", flush=True)
    return found


def _ended(status: int, stderr: str, by: str) -> str:
    if status == 0:
        return "had ended"
    lines = [line for line in stderr.splitlines() if not line.startswith("stopping after")]
    if by == "KILL":
        return "killed" if status == -signal.SIGKILL else f"STATUS {status}"
    return "one line" if (status, len(lines)) == (130, 1) else f"STATUS {status}, {lines}"


def _start(root: Path, out: str, options: Kills) -> subprocess.Popen[str]:
    words = (
        *_WORDS,
        f"--epochs={options.epochs}",
        f"--data={root / 'data'}",
        f"--out={root / out}",
    )
    return subprocess.Popen(
        [sys.executable, "-c", _CODE, *words],
        env=os.environ | cache(root / "cache"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_until_it_runs(process: subprocess.Popen[str]) -> None:
    """Until it answers signals itself, where the system tells: Python's own start does not."""
    tasks = Path(f"/proc/{process.pid}/task")
    while tasks.exists() and process.poll() is None and len([*tasks.iterdir()]) < 2:
        time.sleep(0.001)


def _finish(root: Path, out: str, options: Kills) -> tuple[str, str]:
    """Runs the command to its end; returns the digests of its model and scores."""
    process = _start(root, out, options)
    stderr = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(f"the command failed: {stderr}")
    folder = root / out / "patches"
    model, scores = (
        hashlib.sha256((folder / file).read_bytes()).hexdigest()
        for file in ("model.safetensors", "scores.csv")
    )
    return model, scores


def _write_images(category: Path) -> None:
    """32 images to train on, 8 to test on and 8 with a bright patch."""
    images = random_images(48, SIDE)
    images[40:, 8:20, 8:20] = 255
    parts = ("train/good", 0, 32), ("test/good", 32, 40), ("test/bright", 40, 48)
    for part, first, last in parts:
        (category / part).mkdir(parents=True)
        for i in range(first, last):
            Image.fromarray(images[i]).save(category / part / f"{i:03}.png")


def main() -> int:
    """Parses the command line, and prints how many runs ended how."""

    def action() -> int:
        options = parse(Kills, sys.argv[1:], prog=PROG)
        # In a script's background it is ignored, which the commands would inherit.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        found = measure(options)
        for what, count in found.most_common():
            print(f"{count} of {options.kills}: {what}")
        good = {f"{ended}, then identical" for ended in ("killed", "one line", "had ended")}
        return 0 if found.keys() <= good else 1

    return guarded(action, "interrupted")


if __name__ == "__main__":
    sys.exit(main())
