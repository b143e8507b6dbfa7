"""Why ADTR has attention with a query: the one-layer study of Section 3.2 (You et al.).

python -m experiments.identical_mapping --category=grid
python -m experiments.identical_mapping --category=grid --data=DIR --backbone=efficientnet-lite2
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from adtr_jax.command_line import guarded, parse
from adtr_jax.config import ADTR_PRESETS, AdtrSettings
from adtr_jax.errors import InputError
from conversion import weights_folder
from experiments.addresses import local
from experiments.categories import ensure_weights

FAST = ADTR_PRESETS["fast"]
PROG = "python -m experiments.identical_mapping"
COLUMNS = {
    "error_training": "training",
    "error_normal": "normal",
    "error_anomalous": "anomalous",
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
}


@dataclass(frozen=True, kw_only=True)
class IdenticalMapping:
    """Train a linear and an attention layer to reconstruct normal features; show them anomalies."""

    category: str
    """A category's name; its anomalous test images need masks."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """A folder in MVTec-AD's layout. Default: MVTec-AD, downloaded and prepared by TFDS."""
    backbone: str = FAST.backbone
    """The frozen ImageNet network."""
    layers: tuple[int, ...] = FAST.layers
    """Which of the backbone's five layers (strides 2, 4, 8, 16, 32) are reconstructed."""
    image_size: int = FAST.image_size
    """Side s of the images, in pixels."""
    steps: int = 3000
    """Training steps of each network."""
    batch_size: int = FAST.batch_size
    """Images a step."""
    learning_rate: float = 3e-3
    """Adam's, at first; falls to zero."""
    seed: int = 0
    """Of the parameters and of the order of the images."""
    out: Path = Path("runs/identical_mapping")
    """identical_mapping.png and identical_mapping.json go to OUT/CATEGORY/."""
    weights: Path = field(default_factory=weights_folder)
    """The folder of converted backbone weights; missing ones are converted into it."""

    def settings(self) -> AdtrSettings:
        """Returns settings with standardised features, and score maps as in the fast preset.

        Raises InputError for an invalid value.
        """
        if self.steps <= 0:
            raise InputError(f"--steps={self.steps} must be greater than 0")
        return dataclasses.replace(
            FAST,
            backbone=self.backbone,
            layers=self.layers,
            image_size=self.image_size,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )


def run(options: IdenticalMapping) -> None:
    """Runs the study, and writes its figure and its values."""
    settings = options.settings()

    from adtr_jax import backbones
    from adtr_jax.data import folders, mvtec_ad
    from adtr_jax.devices.sharding import one_device_a_core, require_devices
    from adtr_jax.evaluation import plots
    from adtr_jax.files.atomic import write_atomically
    from adtr_jax.run import Task
    from experiments import one_layer_study

    one_device_a_core()
    require_devices()
    if options.data is None:
        category = mvtec_ad.read_category(options.category)
    else:
        category = folders.read_category(options.data, options.category).measurable()
    task = Task.read(category, settings)
    ensure_weights(options.backbone, options.weights)
    backbone = backbones.load(options.backbone, options.weights)
    outcomes = one_layer_study.study(task, backbone, options.steps)
    directory = options.out / category.name
    results = {name: outcome.values for name, outcome in outcomes.items()}
    write_atomically(directory / "identical_mapping.json", json.dumps(results, indent=2) + "\n")
    picture = directory / "identical_mapping.png"
    plots.save_identical_mapping(picture, [outcome.picture for outcome in outcomes.values()])
    print(table(results))
    print(picture)


def table(results: Mapping[str, Mapping[str, float]]) -> str:
    """Returns a table of both networks' errors, AUROCs and distances from the identity."""
    lines = [" " * 9 + "".join(heading.rjust(13) for heading in COLUMNS.values())]
    for name, values in results.items():
        lines.append(name.ljust(9) + "".join(f"{values[key]:13.4f}" for key in COLUMNS))
    linear, attention = results["linear"], results["attention"]
    return "\n".join(
        (
            *lines,
            "",
            f"linear: ||w - I|| / ||I|| = {linear['distance_to_identity']:.4f}, "
            f"||b|| = {linear['bias_norm']:.4f}",
            "attention: mean diagonal weight of the map "
            f"{attention['diagonal_training']:.4f} in training; in test images "
            f"{attention['diagonal_normal']:.4f} at normal positions, "
            f"{attention['diagonal_anomalous']:.4f} at anomalous ones",
        )
    )


def main() -> int:
    """Parses the command line and runs the study; returns the exit status."""

    def action() -> int:
        with local(parse(IdenticalMapping, sys.argv[1:], prog=PROG)) as options:
            run(options)
        return 0

    return guarded(action, "interrupted; nothing was written")


if __name__ == "__main__":
    sys.exit(main())
