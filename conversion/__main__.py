"""`python -m conversion NAME [--checkpoint FILE] [--out DIR]`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from adtr_jax.errors import InputError
from conversion.weights import WEIGHTS, convert


@dataclass(frozen=True)
class Settings:
    """Turn the PyTorch checkpoint of a network into DIR/NAME.safetensors, without PyTorch."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """efficientnet-b0 to efficientnet-b7, or efficientnet-lite0 to efficientnet-lite4."""

    checkpoint: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The checkpoint, if it is not to be downloaded or taken from the installed package."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = WEIGHTS
    """The folder for the converted file."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts one network; returns 0, 2 for bad input (one line on stderr), 130 for Ctrl-C."""
    words = _split(sys.argv[1:] if arguments is None else arguments)
    settings = tyro.cli(Settings, prog="python -m conversion", args=words, use_underscores=True)
    try:
        path = convert(settings.name, checkpoint=settings.checkpoint, out=settings.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    print(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)")
    return 0


def _split(arguments: Sequence[str]) -> list[str]:
    """`--flag=value` as two words: tyro suggests the nearest flag only for a flag on its own."""
    words: list[str] = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        is_flag = flag.startswith("--") and equals and not value.startswith("-")
        words.extend((flag, value) if is_flag else (argument,))
    return words


if __name__ == "__main__":
    sys.exit(main())
