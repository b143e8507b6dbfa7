"""Prediction, from image files to score maps and image scores on the host."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.images import write_images
from benchmarks.jax_pipeline import predict
from benchmarks.rows import Row
from benchmarks.same_weights import pair
from benchmarks.sizes import Sizes
from benchmarks.timing import Way, compare
from benchmarks.torch_pipeline import inference_ways, read

TARGETS = {1: 1.3, 16: 1.8}  # by batch


def measure(sizes: Sizes) -> Iterator[Row]:
    """Yields one row per batch size."""
    ours, theirs = pair(sizes)
    with TemporaryDirectory() as folder:
        files = write_images(Path(folder), max(sizes.prediction_batches), sizes.file_size)
        for batch in sizes.prediction_batches:
            part = files[:batch]
            ways: dict[str, Way | str] = {"jax": partial(predict, ours, part)}
            ways |= inference_ways(theirs, partial(read, part, sizes.image_size), sizes)
            what = f"prediction from {sizes.file_size} px PNG files, batch {batch}"
            yield compare(what, ways, sizes.repeats, TARGETS.get(batch))
