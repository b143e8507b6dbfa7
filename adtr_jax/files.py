"""Files that appear whole or not at all, and NNX states as safetensors files."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from adtr_jax.errors import InputError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a file, and its folder if need be, so that nobody ever sees a part of it.

    Raises:
        OSError: the file cannot be written; an older one is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    # A folder of its own, so that the file gets the permissions that the user's umask gives.
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder:
        part = Path(folder) / path.name
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def to_tensors(state: nnx.State) -> dict[str, np.ndarray]:
    """An NNX state as named arrays; a name is the path in the module, joined by dots."""
    return {
        ".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(state)
    }


def from_tensors(
    tensors: Mapping[str, np.ndarray], like: nnx.State, file: str, remedy: str
) -> nnx.State:
    """The state with the structure of `like` and the arrays of `tensors`, one for one.

    Args:
        tensors: by name, as `to_tensors` gives them.
        like: a state of the module, abstract or not.
        file: names the tensors' file in errors.
        remedy: what the errors advise to do.

    Raises:
        InputError: a tensor too many, too few, or of the wrong shape.
    """
    expected = {".".join(map(str, path)): (path, leaf) for path, leaf in nnx.to_flat_state(like)}
    for name in sorted(tensors.keys() - expected.keys()):
        raise InputError(f"{file}: {name} is no tensor of this network; {remedy}")
    for name, (_, leaf) in expected.items():
        if name not in tensors:
            raise InputError(f"{file}: {name} is missing; {remedy}")
        if tensors[name].shape != leaf.shape:
            raise InputError(
                f"{file}: {name} has shape {tensors[name].shape}, not {leaf.shape}; {remedy}"
            )
    return nnx.from_flat_state(
        (path, leaf.replace(jax.numpy.asarray(tensors[name], leaf.dtype)))
        for name, (path, leaf) in expected.items()
    )


def read_safetensors(path: Path, remedy: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors and the header's metadata of a safetensors file.

    Raises:
        InputError: no such file, or not a whole safetensors file.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = file.keys()  # noqa: SIM118  # not a mapping
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {remedy}") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {remedy}") from None
