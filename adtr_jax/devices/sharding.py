"""One mesh axis over all devices of all processes: each computes its part of every batch."""

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from adtr_jax.errors import InputError, one_line

AXIS = "data"
MOST_CORES = 16  # that become devices: each has a copy of the networks

# The platform that is being traced for; None: any. JAX traces and compiles anew when it changes.
platform = jax.make_user_context(default_value=None)


def one_device_a_core() -> None:
    """Makes every CPU core, up to `MOST_CORES`, a JAX device; must be called before JAX is used.

    For functions of single images (`workers`), that is faster by a seventh on two cores than one
    device with both. A number of devices that has already been chosen is kept.
    """
    chosen = jax.config.jax_num_cpu_devices  # type: ignore[attr-defined]
    if chosen != -1 or "device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(RuntimeError):  # JAX is already initialised
        jax.config.update("jax_num_cpu_devices", min(cores or 1, MOST_CORES))


def require_devices() -> None:
    """Initialises JAX; raises InputError where it does not find the devices it was told to use."""
    try:
        jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # without CUDA, the latter says nothing
        said = f" ({one_line(error)[:200]})" if str(error) else ""
        raise InputError(
            f"JAX cannot use JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}"
            f"{said}: install JAX for it, as by pip install 'jax[cuda13]', or "
            "unset the variable"
        ) from None


def device_mesh(count: int | None = None) -> Mesh:
    """Returns a one-axis mesh over the first `count` devices of every process.

    Default: all devices; on a CPU one, whose matrix products use all cores.

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
    """Returns the devices that compute this process's images independently of each other.

    These are its devices in the mesh; on a CPU, all devices (`one_device_a_core`), because images
    in parallel, one per core, are faster than one image on all cores.
    """
    own = [device for device in mesh.devices if device.process_index == jax.process_index()]
    return Mesh(np.array(jax.local_devices(backend="cpu") if on_cpu(mesh) else own), (AXIS,))


def on_cpu(mesh: Mesh) -> bool:
    """Returns whether the mesh is of CPU devices."""
    return mesh.devices.flat[0].platform == "cpu"


def per_device(
    function: Callable, mesh: Mesh, in_specs: tuple, out_specs: Any, donate: tuple[int, ...] = ()
) -> jax.stages.Wrapped:
    """Compiles `function`, written for one device's part of the data, for all devices of the mesh.

    `jax.jit(jax.shard_map(...))`: inside, `jax.lax.psum(x, AXIS)` sums over the devices. The spec
    `replicated` passes the whole array to every device, `split(axis)` its shard along an axis.
    float32 products are computed in float32: by default they would run in TF32 on GPUs and in
    bfloat16 on TPUs. bfloat16 products are not affected.
    """
    kind = mesh.devices.flat[0].platform

    def precise(*arguments: Any) -> Any:
        with jax.default_matmul_precision("highest"), platform(platform.value or kind):
            return function(*arguments)

    mapped = jax.shard_map(precise, mesh=mesh, in_specs=in_specs, out_specs=out_specs)
    return jax.jit(mapped, donate_argnums=donate, compiler_options=compiler_options(kind))


def compiler_options(kind: str) -> dict[str, str | bool]:
    """Returns the XLA options for a kind of device: `cpu`, `gpu` or `tpu`.

    By default XLA's CPU backend would use YNNPACK, if it has it, for products and sums. For
    products that takes up to 1.7 times as long as Eigen, and in jaxlib 0.10.2 sums of more than
    32,768 rows are wrong (https://github.com/jax-ml/jax/issues/39103). It would also use only half
    of AVX-512's vector width, with which a backbone takes a seventh longer. Its GPU backend would
    write, compile and time dozens of Triton kernels for every product, which takes twenty minutes
    of the cores' time before the first step of a training: cuBLAS has its own.
    """
    options = _OPTIONS.get(kind, {})
    return {name: value for name, value in options.items() if _has_option(name, value)}


_OPTIONS: Mapping[str, Mapping[str, str | bool]] = {
    "cpu": {"xla_cpu_experimental_ynn_fusion_type": "", "xla_cpu_prefer_vector_width": "512"},
    "gpu": {"xla_gpu_enable_triton_gemm": False},
}


@functools.cache
def _has_option(name: str, value: str | bool) -> bool:
    """Returns whether this version of XLA has the option."""
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


replicated = PartitionSpec()


def split(axis: int = 0) -> PartitionSpec:
    """Returns the spec of an array that is sharded over the devices along `axis`."""
    return PartitionSpec(*[None] * axis, AXIS)


def place_parts(tree: Any, mesh: Mesh) -> Any:
    """Places every process's own rows on its devices, in equal parts.

    All processes have the same number of rows, a multiple of their devices.
    """
    sharding = NamedSharding(mesh, split())
    return jax.tree.map(lambda a: jax.make_array_from_process_local_data(sharding, a), tree)


def place(tree: Any, mesh: Mesh, spec: PartitionSpec = replicated) -> Any:
    """Places the arrays of a pytree, the same in every process, on the devices of the mesh."""
    sharding = NamedSharding(mesh, spec)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put(leaf: Any) -> Array:
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(put, tree)
