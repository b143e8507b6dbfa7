"""The memory that cached features may take."""

import jax
import psutil
from jax.sharding import Mesh

SHARE = 0.4  # of the free memory; the rest is for the model, activations and other programs


def of_host() -> int:
    """Returns the bytes of main memory for the cached features of this process."""
    return int(SHARE * psutil.virtual_memory().available)


def of_device(mesh: Mesh) -> int:
    """Returns the bytes on each of this process's devices, of which the fullest counts."""
    devices = [d for d in mesh.devices if d.process_index == jax.process_index()]
    stats = [device.memory_stats() for device in devices]
    if all(stats):
        return int(SHARE * min(s["bytes_limit"] - s["bytes_in_use"] for s in stats if s))
    return of_host() // len(devices)  # they share the main memory, as CPU devices do
