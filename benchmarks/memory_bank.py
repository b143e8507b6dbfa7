"""A reference, not a method of the product: a nearest-neighbour memory of a preset's own features.

python -m benchmarks.memory_bank --category=NAME [--data=PATH] [--preset=fast] [--backbone=NAME]

16,000 random patches of the training images, which are token features as the preset extracts and
standardises them; a test patch's score is the distance to its nearest neighbour among them (as
PatchCore's, Roth et al., without its coreset). Score maps and image scores are the detector's. What
a trained model of the same features gets beyond this table, its training has earned.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float

from adtr_jax.backbones.backbone import Backbone
from adtr_jax.command_line import guarded, parse
from adtr_jax.config import ADTR_PRESETS, AdtrSettings, Preset
from adtr_jax.detectors import extraction
from adtr_jax.detectors.scoring import image_score, score_map, token_scores
from adtr_jax.detectors.standardisation import Standardisation
from adtr_jax.detectors.token_positions import token_positions
from adtr_jax.devices.batched_function import BatchedFunction
from adtr_jax.devices.loader import Shard
from adtr_jax.devices.sharding import one_device_a_core
from adtr_jax.run import Task, measured
from benchmarks import real
from benchmarks.rows import show

PROG = "python -m benchmarks.memory_bank"
HEADER = ("category", "features", "image AUROC", "pixel AUROC", "AUPRO")
METRICS = ("image_auroc", "pixel_auroc", "aupro")
PATCHES, SEEDS = 16_000, (0, 1, 2)
AT_ONCE = 1024  # test patches per device and call: their distances to the bank take 66 MB


@dataclass(frozen=True)
class MemoryBank:
    """Print the metrics of a nearest-neighbour memory: the mean, lowest and highest of three."""

    category: str
    """mono or poly (solar cells), a class of CIFAR-10, or a category of MVTec-AD or of --data."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """A folder in MVTec-AD's layout, or CIFAR-10. Default: prepared by TFDS."""
    preset: Preset = "fast"
    """Whose features, score maps and image scores."""
    backbone: str = "efficientnet-lite2"
    """The network they come from."""

    @property
    def settings(self) -> AdtrSettings:
        return dataclasses.replace(ADTR_PRESETS[self.preset], backbone=self.backbone)


def measure(task: Task[AdtrSettings], backbone: Backbone) -> list[dict[str, float]]:
    """Returns the metrics on the test images for each of `SEEDS`, which draw the patches."""
    f, f_test = standardised_features(task, backbone)
    patches = f.reshape(-1, f.shape[-1])
    found = []
    for seed in SEEDS:
        count = min(PATCHES, len(patches))
        drawn = np.random.default_rng(seed).choice(len(patches), count, replace=False)
        program = scorer(patches[drawn], task, backbone)
        maps, scores = program.compute_all(f_test)
        found.append(measured(task, maps, scores))
    return found


def standardised_features(
    task: Task[AdtrSettings], backbone: Backbone
) -> tuple[Float[np.ndarray, "n h w c"], Float[np.ndarray, "m h w c"]]:
    """Returns F of the training and test images, standardised if the settings say so."""
    f, f_test = (
        extraction.compute(backbone, images, task.settings, task.mesh)
        for images in (task.images, task.test_images)
    )
    if not task.settings.standardise:
        return f, f_test
    standardised = Standardisation.fit(Shard(f, len(f)))
    return standardised(f), standardised(f_test)


def scorer(
    bank: Float[np.ndarray, "m c"], task: Task[AdtrSettings], backbone: Backbone
) -> BatchedFunction:
    """Returns the program F `[b h w c]` -> score maps `[b s s]` and image scores `[b]`."""
    settings = task.settings
    centres = settings.placement == "centres"
    positions = token_positions(backbone, settings) if centres else None

    def function(bank: Array, f: Array) -> tuple[Array, Array]:
        tokens = token_scores(f, nearest(f, bank))
        maps = score_map(tokens, settings.image_size, positions)
        return maps, image_score(tokens, maps, settings.image_score)

    size = max(1, AT_ONCE // settings.tokens_per_side**2)
    return BatchedFunction(function, bank, task.mesh, size=size, label="scores")


def nearest(f: Float[Array, "b h w c"], bank: Float[Array, "m c"]) -> Float[Array, "b h w c"]:
    """The bank's row p that is nearest to f(:, u), at every position u.

    ||f - p||^2 / 2 is least where f.p - ||p||^2 / 2 is greatest.
    """
    half_squares = 0.5 * jnp.sum(bank**2, axis=1)
    return bank[jnp.argmax(f @ bank.T - half_squares, axis=-1)]


def row(task: Task[AdtrSettings], found: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    """Returns the table's row, in the order of `HEADER`; "" for metrics that need masks."""
    settings = task.settings
    layers = ", ".join(map(str, settings.layers))
    features = f"{settings.backbone}, {settings.image_size} px, layers {layers}"
    columns = [[metrics[name] for metrics in found if name in metrics] for name in METRICS]
    cells = (f"{mean(x):.3f} ({min(x):.3f} to {max(x):.3f})" if x else "" for x in columns)
    return task.category.name, features, *cells


def run(command: MemoryBank) -> int:
    """Measures and prints the table; returns the exit status."""
    one_device_a_core()
    task = real.read(command.category, command.data, command.settings)
    found = measure(task, real.network(task.settings))
    print(f"\n{show(HEADER, [row(task, found)])}", end="")
    return 0


def main(words: Sequence[str]) -> int:
    """Parses the command line and runs; returns the exit status."""
    return guarded(lambda: run(parse(MemoryBank, words, prog=PROG)), "interrupted")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
