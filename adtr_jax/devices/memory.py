"""How much memory the cached features may take."""

import jax
import psutil
from jax.sharding import Mesh

SHARE = 0.4  # of what is free; the rest is for the model, its activations and other programs


def of_host() -> int:
    """Bytes that they may take in this process's main memory."""
    return int(SHARE * psutil.virtual_memory().available)


def of_device(mesh: Mesh) -> int:
    """Bytes that they may take on each of this process's devices, the fullest of which counts."""
    devices = [d for d in mesh.devices if d.process_index == jax.process_index()]
    stats = [device.memory_stats() for device in devices]
    if all(stats):
        return int(SHARE * min(s["bytes_limit"] - s["bytes_in_use"] for s in stats if s))
    return of_host() // len(devices)  # they share the main memory, as CPU devices do
