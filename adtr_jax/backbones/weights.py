"""Weights of a backbone: a safetensors file -> the network's state, tensor by tensor."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open

from adtr_jax import backbones
from adtr_jax.backbones.efficientnet import EfficientNet
from adtr_jax.errors import InputError


def load_weights(name: str, directory: Path) -> EfficientNet:
    """The network `name` with the weights in `directory/name.safetensors`.

    The file's tensors are the leaves of the network's state, named by their paths joined with
    dots (`blocks.3.expand.kernel`), one to one, in float32.

    Raises:
        InputError: the file is not there, cannot be read or is corrupt, or has a tensor too many,
            too few or of the wrong shape or type; the message names file, tensor and remedy.
    """
    path = directory / f"{name}.safetensors"
    remedy = f"python -m conversion {name} --out={directory}"
    # Shapes alone: drawing random weights only to replace them would take longer than reading.
    abstract = nnx.eval_shape(lambda: backbones.create(name, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(abstract)
    leaves = nnx.to_flat_state(state)
    shapes = {_join(keys): leaf.get_value().shape for keys, leaf in leaves}
    tensors = _read(path, shapes, remedy)
    filled = [(keys, leaf.replace(jnp.asarray(tensors[_join(keys)]))) for keys, leaf in leaves]
    return nnx.merge(graph, nnx.from_flat_state(filled))


def _join(keys: tuple) -> str:
    return ".".join(map(str, keys))


def _read(path: Path, shapes: dict[str, tuple[int, ...]], remedy: str) -> dict[str, np.ndarray]:
    """The tensors of the file, if they are exactly those of `shapes`."""
    if not path.is_file():
        raise InputError(f"{path} is not there; make it with `{remedy}`")
    again = f"make it again with `{remedy}`"
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            for unused in sorted(names - shapes.keys()):
                raise InputError(f"{path}: the network has no tensor {unused!r}; {again}")
            for missing in sorted(shapes.keys() - names):
                raise InputError(f"{path}: tensor {missing!r} is missing; {again}")
            for key, shape in shapes.items():
                _require_fit(file.get_slice(key), key, shape, path, again)
            return {key: file.get_tensor(key) for key in shapes}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); {again}") from None


def _require_fit(tensor, key: str, shape: tuple[int, ...], path: Path, again: str) -> None:
    found = tuple(tensor.get_shape())
    if found != shape:
        raise InputError(f"{path}: tensor {key!r} has shape {found}, not {shape}; {again}")
    if tensor.get_dtype() != "F32":
        raise InputError(f"{path}: tensor {key!r} is {tensor.get_dtype()}, not F32; {again}")
