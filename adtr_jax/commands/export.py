"""`adtr-jax export MODEL --format=onnx --out=FILE`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from adtr_jax.command_line import parse
from adtr_jax.errors import InputError
from adtr_jax.export import SUFFIXES, Format, format_of

PROG = "adtr-jax export"


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a model as a file that runs without JAX, and prove that it computes the same."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """A model's file, or the folder of an experiment's run."""
    format: Format = "onnx"
    """onnx: for ONNX Runtime and other engines. stablehlo: for JAX without this package, on CPUs,
    GPUs and TPUs."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The file to write. Default: the model's name, with .onnx or .stablehlo."""
    weights: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The folder of converted backbone weights, for an experiment's run."""


def main(words: Sequence[str]) -> int:
    """Parses the command line and exports; returns the exit status."""
    options = parse(Export, words, prog=PROG)
    if not options.model.exists():
        raise InputError(f"{options.model} does not exist: make a model with adtr-jax fit")
    suffix = SUFFIXES[options.format]
    out = options.out or options.model.with_name(f"{options.model.stem}{suffix}")
    if format_of(out) != options.format:
        raise InputError(f"--out={out} must end with {suffix}, by which it is known")
    run(options, out)
    return 0


def run(options: Export, out: Path) -> None:
    """Exports, and says how far the file is from the model."""
    from adtr_jax.api.model import load

    begun = time.monotonic()
    model = load(options.model, options.weights)
    found = model.export(out)
    print(
        "proved equal in a new process, on 1 and on 5 images at a time: the largest relative "
        f"difference is {found.maps:.2g} in the score maps, {found.scores:.2g} in the scores"
    )
    size = out.stat().st_size / 2**20
    print(f"wrote {out} ({size:.1f} MiB) after {time.monotonic() - begun:.0f} s; next:")
    print(f"  adtr-jax predict {out} NEW_PHOTOS --out=results")
