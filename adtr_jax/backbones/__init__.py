"""The frozen ImageNet networks: names -> Flax modules that return logits and five taps.

Importing this package imports no JAX, so that a command line can list `NAMES` at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from adtr_jax.backbones.scaling import SCALINGS
from adtr_jax.errors import unknown

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
    from flax import nnx

    from adtr_jax import state_file

    # Shapes alone: drawing random weights only to replace them would take longer than reading.
    graph, state = nnx.split(nnx.eval_shape(lambda: create(name, rngs=nnx.Rngs(0))))
    remedy = f"make it with `python -m conversion {name} --out={directory}`"
    return nnx.merge(graph, state_file.load(directory / f"{name}.safetensors", state, remedy))


def _require_known(name: str) -> None:
    if name not in SCALINGS:
        raise unknown("no backbone", name, NAMES)
