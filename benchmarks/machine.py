"""The machine that the results are of."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def describe() -> str:
    """Returns processor, memory, devices, versions and load average, in one paragraph."""
    import jax

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kinds = sorted({device.device_kind for device in jax.devices()})
    devices = f"{jax.device_count()} x {', '.join(kinds)} ({jax.default_backend()})"
    versions = ", ".join(
        f"{name} {_version(name)}" for name in ("jax", "jaxlib", "flax", "torch", "numpy", "scipy")
    )
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return (
        f"{_processor()}, {cores} cores, {_memory()}; JAX's devices: {devices}; "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"{versions}. Load average at the end: {load}."
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    model = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    name = model[1] if model else platform.processor() or platform.machine()
    flags = re.search(r"^flags\s*: (.*)$", text, re.MULTILINE)
    known = set(flags[1].split()) if flags else set()
    widest = next((x for x in ("amx_tile", "avx512f", "avx2") if x in known), "")
    return f"{name} ({widest})" if widest else name


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on every system
        return "memory unknown"
    return f"{size / 2**30:.0f} GiB"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"
