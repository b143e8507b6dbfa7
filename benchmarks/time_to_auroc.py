"""How soon a training reaches a given image AUROC: the preset `fast` against the one it replaced.

python -m benchmarks.time_to_auroc --category=magnetic_tile --auroc=0.80 --data=DIR
python -m benchmarks.time_to_auroc --category=mono --auroc=0.93

Every preset is trained by the product's code, in turn, for 50 steps and then twice as many again
and again, rounded up to whole epochs, until it gets there. A schedule depends on the number of its
steps, so each is a whole training, with no look at the test images on the way. The time is that
from the start of the features to the end of the training, compilation included. One seed each:
where two presets differ by less than a factor of two, this is too coarse to tell.
"""

import dataclasses
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import tyro

from adtr_jax import detectors
from adtr_jax.backbones.backbone import Backbone
from adtr_jax.command_line import guarded, parse
from adtr_jax.config import ADTR_PRESETS, AdtrSettings
from adtr_jax.detectors.detector import Detector
from adtr_jax.detectors.learn import learn
from adtr_jax.devices.feature_cache import FeatureCache
from adtr_jax.devices.sharding import one_device_a_core
from adtr_jax.errors import InputError
from adtr_jax.run import Task, measured
from adtr_jax.training.sampling import Sampling
from benchmarks import exports, machine, real
from benchmarks.rows import show

PROG = "python -m benchmarks.time_to_auroc"
HEADER = ("category", "preset", "steps", "time", "image AUROC", "target")
# `fast` as it was in version 0.2.0.
OLD = AdtrSettings(
    layers=(2, 3, 4),
    standardise=True,
    image_size=160,
    epochs=150,
    max_steps=450,
    optimiser="adamw",
    learning_rate=5e-4,
    schedule="cosine",
    dropout=0.0,
    aligned=True,
    placement="centres",
    image_score="top",
)
PRESETS: Mapping[str, AdtrSettings] = {"before": OLD, "fast": ADTR_PRESETS["fast"]}
FIRST, LONGEST = 50, 1600  # steps


@dataclass(frozen=True)
class TimeToAuroc:
    """Print a table of trainings, each twice as long, up to the first that reaches the target."""

    category: str
    """mono or poly (solar cells), a class of CIFAR-10, or a category of MVTec-AD or of --data."""
    auroc: float
    """The image AUROC to reach, up to 1."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """A folder in MVTec-AD's layout, or CIFAR-10. Default: prepared by TFDS."""
    backbone: str = "efficientnet-lite2"
    """The frozen network."""
    quick: bool = False
    """A small model without network: whether everything runs, not how fast."""

    def __post_init__(self) -> None:
        """Raises InputError if the target is not an AUROC."""
        if not 0 < self.auroc <= 1:
            raise InputError(f"--auroc={self.auroc} must be above 0 and at most 1")

    @property
    def presets(self) -> dict[str, AdtrSettings]:
        """The settings to compare, by name."""
        sizes: dict[str, Any] = {"backbone": self.backbone}
        if self.quick:
            names = ("backbone", "layers", "image_size", "width", "heads", "depth")
            sizes = {name: getattr(exports.QUICK, name) for name in names}
        return {name: dataclasses.replace(preset, **sizes) for name, preset in PRESETS.items()}


def measure(command: TimeToAuroc) -> Iterator[tuple[str, ...]]:
    """Yields a row for each training, in the order of the steps."""
    tasks = {
        name: real.read(command.category, command.data, settings)
        for name, settings in command.presets.items()
    }
    backbones = {name: real.network(task.settings) for name, task in tasks.items()}
    first = next(iter(tasks))
    trained(longer(tasks[first], 1), backbones[first])  # what JAX does once in a process
    steps, left = FIRST, list(tasks)
    while left and steps <= LONGEST:
        for name in tuple(left):
            task = longer(tasks[name], steps)
            start = time.perf_counter()
            detector = trained(task, backbones[name])
            seconds = time.perf_counter() - start
            found = measured(task, *detector.score(task.test_images, task.mesh))["image_auroc"]
            reached = found >= command.auroc
            if reached:
                left.remove(name)
            yield (
                command.category,
                name,
                str(total_steps(task)),
                f"{seconds:.1f} s",
                f"{found:.3f}",
                f"{command.auroc:g}{' reached' if reached else ''}",
            )
        steps *= 2


def longer(task: Task[AdtrSettings], steps: int) -> Task[AdtrSettings]:
    """Returns the task with a training of so many steps, rounded up to whole epochs."""
    settings = dataclasses.replace(task.settings, epochs=steps, max_steps=steps)
    return dataclasses.replace(task, settings=settings)


def total_steps(task: Task[AdtrSettings]) -> int:
    """Returns the number of steps of a task's training."""
    settings = task.settings
    epoch = Sampling(len(task.images), 0, settings.batch_size, settings.seed).steps
    return epoch * settings.epochs_of(epoch)


def trained(task: Task[AdtrSettings], backbone: Backbone) -> Detector:
    """Trains as `run.train` does, in a folder that is removed again."""
    with TemporaryDirectory() as temporary:
        directory = Path(temporary)
        return learn(
            detectors.create(backbone, task.settings),
            task.images,
            task.mesh,
            directory=directory,
            cache=FeatureCache(directory / ".features"),
            label=task.category.name,
        )


def run(command: TimeToAuroc) -> int:
    """Measures and prints the table; returns the exit status."""
    one_device_a_core()
    table = show(HEADER, measure(command))
    words = " ".join([PROG, *sys.argv[1:]])
    print(f"\n`{words}`: {machine.describe()}\n\n{table}", end="")
    return 0


def main(words: Sequence[str]) -> int:
    """Parses the command line and runs; returns the exit status."""
    return guarded(lambda: run(parse(TimeToAuroc, words, prog=PROG)), "interrupted")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
