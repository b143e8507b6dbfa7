"""Peak memory of a prediction and of a training, each in a process of its own."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import job
from benchmarks.rows import Row
from benchmarks.sizes import Sizes

TARGET = 1.0


def measure(sizes: Sizes) -> Iterator[Row]:
    """Yields one row per job: the memory of the host, not of an accelerator."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        job.prepare(folder, sizes)
        jobs = {
            "predict": f"prediction, batch {max(sizes.prediction_batches)}",
            "train": f"training with cached features, batch {sizes.batch_size}",
        }
        for each, what in jobs.items():
            ours, theirs = (job.run(library, each, folder) for library in ("jax", "torch"))
            torch_values: dict[str, float | str] = {
                "eager": theirs["peak_mib"],
                "compiled": "not run",
            }
            yield Row(f"peak memory, {what}", ours["peak_mib"], torch_values, TARGET, "MiB")
