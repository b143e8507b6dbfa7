"""The frozen network's features: pixels in memory -> F, five taps resized and concatenated."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from adtr_jax.detectors.detector import Detector
from benchmarks.images import random_images
from benchmarks.jax_pipeline import extractor
from benchmarks.rows import Row
from benchmarks.same_weights import pair
from benchmarks.sizes import Sizes
from benchmarks.timing import Way, compare
from benchmarks.torch_pipeline import DEVICE, inference_ways

TARGET = 1.8


def measure(sizes: Sizes) -> Iterator[Row]:
    """Yields one row per batch size."""
    ours, theirs = pair(sizes)
    for batch in sizes.feature_batches:
        images = random_images(batch, sizes.image_size)
        pixels = torch.from_numpy(images).to(DEVICE)
        ways: dict[str, Way | str] = {"jax": jax_way(ours, images)}
        ways |= inference_ways(theirs.features, partial(torch.as_tensor, pixels), sizes)
        what = f"features, {sizes.backbone}, {sizes.image_size} px, batch {batch}"
        yield compare(what, ways, sizes.repeats, TARGET)


def jax_way(detector: Detector, images: np.ndarray) -> Way:
    """Returns a call that computes F as before a training."""
    return partial(extractor(detector).compute_own, images)
