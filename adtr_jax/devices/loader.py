"""The training data on the devices: all of it, or the part of an epoch that fits."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Int32

from adtr_jax.devices import hosts, memory
from adtr_jax.devices.checked_array import CheckedArray
from adtr_jax.devices.sharding import AXIS, place_parts

Order = Int32[np.ndarray, "steps b"]
Weight = Float[np.ndarray, "steps b"]


class Shard(NamedTuple):
    """Examples, one per image, of which this process holds its share (`hosts.share`).

    Attributes:
        arrays: this process's `[n, ...]`, in memory or in a file.
        total: number of examples of all processes.
    """

    arrays: Any
    total: int

    @property
    def own(self) -> int:
        """Number of examples of this process."""
        return len(jax.tree.leaves(self.arrays)[0])


class EpochPart(NamedTuple):
    """Some steps of an epoch.

    Attributes:
        examples: sharded over the devices.
        order: indices of every step's images in these examples.
        weight: of the images.
    """

    examples: Any
    order: Order
    weight: Weight


class Loader:
    """Places the examples on the devices: at once if they fit, else a part of an epoch at a time.

    A process's examples are distributed to its devices in equal, contiguous blocks.

    Args:
        limit: bytes that the examples may take on a device; None: as `memory` says.
    """

    def __init__(self, shard: Shard, mesh: Mesh, limit: int | None = None):
        self._shard, self._mesh = shard, mesh
        self._most = -(-shard.total // jax.process_count())  # examples per process, at most
        leaves = jax.tree.leaves(shard.arrays)
        example = sum(int(np.prod(leaf.shape[1:])) * leaf.dtype.itemsize for leaf in leaves)
        if limit is None:
            limit = memory.of_device(mesh)
            if any(isinstance(leaf, CheckedArray) for leaf in leaves):  # read via main memory
                limit = min(limit, memory.of_host())
        limit = hosts.smallest(limit)
        self._fits = limit * mesh.size // jax.process_count() // max(example, 1)
        self._whole = None
        if self._fits >= self._most:
            self._whole = place_parts(self._take(np.arange(shard.own), self._most), mesh)

    def parts(self, order: Order, weight: Weight) -> Iterator[EpochPart]:
        """Yields the steps of an epoch.

        Args:
            order: indices of every step's examples, counted over all processes.
            weight: 1, or 0 for padding.
        """
        if self._whole is not None:
            positions = self._positions(np.arange(self._shard.total), self._most)
            yield EpochPart(self._whole, positions[order], weight)
            return
        steps, batch = order.shape
        at_once = max(1, self._fits // (2 * batch))  # one part is used while the next is read
        pieces = np.array_split(np.arange(steps), -(-steps // at_once))
        room = min(len(pieces[0]) * batch, self._most)

        def read(piece: Int[np.ndarray, "m"]) -> tuple[Any, Order, Weight]:
            needed, place = np.unique(order[piece], return_inverse=True)
            first = hosts.share(self._shard.total).start
            own = needed[needed // self._most == jax.process_index()] - first
            positions = self._positions(needed, room)[place.reshape(order[piece].shape)]
            return self._take(own, room), positions, weight[piece]

        with ThreadPoolExecutor(1) as reader:
            waiting = reader.submit(read, pieces[0])
            for piece in [*pieces[1:], None]:
                examples, positions, weights = waiting.result()
                if piece is not None:
                    waiting = reader.submit(read, piece)
                yield EpochPart(place_parts(examples, self._mesh), positions, weights)

    def _positions(self, needed: Int[np.ndarray, "k"], room: int) -> Int32[np.ndarray, "k"]:
        """Returns where examples go: each process's, in order, to the start of its block."""
        owner = needed // self._most
        rank = np.arange(len(needed)) - np.searchsorted(needed, owner * self._most)
        return (owner * self._block(room) + rank).astype(np.int32)

    def _take(self, own: Int[np.ndarray, "k"], room: int) -> Any:
        """Returns examples of this process, padded to its devices' block for `room`."""
        block = self._block(room)

        def take(array: np.ndarray | CheckedArray) -> np.ndarray:
            if len(own) == len(array) == block:
                return np.asarray(array)
            taken = np.zeros((block, *array.shape[1:]), array.dtype)
            # Without the intermediate copy that indexing would make.
            np.take(array, own, axis=0, out=taken[: len(own)], mode="clip")
            return taken

        return jax.tree.map(take, self._shard.arrays)

    def _block(self, room: int) -> int:
        """Returns the number of examples on a process's devices together, at least `room`."""
        devices = self._mesh.size // jax.process_count()
        return -(-room // devices) * devices


def take_batch(examples: Any, order: Int32[Array, "b"]) -> Any:
    """Returns this device's part of a batch, of examples that are sharded over all devices.

    Every device contributes its examples of the whole batch, zeros for the rest, and the sum is
    scattered: exact, in one collective, wherever the examples are.
    """
    devices = jax.lax.axis_size(AXIS)
    if devices == 1:
        return jax.tree.map(lambda array: array[order], examples)

    def one(array: Array) -> Array:
        here = order // len(array) == jax.lax.axis_index(AXIS)
        taken = array[order % len(array)]
        taken = jnp.where(here.reshape(-1, *[1] * (taken.ndim - 1)), taken, 0)
        return jax.lax.psum_scatter(taken, AXIS, tiled=True).astype(array.dtype)

    return jax.tree.map(one, examples)
