"""NNX states as safetensors files.

The tensors of a file are the leaves of a module's state, one for one, in float32; a tensor's name
is its leaf's path in the module, joined with dots (`blocks.3.expand.kernel`). The text in its
header holds the digest of the file.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from flax import nnx
from safetensors import SafetensorError, safe_open

from adtr_jax.errors import InputError
from adtr_jax.files import digest
from adtr_jax.files.atomic import write_atomically


def save(path: Path, state: nnx.State, header: Mapping[str, str]) -> None:
    """Atomically writes a state, and free text in the file's header, with `digest.BLANK` in it."""
    leaves = nnx.to_flat_state(state)
    tensors = {name(keys): np.asarray(leaf.get_value()) for keys, leaf in leaves}
    write_atomically(path, digest.sealed(safetensors.numpy.save(tensors, metadata=dict(header))))


def load(path: Path, like: nnx.State, remedy: str, *, sha256: str | None = None) -> nnx.State:
    """Loads the state from a file.

    Args:
        like: a state of the same structure and shapes; its values may be abstract.
        remedy: what to do about a bad file; ends the error messages.
        sha256: the digest in the file's header; None: it is of a format without.

    Raises:
        InputError: the file is missing, unreadable or corrupt, or a tensor is missing, unexpected,
            or of the wrong shape or type; names the file, the tensor and the remedy.
    """
    if sha256 is not None and not digest.is_intact(_content(path, remedy), sha256):
        raise InputError(f"{path} is damaged: it does not hold what was written; {remedy}")
    leaves = nnx.to_flat_state(like)
    tensors = _read(path, {name(keys): leaf.get_value().shape for keys, leaf in leaves}, remedy)
    arrays = jax.device_put([tensors[name(keys)] for keys, _ in leaves])
    return nnx.from_flat_state(
        (keys, leaf.replace(array)) for (keys, leaf), array in zip(leaves, arrays, strict=True)
    )


def read_metadata(path: Path, remedy: str) -> dict[str, str]:
    """Reads the free text in a file's header; raises InputError, with the remedy, if it cannot."""
    with _opened(path, remedy) as file:
        return file.metadata() or {}


def name(keys: tuple[Any, ...]) -> str:
    """Returns the tensor name of a leaf, given its path in the module."""
    return ".".join(map(str, keys))


def _content(path: Path, remedy: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {remedy}") from None


@contextmanager
def _opened(path: Path, remedy: str) -> Iterator[Any]:
    if not path.is_file():
        what = "is not a file" if path.exists() else "is not there"
        raise InputError(f"{path} {what}; {remedy}")
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); {remedy}") from None


def _read(path: Path, shapes: dict[str, tuple[int, ...]], remedy: str) -> dict[str, np.ndarray]:
    """Reads the tensors of the file, which must be exactly those of `shapes`."""
    with _opened(path, remedy) as file:
        names = set(file.keys())
        for unused in sorted(names - shapes.keys()):
            raise InputError(f"{path}: the network has no tensor {unused!r}; {remedy}")
        for missing in sorted(shapes.keys() - names):
            raise InputError(f"{path}: tensor {missing!r} is missing; {remedy}")
        for key, shape in shapes.items():
            _require_fit(file.get_slice(key), key, shape, path, remedy)
        return {key: file.get_tensor(key) for key in shapes}


def _require_fit(tensor: Any, key: str, shape: tuple[int, ...], path: Path, remedy: str) -> None:
    found = tuple(tensor.get_shape())
    if found != shape:
        raise InputError(f"{path}: tensor {key!r} has shape {found}, not {shape}; {remedy}")
    if tensor.get_dtype() != "F32":
        raise InputError(f"{path}: tensor {key!r} is {tensor.get_dtype()}, not F32; {remedy}")
