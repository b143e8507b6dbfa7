"""Functions of images, computed batch by batch on all devices of every process."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array
from tqdm.auto import tqdm

from adtr_jax.devices import hosts
from adtr_jax.devices.read_ahead import read_ahead
from adtr_jax.devices.sharding import AXIS, on_cpu, per_device, place, replicated, split, workers

FEW = 64  # images that have no progress bar: predictions are made in such chunks


class BatchedFunction:
    """A function of images, compiled once, that is applied batch by batch.

    All batches have the same size, so that one program serves all; the last one is padded with its
    last row and the surplus dropped. A single image on a CPU gets all its cores.

    Args:
        function: per-device: `(state, part of a batch) -> tuple of arrays`, one row per image.
        state: placed once, the same on all devices.
        mesh: the devices that are trained on; those of `workers` compute.
        size: images per device and call.
        label: of the progress bar.
    """

    def __init__(
        self,
        function: Callable[[Any, Any], tuple[Array, ...]],
        state: Any,
        mesh: Mesh,
        *,
        size: int,
        label: str,
    ):
        # A list of arrays: calls would flatten Flax's variables in Python, 1 ms for those of B4.
        self._leaves, structure = jax.tree.flatten(state)
        self._function = lambda leaves, part: function(jax.tree.unflatten(structure, leaves), part)
        self._mesh, self._size, self._label = workers(mesh), size, label
        self._programs: dict[Mesh, functools.partial] = {}
        self._sizes: dict[Mesh, int] = {}  # of the batches computed so far

    def program(self, mesh: Mesh) -> functools.partial:
        """Returns the compiled program of a mesh: a batch on its devices -> outputs there."""
        if mesh not in self._programs:
            program = per_device(self._function, mesh, (replicated, split()), split())
            self._programs[mesh] = functools.partial(program, place(self._leaves, mesh))
        return self._programs[mesh]

    def compute_all(self, rows: Any) -> list[np.ndarray]:
        """Computes the outputs for all rows `[n, ...]`, one row per image, in every process.

        The rows are the same in every process, which computes its share.
        """
        n = len(jax.tree.leaves(rows)[0])
        part = hosts.share(n)
        own = self.compute_own(jax.tree.map(lambda array: array[part], rows))
        return [hosts.gather(np.asarray(output), n) for output in own]

    @property
    def batch(self) -> int:
        """The rows that the devices take together at once, where there are enough."""
        return self._mesh.size * self._size

    def _batch(self, n: int) -> tuple[Mesh, int]:
        """Returns the devices for n rows, and how many rows they take together at once.

        A program that is compiled already serves: nothing is compiled for an image that comes
        after a batch.
        """
        mesh, single = self._mesh, Mesh(self._mesh.devices[:1], (AXIS,))
        if n == 1 and on_cpu(mesh) and (single in self._programs or mesh not in self._programs):
            mesh = single
        size = mesh.size * max(1, min(self._size, -(-n // mesh.size)))
        self._sizes[mesh] = max(size, self._sizes.get(mesh, 0))
        return mesh, self._sizes[mesh]

    def compute_own(self, rows: Any, out: list[np.ndarray] | None = None) -> list[np.ndarray]:
        """Computes the outputs for this process's rows `[n, ...]`, one row per image, on the host.

        They are written into the arrays `out`, if given.
        """
        n = len(jax.tree.leaves(rows)[0])
        outputs = out or []  # allocated when the first result shows their shapes

        def allocate(like: Iterable) -> None:
            if not outputs:
                outputs.extend(np.empty((n, *array.shape[1:]), array.dtype) for array in like)

        for part, results in self.batches(rows):
            allocate(results)
            for output, result in zip(outputs, results, strict=True):
                output[part] = result
        if not n:  # a share may be empty
            mesh, size = self._batch(n)
            like = jax.tree.map(lambda a: jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype), rows)
            program = self.program(mesh)
            allocate(program.func.eval_shape(*program.args, like))  # type: ignore[attr-defined]
        return outputs

    def batches(self, rows: Any) -> Iterator[tuple[slice, list[np.ndarray]]]:
        """Yields the outputs for this process's rows, batch by batch, and which rows they are of.

        Rows may be lazy (`data.lazy`): while the devices compute, the next batch is decoded.
        """
        n = len(jax.tree.leaves(rows)[0])
        mesh, size = self._batch(n)
        pending: list[tuple[slice, tuple]] = []

        def read(start: int) -> Any:
            index = np.minimum(np.arange(start, start + size), n - 1)
            return jax.tree.map(lambda array: np.asarray(array[index]), rows)

        def fetched() -> tuple[slice, list[np.ndarray]]:
            part, results = pending.pop(0)
            progress.update(part.stop - part.start)
            return part, [np.asarray(result)[: part.stop - part.start] for result in results]

        few = n <= FEW or None  # None: where no one looks at it
        with tqdm(total=n, desc=self._label, unit="image", leave=False, disable=few) as progress:
            for start, batch in read_ahead(read, range(0, n, size)):
                part = slice(start, min(start + size, n))
                pending.append((part, self.program(mesh)(place(batch, mesh, split()))))
                if len(pending) > 1:  # fetched while the devices compute the next batch
                    yield fetched()
            if pending:
                yield fetched()
