"""The memory that cached features may take, and whether a program fits beside them."""

from typing import Any

import jax
import psutil
from jax.sharding import Mesh

from adtr_jax.devices import hosts
from adtr_jax.errors import InputError

SHARE = 0.4  # of the free memory; the rest is for the model, activations and other programs


def of_host() -> int:
    """Returns the bytes of main memory for the cached features of this process."""
    return int(SHARE * psutil.virtual_memory().available)


def of_device(mesh: Mesh) -> int:
    """Returns the bytes for them on each of this process's devices."""
    return int(SHARE * free(mesh))


def free(mesh: Mesh) -> int:
    """Returns the free bytes on each of this process's devices, of which the fullest counts."""
    devices = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    stats = [device.memory_stats() for device in devices]
    if all(stats):
        return min(s["bytes_limit"] - s["bytes_in_use"] for s in stats if s)
    return psutil.virtual_memory().available // len(devices)  # of CPU devices, which share it


def require_room(step: jax.stages.Compiled, batch_size: int, mesh: Mesh) -> None:
    """Raises InputError where a training step needs more than is free, in any process.

    Without this a GPU fails in the first step, and of a CPU's processes the system kills the one
    that has grown. What a step needs is XLA's own plan; nearly all of it grows with the batch.

    Args:
        step: the compiled steps; what they take and return is on the devices already.
        batch_size: of a step, on all devices.
    """
    plan: Any = step.memory_analysis()
    if plan is None:  # a backend that has no plan to show
        return
    needed, room = plan.temp_size_in_bytes, hosts.smallest(free(mesh))
    if needed <= room:
        return
    fits = batch_size * room // needed // mesh.size * mesh.size
    remedy = f"--batch_size={fits}" if fits else "a smaller --image_size"
    raise InputError(
        f"a training step of {batch_size} images needs {needed / 1e9:.1f} GB of "
        f"{'each device' if mesh.size > 1 else 'memory'}, and {room / 1e9:.1f} GB are free: "
        f"take {remedy}"
    )
