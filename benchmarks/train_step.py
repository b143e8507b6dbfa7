"""ADTR's training step, with dropout: forward, backward and AdamW, on features in memory."""

from collections.abc import Iterator
from functools import partial

import jax
import numpy as np
import torch

from adtr_jax.detectors.detector import Detector
from benchmarks import torch_pipeline
from benchmarks.jax_pipeline import (
    random_features,
    training_steps,
    untrained,
)
from benchmarks.rows import Row
from benchmarks.sizes import Sizes
from benchmarks.timing import Way, compare
from benchmarks.torch_adtr import TorchADTR

TARGET = 1.2
STEPS = 2  # per call, of one compiled scan; an epoch has more


def measure(sizes: Sizes) -> Iterator[Row]:
    """Yields one row per number of tokens and images."""
    for tokens, batch in sizes.train_steps:
        torch_pipeline.forget_compiled()
        detector = untrained(sizes.step_settings(tokens, batch))
        f = random_features(detector, batch)
        ways: dict[str, Way | str] = {
            "jax": jax_way(detector, f),
            "eager": torch_way(f, sizes),
            "compiled": torch_pipeline.compiled(partial(torch_way, f, sizes, True), sizes),
        }
        calls = compare("", ways, sizes.repeats)
        seconds = {
            way: value if isinstance(value, str) else value / STEPS
            for way, value in calls.torch.items()
        }
        yield Row(f"train step, n = {tokens}, b = {batch}", calls.jax / STEPS, seconds, TARGET)


def jax_way(detector: Detector, f: np.ndarray) -> Way:
    """Returns a call that trains `STEPS` steps."""
    run, state, batches = training_steps(detector, f, STEPS)

    def call() -> object:
        nonlocal state
        state, losses = run(state, *batches)
        return jax.block_until_ready((state, losses))[1]

    return call


def torch_way(f: np.ndarray, sizes: Sizes, compile_it: bool = False) -> Way:
    """Returns the same in PyTorch."""
    tokens, width = f.shape[1] * f.shape[2], f.shape[3]
    model = (
        TorchADTR(width, tokens, sizes.settings.dropout, sizes.depth)
        .train()
        .to(torch_pipeline.DEVICE)
    )
    if compile_it:
        model.compile(dynamic=False)
    optimiser = torch_pipeline.adamw(model)
    rows = torch.from_numpy(f).permute(0, 3, 1, 2).contiguous().to(torch_pipeline.DEVICE)

    def call() -> object:
        losses = [torch_pipeline.train_step(model, optimiser, rows, sizes) for _ in range(STEPS)]
        return torch_pipeline.finished(torch.stack(losses))

    return call
