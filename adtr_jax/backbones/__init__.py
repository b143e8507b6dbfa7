"""The ImageNet networks by name: Flax modules that return logits and five taps.

Other packages add networks by entry points of the group `adtr_jax.backbones`: a name, and what
returns the network, called with `rngs` alone; a class derived from `Backbone`, for one. `save`
writes its weights as they are read.

Importing this package imports no JAX, so that a command line can list `NAMES` at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adtr_jax.backbones.scaling import LAYOUTS, SCALINGS
from adtr_jax.errors import InputError, one_line, unknown

if TYPE_CHECKING:
    import importlib.metadata

    import flax.nnx

    import adtr_jax.backbones.backbone

PROVENANCE = "provenance"  # of converted weights: the text in a file's header, as JSON
PIXELS = "pixels"  # no network, no weights: the image itself
NAMES: tuple[str, ...] = (*SCALINGS, *LAYOUTS, PIXELS)  # those of this package
GROUP = "adtr_jax.backbones"  # of other packages' entry points


def create(name: str, *, rngs: "flax.nnx.Rngs") -> "adtr_jax.backbones.backbone.Backbone":
    """Returns a network with random weights and BatchNorm statistics of mean 0, variance 1.

    Raises:
        InputError: there is no such network; suggests the nearest. Or another package's cannot be
            made.
    """
    require_known(name)
    if name not in NAMES:
        return _create_added(name, rngs)
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
        InputError: as `create`, or the file is missing or damaged, or its tensors are not exactly
            those of the network.
    """
    import json

    from flax import nnx

    from adtr_jax.files import state_file

    if name == PIXELS:
        return create(name, rngs=nnx.Rngs(0))

    graph, state = nnx.split(shapes(name))
    remedy = f"make it with `python -m conversion {name} --out={directory}`"
    if is_added(name):
        remedy = f"the package that adds {name} says where to get it"
    file = directory / f"{name}.safetensors"
    text = state_file.read_metadata(file, remedy).get(PROVENANCE, "{}")
    try:
        provenance = json.loads(text)
        before = provenance.get("format_version", 1) == 1 and "file_sha256" not in provenance
        written = None if before else str(provenance["file_sha256"])
    except (ValueError, LookupError, AttributeError):
        raise InputError(f"{file} has a damaged header; {remedy}") from None
    return nnx.merge(graph, state_file.load(file, state, remedy, sha256=written))


def save(network: "adtr_jax.backbones.backbone.Backbone", file: Path) -> None:
    """Writes a network's weights to the file that `load` reads, `directory/name.safetensors`."""
    import json

    from flax import nnx

    from adtr_jax.files import state_file
    from adtr_jax.files.digest import BLANK

    provenance = {"format_version": 2, "file_sha256": BLANK}
    state_file.save(file, nnx.state(network), {PROVENANCE: json.dumps(provenance)})


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
    from adtr_jax.nn.shapes import module_shapes

    return module_shapes(lambda rngs: create(name, rngs=rngs))


def require_known(name: str) -> None:
    """Raises InputError if there is no such network; imports none."""
    if not is_known(name):
        raise unknown("no backbone", name, [*NAMES, *sorted(_added().names)])


def is_known(name: str) -> bool:
    """Returns whether there is such a network, here or in another package."""
    return name in NAMES or name in _added().names


def is_added(name: str) -> bool:
    """Returns whether another package adds this network."""
    return name not in NAMES and is_known(name)


def _added() -> "importlib.metadata.EntryPoints":
    from importlib import metadata  # takes 30 ms, and ours are known without it

    return metadata.entry_points(group=GROUP)


def _create_added(name: str, rngs: "flax.nnx.Rngs") -> "adtr_jax.backbones.backbone.Backbone":
    """Returns another package's network."""
    from adtr_jax.backbones.backbone import Backbone

    entry = _added()[name]
    try:
        network = entry.load()(rngs=rngs)
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(
            f"the backbone {name} cannot be made by {entry.value} ({one_line(error)}): ask the "
            "package that adds it"
        ) from error
    if not isinstance(network, Backbone):
        raise InputError(
            f"the backbone {name}: {entry.value} returns no adtr_jax.backbones.backbone.Backbone: "
            "ask the package that adds it"
        )
    return network
