"""The ImageNet networks by name: Flax modules that return logits and five taps.

Importing this package imports no JAX, so that a command line can list `NAMES` at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adtr_jax.backbones.scaling import LAYOUTS, SCALINGS
from adtr_jax.errors import InputError, unknown

if TYPE_CHECKING:
    import flax.nnx

    import adtr_jax.backbones.backbone

PROVENANCE = "provenance"  # of converted weights: the text in a file's header, as JSON
PIXELS = "pixels"  # no network, no weights: the image itself
NAMES: tuple[str, ...] = (*SCALINGS, *LAYOUTS, PIXELS)


def create(name: str, *, rngs: "flax.nnx.Rngs") -> "adtr_jax.backbones.backbone.Backbone":
    """Returns a network with random weights and BatchNorm statistics of mean 0, variance 1.

    Raises:
        InputError: `name` is not in `NAMES`; suggests the nearest.
    """
    _require_known(name)
    if name in LAYOUTS:
        from adtr_jax.backbones.resnet import ResNet

        return ResNet(LAYOUTS[name], rngs=rngs)
    if name == PIXELS:
        from adtr_jax.backbones.pixels import Pixels

        return Pixels()
    from adtr_jax.backbones.efficientnet import EfficientNet

    return EfficientNet(SCALINGS[name], rngs=rngs)


def load(name: str, directory: Path) -> "adtr_jax.backbones.backbone.Backbone":
    """Returns a network with the weights in `directory/name.safetensors`; `pixels` has none.

    Raises:
        InputError: `name` is not in `NAMES`, or the file is missing or damaged, or its tensors are
            not exactly those of the network.
    """
    _require_known(name)
    import json

    from flax import nnx

    from adtr_jax.files import state_file

    if name == PIXELS:
        return create(name, rngs=nnx.Rngs(0))

    graph, state = nnx.split(shapes(name))
    remedy = f"make it with `python -m conversion {name} --out={directory}`"
    file = directory / f"{name}.safetensors"
    text = state_file.read_metadata(file, remedy).get(PROVENANCE, "{}")
    try:
        provenance = json.loads(text)
        before = provenance.get("format_version", 1) == 1 and "file_sha256" not in provenance
        written = None if before else str(provenance["file_sha256"])
    except (ValueError, LookupError, AttributeError):
        raise InputError(f"{file} has a damaged header; {remedy}") from None
    return nnx.merge(graph, state_file.load(file, state, remedy, sha256=written))


def digest(network: Any) -> str:
    """Returns the SHA-256 of the weights of a network, or of a state, in hexadecimal."""
    import hashlib

    import jax
    import numpy as np
    from flax import nnx

    weights = hashlib.sha256()
    for leaf in jax.tree.leaves(nnx.state(network) if isinstance(network, nnx.Module) else network):
        weights.update(np.ascontiguousarray(leaf).data)
    return weights.hexdigest()


def shapes(name: str) -> "adtr_jax.backbones.backbone.Backbone":
    """Returns a network with shapes in place of weights; raises InputError as `create`."""
    _require_known(name)
    from adtr_jax.nn.shapes import module_shapes

    return module_shapes(lambda rngs: create(name, rngs=rngs))


def _require_known(name: str) -> None:
    if name not in NAMES:
        raise unknown("no backbone", name, NAMES)
