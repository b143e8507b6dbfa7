"""Speed of one GPU or TPU, in float32 and bfloat16; and against PyTorch if it sees the GPU.

python -m benchmarks.device [--trace DIR] [--quick]

Everything is timed from device memory, with many calls in flight. TFLOP/s counts the operations
that the program requests (XLA's count before it optimises), and is compared with the peaks in
`peaks`. The goals are for an H200: EfficientNet-B4 at 256 px predicts 5,000 images per second in
bfloat16, and a category of MVTec-AD (250 images, 500 epochs) trains in 30 s. Takes about 15 minutes
on one.
"""

import dataclasses
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from adtr_jax.command_line import guarded, parse
from adtr_jax.files.atomic import write_atomically
from benchmarks.images import random_images
from benchmarks.peaks import peak
from benchmarks.rows import markdown
from benchmarks.sizes import QUICK, Sizes
from benchmarks.timing import Way

if TYPE_CHECKING:
    from adtr_jax.detectors.detector import Detector

PROG = "python -m benchmarks.device"
HEADER = ("what", "dtype", "batch", "time", "images/s", "TFLOP/s", "of peak", "goal")
LONGEST = 12  # operations that a profile's summary lists
GOAL_IMAGES, GOAL_TRAINING = 5000, 30  # images per second; seconds
Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Device:
    """Print images a second and TFLOP/s of one device, and write them with its description."""

    dtype: tuple[Dtype, ...] = ("float32", "bfloat16")
    """Of the computation, one after the other."""
    batch: tuple[int, ...] = (1, 16, 64, 256)
    """Images in one call of the features and of the prediction."""
    images: int = 250
    """Of the category whose whole training is timed."""
    epochs: int = 500
    """Of that training."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The Markdown file to write. Default: benchmarks/device.md; with --quick, none."""
    trace: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Profiles of a prediction and a training step go there, and what takes longest is printed."""
    against_torch: bool = True
    """Begin with the table against PyTorch (`python -m benchmarks`), where it sees a GPU."""
    quick: bool = False
    """Small sizes: whether everything runs, not how fast."""

    def sizes(self, dtype: Dtype) -> Sizes:
        if self.quick:
            return dataclasses.replace(QUICK, dtype=dtype)
        return dataclasses.replace(Sizes(), dtype=dtype, images=self.images, epochs=self.epochs)

    @property
    def batches(self) -> tuple[int, ...]:
        return (2,) if self.quick else self.batch

    @property
    def least(self) -> float:
        """The minimum duration of one timing, in seconds."""
        return 0.01 if self.quick else 0.5


@dataclass(frozen=True)
class Throughput:
    """One measurement.

    Attributes:
        batch: images per batch.
        seconds: per call.
        images: processed per call.
        flops: floating-point operations per call; None: not counted.
        goal: in words.
    """

    what: str
    dtype: Dtype
    batch: int
    seconds: float
    images: int
    flops: float | None
    device_kind: str
    goal: str = ""

    def cells(self) -> tuple[str, ...]:
        """Returns the table's cells, in the order of `HEADER`."""
        rate = share = ""
        if self.flops is not None:
            teraflops = self.flops / self.seconds / 1e12
            rate = f"{teraflops:.3g}"
            most = peak(self.device_kind, self.dtype)
            share = f"{teraflops / most:.1%}" if most else "unknown"
        per_second = f"{self.images / self.seconds:,.0f}"
        span = f"{self.seconds:.3g} s" if self.seconds >= 1 else f"{1e3 * self.seconds:.3g} ms"
        return self.what, self.dtype, str(self.batch), span, per_second, rate, share, self.goal


def seconds_per_call(way: Way, least: float) -> float:
    """Returns the median of five timings of successive calls that last `least` seconds."""
    import jax

    jax.block_until_ready(way())
    start = time.perf_counter()
    jax.block_until_ready(way())
    once = time.perf_counter() - start
    calls = min(max(math.ceil(least / once), 1), 500)
    found = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(calls):
            result = way()
        jax.block_until_ready(result)  # calls are executed in order
        found.append((time.perf_counter() - start) / calls)
    return statistics.median(found)


def flops(function: Any, *arguments: Any) -> float | None:
    """Returns the operations that a compiled function requests; None if XLA does not say."""
    cost = function.lower(*arguments).cost_analysis() or {}
    return cost.get("flops")


