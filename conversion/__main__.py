"""`python -m conversion NAME [--checkpoint FILE] [--out DIR]`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from adtr_jax.command_line import guarded, parse
from conversion.folder import weights_folder
from conversion.weights import convert


@dataclass(frozen=True)
class Settings:
    """Turn the PyTorch checkpoint of a network into DIR/NAME.safetensors, without PyTorch."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """efficientnet-b0 to -b7, efficientnet-lite0 to -lite4, resnet-18, resnet-34 or
    wide-resnet-50-2."""

    checkpoint: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The checkpoint, if it is not to be downloaded or taken from the installed package."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = field(default_factory=weights_folder)
    """The folder for the converted file."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts one network; returns 0, 2 for bad input (one line on stderr), 130 for Ctrl-C."""
    words = sys.argv[1:] if arguments is None else arguments

    def action() -> int:
        settings = parse(Settings, words, prog="python -m conversion")
        path = convert(settings.name, checkpoint=settings.checkpoint, out=settings.out)
        print(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)")
        return 0

    return guarded(action, "interrupted; the same command goes on with a download")


if __name__ == "__main__":
    sys.exit(main())
