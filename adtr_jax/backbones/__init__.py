"""The frozen ImageNet networks: names -> Flax modules that return logits and five taps.

Importing this package imports no JAX, so that a command line can list `NAMES` at once.
"""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from adtr_jax.backbones.scaling import SCALINGS
from adtr_jax.errors import InputError

if TYPE_CHECKING:
    import flax.nnx

    import adtr_jax.backbones.efficientnet

NAMES: tuple[str, ...] = tuple(SCALINGS)


def create(name: str, *, rngs: "flax.nnx.Rngs") -> "adtr_jax.backbones.efficientnet.EfficientNet":
    """The network `name` with random weights and BatchNorm statistics of mean 0, variance 1.

    Raises:
        InputError: `name` is not in `NAMES`; the message suggests the nearest.
    """
    _require_known(name)
    from adtr_jax.backbones.efficientnet import EfficientNet

    return EfficientNet(SCALINGS[name], rngs=rngs)


def load(name: str, directory: Path) -> "adtr_jax.backbones.efficientnet.EfficientNet":
    """The network `name` with the weights in `directory/name.safetensors`.

    Raises:
        InputError: `name` is not in `NAMES`, or the file is not there, is corrupt, or its tensors
            are not exactly those of the network.
    """
    _require_known(name)
    from adtr_jax.backbones.weights import load_weights

    return load_weights(name, directory)


def _require_known(name: str) -> None:
    if name not in SCALINGS:
        nearest = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.0)[0]
        raise InputError(
            f"unknown backbone {name!r}; did you mean {nearest!r}? Known: {', '.join(NAMES)}"
        )