def measure(command: Device, dtype: Dtype) -> Iterator[tuple[Throughput, Way | None]]:
    """Measures features, prediction, train steps and a whole training; yields calls to profile."""
    import jax

    from adtr_jax import detectors
    from benchmarks import jax_pipeline

    sizes = command.sizes(dtype)
    backbone = jax_pipeline.random_backbone(sizes.backbone)
    detector = detectors.create(backbone, sizes.settings).initialised()
    kind = jax.devices()[0].device_kind
    makers = {"features": jax_pipeline.extractor, "prediction": jax_pipeline.predictor}
    for name, make in makers.items():
        program = make(detector).program(jax_pipeline.mesh())
        goal = f"{GOAL_IMAGES:,} images/s" if name == "prediction" else ""
        what = f"{name}, {sizes.backbone}, {sizes.image_size} px"
        for batch in command.batches:
            way = partial(program, jax.device_put(random_images(batch, sizes.image_size)))
            seconds, count = seconds_per_call(way, command.least), flops(way.func, *way.args)
            last = name == "prediction" and batch == max(command.batches)
            row = Throughput(what, dtype, batch, seconds, batch, count, kind, goal)
            yield row, way if last else None
    for tokens, batch in sizes.train_steps:
        call, steps, count = train_step(sizes, tokens, batch, command)
        seconds = seconds_per_call(call, command.least) / steps
        what = f"train step, n = {tokens}"
        last = (tokens, batch) == sizes.train_steps[-1]
        yield Throughput(what, dtype, batch, seconds, batch, count, kind), call if last else None
    seconds = whole_training(detector, sizes)
    what = f"features, compilation and {sizes.epochs} epochs of {sizes.images} images"
    shown, goal = sizes.images * sizes.epochs, f"{GOAL_TRAINING} s"
    yield Throughput(what, dtype, sizes.batch_size, seconds, shown, None, kind, goal), None


def train_step(
    sizes: Sizes, tokens: int, batch: int, command: Device
) -> tuple[Way, int, float | None]:
    """Returns a call that trains a short epoch, its steps, and the operations per step."""
    from benchmarks import jax_pipeline

    steps = 2 if command.quick else 16
    detector = jax_pipeline.untrained(sizes.step_settings(tokens, batch))
    f = jax_pipeline.random_features(detector, batch)
    run, state, batches = jax_pipeline.training_steps(detector, f, steps)
    one_step, *arguments = jax_pipeline.training_steps(detector, f, 1)
    count = flops(one_step, arguments[0], *arguments[1])

    def call() -> object:
        nonlocal state
        state, losses = run(state, *batches)
        return losses

    return call, steps, count


def whole_training(detector: "Detector", sizes: Sizes) -> float:
    """Returns the seconds from images in host memory to parameters, log and checkpoint."""
    import jax

    from benchmarks import jax_pipeline

    images = random_images(sizes.images, sizes.image_size)
    start = time.perf_counter()
    jax.block_until_ready(jax_pipeline.training(detector, images))
    return time.perf_counter() - start


def summary(name: str, way: Way, folder: Path) -> str:
    """Profiles one call and lists the longest operations."""
    from benchmarks.profiling import longest, record

    lines = [f"Profile of {name}, the longest operations' shares of the device's time:", ""]
    operations = longest(record(way, folder), LONGEST)
    return "\n".join(lines + [f"- {share:.1%} {operation}" for operation, share in operations])


def torch_table(command: Device, dtype: Dtype) -> str:
    """Returns the table against PyTorch, made in a subprocess, which frees the memory again."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "table.md"
        words = [sys.executable, "-m", "benchmarks", f"--dtype={dtype}", f"--out={file}"]
        # JAX would take three quarters of the GPU's memory, too much beside PyTorch and the jobs.
        variables = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        done = subprocess.run([*words, *["--quick"] * command.quick], env=variables, check=False)
        if done.returncode:
            return f"The table against PyTorch in {dtype} failed; its output says why.\n"
        return file.read_text().partition("\n\n")[2]


def torch_sees_gpu() -> bool:
    """Returns whether PyTorch is installed and sees a GPU."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def run(command: Device) -> int:
    """Measures, prints intermediate results, and writes the file; returns the exit status."""
    parts: list[str] = []
    if command.against_torch and torch_sees_gpu():
        parts += [torch_table(command, dtype) for dtype in command.dtype]
    import jax

    from benchmarks import machine

    cells, profiles = [], []
    print(" | ".join(HEADER), flush=True)
    for dtype in command.dtype:
        for each, way in measure(command, dtype):
            cells.append(each.cells())
            print(" | ".join(cells[-1]), flush=True)
            if command.trace and way:
                name = f"{each.what}, {dtype}, batch {each.batch}"
                profiles.append(summary(name, way, command.trace))
                print(profiles[-1], flush=True)
    memory = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    used = f" Peak device memory {memory / 2**30:.1f} GiB." if memory else ""
    words = " ".join([PROG, *sys.argv[1:]])
    text = f"`{words}`: {machine.describe()}{used}\n\n{markdown(HEADER, cells)}"
    text = "\n".join([text, *(f"{profile}\n" for profile in profiles), *parts])
    print(f"\n{text}", end="")
    out = command.out or (None if command.quick else Path("benchmarks/device.md"))
    if out:
        write_atomically(out, f"# Speed on one device\n\n{text}")
        print(f"\nwritten to {out}")
    return 0


def main(words: Sequence[str]) -> int:
    """Parses the command line and runs; returns the exit status."""
    return guarded(lambda: run(parse(Device, words, prog=PROG)), "interrupted")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
