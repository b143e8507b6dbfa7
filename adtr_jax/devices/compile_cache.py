"""Compiled programs, kept in the user's cache folder from one process to the next."""

import contextlib
import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import jax
from platformdirs import user_cache_path

LIMIT = 2**30  # bytes; the programs that were not used for longest go first


def keep_compiled_programs() -> None:
    """Turns on JAX's persistent compilation cache, unless the user has chosen one, or none.

    XLA's CPU programs are not portable between processors, so each kind of processor has a folder
    of its own. Where the folder cannot be written, programs are compiled as ever. Several processes
    may use it at a time.
    """
    config: Any = jax.config  # mypy does not know its options
    if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
        return
    folder = user_cache_path("adtr_jax") / "programs" / processor()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            config.update("jax_compilation_cache_dir", str(folder))
            config.update("jax_compilation_cache_max_size", LIMIT)
            config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Returns a name for this kind of processor: architecture, and a hash of its features."""
    features = platform.processor()
    with contextlib.suppress(OSError):
        lines = cpuinfo.read_text().splitlines()
        kept = ("model name", "flags", "Features", "CPU part")
        features = "\n".join(sorted({line for line in lines if line.startswith(kept)})) or features
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"
