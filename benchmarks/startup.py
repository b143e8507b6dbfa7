"""Time from the start of a process to its first prediction: imports, weights, one image file."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import job
from benchmarks.rows import Row
from benchmarks.sizes import Sizes
from benchmarks.timing import Way, interleaved


def measure(sizes: Sizes) -> Iterator[Row]:
    """Yields three rows: with an empty compilation cache; with one filled by an earlier process;
    and the command, whose cache is filled too, and which also writes a row and a picture.

    PyTorch compiles nothing and is the same in all.
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
            "command": lambda: job.predict_first(folder, cache(folder / "command")),
            "torch": lambda: job.run("torch", "first", folder),
        }
        ways["cached"](), ways["command"]()  # fill the caches
        seconds = interleaved(ways, sizes.long_repeats, warm_up=False)
    torch_values: dict[str, float | str] = {
        "eager": seconds["torch"],
        "compiled": "not run: it compiles first",
    }
    for way, what in (
        ("cold", "start to first prediction, nothing cached"),
        ("cached", "start to first prediction, JAX's compilation cache filled"),
        ("command", "`adtr-jax predict MODEL one.png`, cache filled"),
    ):
        yield Row(what, seconds[way], torch_values)


def cache(folder: Path) -> dict[str, str]:
    """Returns the variables that make JAX cache all compiled programs in a folder."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
