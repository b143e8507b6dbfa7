"""The whole training of a small category, from its images in memory to the trained model."""

import copy
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from benchmarks import torch_pipeline
from benchmarks.images import random_images
from benchmarks.jax_pipeline import training
from benchmarks.rows import Row
from benchmarks.same_weights import pair
from benchmarks.sizes import Sizes
from benchmarks.timing import Way, interleaved
from benchmarks.torch_pipeline import DEVICE, TorchPipeline

TARGETS = {"recomputed": 3.0, "cached": 1.2}  # PyTorch's features: in every epoch, or once


def measure(sizes: Sizes) -> Iterator[Row]:
    """Yields two rows, against PyTorch with its features recomputed and cached.

    JAX compiles its programs again in each run, which is timed; PyTorch's are compiled beforehand.
    """
    torch_pipeline.forget_compiled()
    ours, theirs = pair(sizes)
    images = random_images(sizes.images, sizes.image_size)
    ways: dict[str, Way] = {"jax": lambda: training(ours, images)}
    absent: dict[str, str] = {}
    for features in TARGETS:
        cached = features == "cached"
        ways[f"eager {features}"] = torch_training(theirs, images, sizes, cached)
        make = partial(compiled_training, theirs, images, sizes, cached)
        tried = torch_pipeline.compiled(make, sizes)
        if isinstance(tried, str):
            absent[f"compiled {features}"] = tried
        else:
            ways[f"compiled {features}"] = tried
    seconds = interleaved(ways, sizes.long_repeats, warm_up=False)
    values: dict[str, float | str] = {**seconds, **absent}
    for features, target in TARGETS.items():
        torch_values = {way: values[f"{way} {features}"] for way in ("eager", "compiled")}
        what = (
            f"whole training, {sizes.images} images of {sizes.image_size} px, "
            f"{sizes.epochs} epochs; PyTorch's features {features}"
        )
        yield Row(what, seconds["jax"], torch_values, target)


def torch_training(pipeline: TorchPipeline, images: np.ndarray, sizes: Sizes, cached: bool) -> Way:
    """Returns the same in PyTorch, eager; each call starts anew."""
    pixels = torch.from_numpy(images).to(DEVICE)
    features = torch_pipeline.channels_last(pipeline.features)

    def call() -> object:
        parts = features, copy.deepcopy(pipeline.model)
        return torch_pipeline.finished(torch_pipeline.train(parts, pixels, sizes, cached=cached))

    return call


def compiled_training(
    pipeline: TorchPipeline, images: np.ndarray, sizes: Sizes, cached: bool
) -> Way:
    """Returns the same, compiled; all calls train one model, so that nothing is recompiled."""
    pixels = torch.from_numpy(images).to(DEVICE)
    model = copy.deepcopy(pipeline.model)
    model.compile(dynamic=False)
    features = torch_pipeline.channels_last(pipeline.features)
    parts = torch.compile(features, dynamic=False), model

    def call() -> object:
        return torch_pipeline.finished(torch_pipeline.train(parts, pixels, sizes, cached=cached))

    return call
