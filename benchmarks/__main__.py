"""Speed and memory against PyTorch on this machine: same weights, same inputs, one table.

python -m benchmarks [--only features train_step] [--dtype bfloat16] [--quick]

All ways are timed in turn in one run, and the median counts. A ratio is PyTorch's time, the faster
of eager and compiled, over JAX's. All of it takes about an hour on two cores. PyTorch uses a GPU if
it sees one, as JAX does.
"""

import dataclasses
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from adtr_jax.command_line import guarded, parse
from adtr_jax.errors import InputError
from adtr_jax.files.atomic import write_atomically
from benchmarks.sizes import QUICK, Sizes

Measurement = Literal[
    "features", "train_step", "training", "prediction", "scoring_metrics", "startup", "memory"
]
ALL: tuple[Measurement, ...] = (
    "features",
    "train_step",
    "training",
    "prediction",
    "scoring_metrics",
    "startup",
    "memory",
)
PROG = "python -m benchmarks"


@dataclass(frozen=True)
class Benchmarks:
    """Print a table of ratios against PyTorch, and write it with the machine's description."""

    only: tuple[Measurement, ...] = ALL
    """What to measure."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The Markdown file to write. Default: benchmarks/speed.md; with --quick, none."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation, in both libraries."""
    repeats: int | None = None
    """How often each is timed; default: 7, what takes a minute or more 3 times."""
    compiled: bool = True
    """Try torch.compile, which takes minutes to compile."""
    quick: bool = False
    """Small sizes, once each: whether everything runs, not how fast."""

    @property
    def sizes(self) -> Sizes:
        sizes = dataclasses.replace(
            QUICK if self.quick else Sizes(), dtype=self.dtype, compiled=self.compiled
        )
        if self.repeats is None:
            return sizes
        return dataclasses.replace(sizes, repeats=self.repeats, long_repeats=self.repeats)


def run(command: Benchmarks) -> int:
    """Measures, prints intermediate results, and writes the file; returns the exit status."""
    from adtr_jax.devices.sharding import one_device_a_core
    from benchmarks import machine
    from benchmarks.rows import HEADER, Row, table

    one_device_a_core()
    if not command.only:
        raise InputError(f"--only needs one or more of {', '.join(ALL)}")
    sizes = command.sizes
    out = command.out or (None if command.quick else Path("benchmarks/speed.md"))
    words = " ".join([PROG, *sys.argv[1:]])
    rows: list[Row] = []
    print(" | ".join(HEADER), flush=True)
    for name in command.only:
        for row in importlib.import_module(f"benchmarks.{name}").measure(sizes):
            rows.append(row)
            print(" | ".join(row.cells()), flush=True)
        text = f"`{words}`, {sizes.dtype}: {machine.describe()}\n\n{table(rows)}"
        if out:  # after each measurement: the next one may take half an hour
            write_atomically(out, f"# Speed against PyTorch\n\n{text}")
    print(f"\n{text}", end="")
    if out:
        print(f"\nwritten to {out}")
    return 0


def main(words: Sequence[str]) -> int:
    """Parses the command line and runs; returns the exit status."""
    return guarded(lambda: run(parse(Benchmarks, words, prog=PROG)), "interrupted")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
