"""One mesh axis over all devices of all processes: each works on its part of every batch."""

import contextlib
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from adtr_jax.errors import InputError

AXIS = "data"
MOST_CORES = 16  # that are devices of their own: each has a copy of the networks


def one_device_a_core() -> None:
    """Has JAX take every CPU core for a device, up to `MOST_CORES`; before anything is asked of it.

    For what works on images one by one (`workers`) that is faster by a seventh on two cores than
    one device with both. A number of devices that has been chosen already stays.
    """
    chosen = jax.config.jax_num_cpu_devices  # type: ignore[attr-defined]
    if chosen != -1 or "device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(RuntimeError):  # JAX has begun
        jax.config.update("jax_num_cpu_devices", min(cores or 1, MOST_CORES))


def device_mesh(count: int | None = None) -> Mesh:
    """A one-axis mesh over the first `count` devices of every process.

    By default all of them; of a CPU's, one, whose matrix products take all cores.

    Raises:
        InputError: there are not as many, or the processes have different numbers of devices.
    """
    own = len(jax.local_devices())
    if count is None and jax.local_devices()[0].platform == "cpu":
        count = 1
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


def workers(mesh: Mesh) -> Mesh:
    """The devices that work on this process's images, without a word to each other.

    They are its devices in the mesh; of a CPU's, all that there are (`one_device_a_core`), for
    images side by side, each on a core, are faster than one that the cores share.
    """
    own = [device for device in mesh.devices if device.process_index == jax.process_index()]
    return Mesh(np.array(jax.local_devices(backend="cpu") if on_cpu(mesh) else own), (AXIS,))


def on_cpu(mesh: Mesh) -> bool:
    """Whether its devices are a CPU's."""
    return mesh.devices.flat[0].platform == "cpu"


def per_device(
    function: Callable, mesh: Mesh, in_specs: tuple, out_specs: Any, donate: tuple[int, ...] = ()
) -> Callable:
    """Compiles `function`, written for one device's part of the data, for all devices of the mesh.

    `jax.jit(jax.shard_map(...))`: inside, `jax.lax.psum(x, AXIS)` sums over the devices.
    A spec of `replicated` hands every device the whole array, `split(axis)` its part along an axis.
    Products of float32 are computed in float32: by default they would run in TF32 on GPUs and in
    bfloat16 on TPUs. Who wants that speed computes in bfloat16, which this leaves as it is.
    """

    def precise(*arguments: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*arguments)

    mapped = jax.shard_map(precise, mesh=mesh, in_specs=in_specs, out_specs=out_specs)
    return jax.jit(mapped, donate_argnums=donate, compiler_options=compiler_options(mesh))


def compiler_options(mesh: Mesh) -> dict[str, str]:
    """What XLA is told for the devices of a mesh.

    Its CPU backend would hand products and sums to YNNPACK, if it has it. For products that takes
    up to 1.7 times as long as Eigen, and in jaxlib 0.10.2 the sums of more than 32,768 rows come
    out wrong (https://github.com/jax-ml/jax/issues/39103). And it would use half of AVX-512's
    vectors, where a processor has them: a backbone takes a seventh longer.
    """
    if not on_cpu(mesh):
        return {}
    return {name: value for name, value in _ON_CPU.items() if _has_option(name)}


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
