"""One mesh axis over all devices of all processes: each works on its part of every batch."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array
from tqdm import tqdm

from adtr_jax import hosts
from adtr_jax.errors import InputError

AXIS = "data"


def device_mesh(count: int | None = None) -> Mesh:
    """A one-axis mesh over the first `count` devices of every process (default: all of them).

    Raises:
        InputError: there are not as many, or the processes have different numbers of devices.
    """
    own = len(jax.local_devices())
    if count is not None and not 0 < count <= own:
        raise InputError(f"--devices={count} must be from 1 to {own}: so many there are")
    devices = [
        [device for device in jax.devices() if device.process_index == process]
        for process in range(jax.process_count())
    ]
    if len({len(of_one) for of_one in devices}) > 1:
        numbers = ", ".join(str(len(of_one)) for of_one in devices)
        raise InputError(f"the machines have {numbers} devices: all must have equally many")
    return Mesh(np.array(devices)[:, :count].reshape(-1), (AXIS,))


def own_devices(mesh: Mesh) -> Mesh:
    """The mesh of this process's devices alone."""
    own = [device for device in mesh.devices if device.process_index == jax.process_index()]
    return Mesh(np.array(own), (AXIS,))


def per_device(
    function: Callable, mesh: Mesh, in_specs: tuple, out_specs: Any, donate: tuple[int, ...] = ()
) -> Callable:
    """Compiles `function`, written for one device's part of the data, for all devices of the mesh.

    `jax.jit(jax.shard_map(...))`: inside, `jax.lax.psum(x, AXIS)` sums over the devices.
    A spec of `replicated` hands every device the whole array, `split(axis)` its part along an axis.
    """
    mapped = jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs)
    return jax.jit(mapped, donate_argnums=donate, compiler_options=compiler_options(mesh))


def compiler_options(mesh: Mesh) -> dict[str, str]:
    """What XLA is told for the devices of a mesh.

    Its CPU backend would hand products and sums to YNNPACK, if it has it. For products that takes
    up to 1.7 times as long as Eigen, and in jaxlib 0.10.2 the sums of more than 32,768 rows come
    out wrong (https://github.com/jax-ml/jax/issues/39103). And it would use half of AVX-512's
    vectors, where a processor has them: a backbone takes a seventh longer.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return {name: value for name, value in _ON_CPU.items() if on_cpu and _has_option(name)}


_ON_CPU = {"xla_cpu_experimental_ynn_fusion_type": "", "xla_cpu_prefer_vector_width": "512"}


@functools.cache
def _has_option(name: str) -> bool:
    """Whether this version of XLA knows the option."""
    try:
        jax.jit(lambda: 0, compiler_options={name: _ON_CPU[name]}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


replicated = PartitionSpec()


def split(axis: int = 0) -> PartitionSpec:
    """The spec of an array that is split over the devices along `axis`."""
    return PartitionSpec(*[None] * axis, AXIS)


def varying_as(x: Array, like: Array) -> Array:
    """x, marked as differing between the devices of a mesh if `like` does."""
    return x + jnp.sum(like[:0]).astype(x.dtype)  # the sum of nothing


def place_parts(tree: Any, mesh: Mesh) -> Any:
    """Puts every process's own rows on its devices, in equal parts.

    The processes have equally many rows, a multiple of their devices.
    """
    sharding = NamedSharding(mesh, split())
    return jax.tree.map(lambda a: jax.make_array_from_process_local_data(sharding, a), tree)


def place(tree: Any, mesh: Mesh, spec: PartitionSpec = replicated) -> Any:
    """Puts the arrays of a pytree, the same on every process, on the devices of the mesh."""
    sharding = NamedSharding(mesh, spec)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put(leaf: Any) -> Array:
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(put, tree)


def batch_program(function: Callable, state: Any, mesh: Mesh) -> functools.partial:
    """What `in_batches` runs on this process's devices: compiled once for as long as it is kept.

    Args:
        function: per-device: `(state, part of a batch) -> tuple of arrays`, one row an image.
        state: the same on all devices, where it is put once.
        mesh: all devices.
    """
    own = own_devices(mesh)
    # A list of arrays: the calls take Flax's variables apart in Python, 1 ms for those of B4.
    leaves, structure = jax.tree.flatten(state)

    def on_leaves(leaves: list[Array], part: Any) -> tuple[Array, ...]:
        return function(jax.tree.unflatten(structure, leaves), part)

    program = per_device(on_leaves, own, (replicated, split()), split())
    return functools.partial(program, place(leaves, own))


def in_batches(
    program: functools.partial, rows: Any, mesh: Mesh, *, batch_size: int, label: str
) -> list[np.ndarray]:
    """Applies a program to all rows: a share in every process, batch by batch.

    Args:
        program, batch_size, label: as for `in_own_batches`.
        rows: arrays `[n, ...]`, one row an image, the same in every process.

    Returns:
        The program's outputs for all n images, in every process.
    """
    n = len(jax.tree.leaves(rows)[0])
    part = hosts.share(n)
    own = jax.tree.map(lambda array: array[part], rows)
    outputs = in_own_batches(program, own, mesh, batch_size=batch_size, label=label)
    return [hosts.gather(np.asarray(output), n) for output in outputs]


def in_own_batches(
    program: functools.partial,
    rows: Any,
    mesh: Mesh,
    *,
    batch_size: int,
    label: str,
    out: list[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Applies a program to this process's rows, over its devices.

    Every batch has the same size, so that one program serves all; the last one is filled up with
    its last row and the surplus dropped.

    Args:
        program: of `batch_program`.
        rows: arrays `[n, ...]` on the host, one row an image.
        mesh: all devices.
        batch_size: images a batch over these devices; rounded up to a multiple of their number.
        label: names the progress bar.
        out: arrays for the outputs.

    Returns:
        The program's outputs for all n images, on the host: `out`, if it is given.
    """
    mesh = own_devices(mesh)
    n = len(jax.tree.leaves(rows)[0])
    size = -(-min(batch_size, max(n, 1)) // mesh.size) * mesh.size  # a share may be empty
    outputs = out or []  # allocated once there is a first result to tell their shapes
    pending: list[tuple[slice, tuple]] = []

    def allocate(like: Iterable) -> None:
        if not outputs:
            outputs.extend(np.empty((n, *array.shape[1:]), array.dtype) for array in like)

    def fetch() -> None:
        part, results = pending.pop(0)
        allocate(results)
        for output, result in zip(outputs, results, strict=True):
            output[part] = np.asarray(result)[: part.stop - part.start]
        progress.update(part.stop - part.start)

    with tqdm(total=n, desc=label, unit="image", leave=False, disable=None) as progress:
        for start in range(0, n, size):
            part = slice(start, min(start + size, n))
            index = np.minimum(np.arange(start, start + size), n - 1)
            batch = jax.tree.map(lambda array, index=index: array[index], rows)
            pending.append((part, program(place(batch, mesh, split()))))
            if len(pending) > 1:  # fetched while the devices work on the next batch
                fetch()
        if pending:
            fetch()
    if not n:
        like = jax.tree.map(lambda a: jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype), rows)
        allocate(program.func.eval_shape(*program.args, like))  # type: ignore[attr-defined]
    return outputs
