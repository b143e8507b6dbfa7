"""A trained detector as one file that runs elsewhere: ONNX, or the StableHLO of `jax.export`.

`write`: detector -> a file that is proved equal; `read`: file -> a detector that scores images.
Only what writes an export, and what runs StableHLO, imports JAX. One file knows each format:
`onnx_writer`, `onnx_runtime`, `stablehlo`.
"""

from pathlib import Path
from typing import Literal

Format = Literal["onnx", "stablehlo"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "stablehlo": ".stablehlo"}


def format_of(path: Path) -> Format | None:
    """The format of an export, by its name; None: it is none."""
    return next((name for name, suffix in SUFFIXES.items() if path.suffix == suffix), None)
