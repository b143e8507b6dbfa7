"""`adtr-jax export MODEL --format=onnx --int8=PHOTOS --out=FILE`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from adtr_jax.command_line import parse
from adtr_jax.errors import InputError
from adtr_jax.export import SUFFIXES, Format, format_of

if TYPE_CHECKING:
    from adtr_jax.api.int8 import Int8
    from adtr_jax.export.proof import Difference

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
    int8: Annotated[Path | None, tyro.conf.arg(metavar="PHOTOS")] = None
    """Write ONNX in int8, smaller and faster, no longer equal: the folder of good images that the
    model was fitted on, of which those not trained on make the threshold anew. The name ends with
    .int8.onnx by default."""
    defects: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """A folder of defects, to say what int8 costs in AUROC."""
    product: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Of a model of several products: the one to export."""
    weights: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The folder of converted backbone weights, for an experiment's run."""


def main(words: Sequence[str]) -> int:
    """Parses the command line and exports; returns the exit status."""
    options = parse(Export, words, prog=PROG)
    if not options.model.exists():
        raise InputError(f"{options.model} does not exist: make a model with adtr-jax fit")
    if options.int8 is not None and options.format != "onnx":
        raise InputError("--int8 is of ONNX: leave it out, or give --format=onnx")
    if options.defects is not None and options.int8 is None:
        raise InputError("--defects are to measure what --int8=PHOTOS costs: give both, or none")
    suffix = SUFFIXES[options.format]
    kind = "" if options.int8 is None else ".int8"
    out = options.out or options.model.with_name(f"{options.model.stem}{kind}{suffix}")
    if format_of(out) != options.format:
        raise InputError(f"--out={out} must end with {suffix}, by which it is known")
    run(options, out)
    return 0


def run(options: Export, out: Path) -> None:
    """Exports, and says how far the file is from the model."""
    from adtr_jax.api import int8
    from adtr_jax.api.model import load
    from adtr_jax.devices.sharding import require_devices

    require_devices()
    begun = time.monotonic()
    model = load(options.model, options.weights).of(options.product)
    if options.int8 is None:
        say_proved(model.export(out))
    else:
        found = int8.export(model, out.expanduser(), options.int8, options.defects)
        say_proved(found.proof)
        say_cost(found, measured=options.defects is not None)
    size = out.stat().st_size / 2**20
    print(f"wrote {out} ({size:.1f} MiB) after {time.monotonic() - begun:.0f} s; next:")
    print(f"  adtr-jax predict {out} NEW_PHOTOS --out=results")


def say_proved(found: "Difference") -> None:
    """Says how far a float32 export is from the model."""
    print(
        "proved equal in a new process, on 1 and on 5 images at a time: the largest relative "
        f"difference is {found.maps:.2g} in the score maps, {found.scores:.2g} in the scores"
    )


def say_cost(found: "Int8", *, measured: bool) -> None:
    """Says what became of the scores in int8; measured: against defects."""
    before, after = found.float32, found.int8
    print(
        f"int8: ranges from {found.ranges} images that were trained on, the threshold from "
        f"{len(after.good)} that were not"
    )
    if measured:
        print(
            f"image AUROC of these against {len(after.defects)} defects: {before.auroc:.4f} in "
            f"float32, {after.auroc:.4f} in int8, a loss of {before.auroc - after.auroc:.4f}"
        )
    else:
        print(
            f"their scores change by at most {100 * found.change:.1f}%; --defects=DIR would tell "
            "the loss of AUROC"
        )
