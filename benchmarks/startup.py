"""Time from the start of a process to its first prediction: imports, weights, one image file."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import job
from benchmarks.rows import Row
from benchmarks.sizes import Sizes
from benchmarks.timing import Way, interleaved


def measure(sizes: Sizes) -> Iterator[Row]:
    """Yields two rows: with an empty compilation cache, and with one filled by an earlier process.

    PyTorch compiles nothing and is the same in both.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        job.prepare(folder, sizes)

        def cold() -> None:
            with TemporaryDirectory() as empty:
                job.run("jax", "first", folder, cache(Path(empty)))

        ways: dict[str, Way] = {
            "cold": cold,
            "cached": lambda: job.run("jax", "first", folder, cache(folder / "cache")),
            "torch": lambda: job.run("torch", "first", folder),
        }
        ways["cached"]()  # fills the cache
        seconds = interleaved(ways, sizes.long_repeats, warm_up=False)
    torch_values: dict[str, float | str] = {
        "eager": seconds["torch"],
        "compiled": "not run: it compiles first",
    }
    for way, what in (("cold", "nothing cached"), ("cached", "JAX's compilation cache filled")):
        yield Row(f"start to first prediction, {what}", seconds[way], torch_values)


def cache(folder: Path) -> dict[str, str]:
    """Returns the variables that make JAX cache all compiled programs in a folder."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
