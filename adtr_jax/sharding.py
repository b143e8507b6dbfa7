"""One mesh axis over all devices: every device works on its part of each batch."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from adtr_jax.errors import InputError

AXIS = "data"


def device_mesh(count: int | None = None) -> Mesh:
    """A one-axis mesh over the first `count` devices of this process (default: all of them).

    Raises:
        InputError: there are not as many.
    """
    devices = jax.local_devices()
    if count is not None and not 0 < count <= len(devices):
        raise InputError(f"--devices={count} must be from 1 to {len(devices)}: so many there are")
    return Mesh(np.array(devices[:count]), (AXIS,))


def per_device(
    function: Callable, mesh: Mesh, in_specs: tuple, out_specs: Any, donate: tuple[int, ...] = ()
) -> Callable:
    """Compiles `function`, written for one device's part of the data, for all devices of the mesh.

    `jax.jit(jax.shard_map(...))`: inside, `jax.lax.psum(x, AXIS)` sums over the devices.
    A spec of `replicated` hands every device the whole array, `split(axis)` its part along an axis.
    """
    mapped = jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs)
    return jax.jit(mapped, donate_argnums=donate)


replicated = PartitionSpec()


def split(axis: int = 0) -> PartitionSpec:
    """The spec of an array that is split over the devices along `axis`."""
    return PartitionSpec(*[None] * axis, AXIS)


def place(tree: Any, mesh: Mesh, spec: PartitionSpec = replicated) -> Any:
    """Puts the arrays of a pytree on the devices of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, spec))


def in_batches(
    function: Callable, state: Any, rows: Any, mesh: Mesh, *, batch_size: int, label: str
) -> list[np.ndarray]:
    """Applies `function(state, batch)` to all rows, batch by batch, sharded over the devices.

    Every batch has the same size, so that one program serves all; the last one is filled up with
    its last row and the surplus dropped.

    Args:
        function: per-device: `(state, part of a batch) -> tuple of arrays`, one row an image.
        state: the same on all devices.
        rows: arrays `[n, ...]` on the host, one row an image.
        batch_size: images a batch over all devices; rounded up to a multiple of their number.
        label: names the progress bar.

    Returns:
        The function's outputs for all n images, on the host.
    """
    n = len(jax.tree.leaves(rows)[0])
    size = -(-min(batch_size, n) // mesh.size) * mesh.size
    compiled = per_device(function, mesh, (replicated, split()), split())
    state = place(state, mesh)
    parts, pending = [], None
    with tqdm(total=n, desc=label, unit="image", leave=False, disable=None) as progress:
        for start in range(0, n, size):
            count = min(size, n - start)
            index = np.pad(np.arange(start, start + count), (0, size - count), mode="edge")
            batch = jax.tree.map(lambda array, index=index: array[index], rows)
            current = compiled(state, place(batch, mesh, split())), count
            if pending:  # fetched while the devices work on the next batch
                parts.append(_fetch(*pending))
                progress.update(pending[1])
            pending = current
        if pending:
            parts.append(_fetch(*pending))
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _fetch(outputs: tuple, count: int) -> list[np.ndarray]:
    return [np.asarray(x)[:count] for x in outputs]
