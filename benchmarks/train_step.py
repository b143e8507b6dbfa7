"""ADTR's training step, with dropout: forward, backward and AdamW, on features in memory."""

from collections.abc import Iterator
from functools import partial

import jax
import numpy as np
import torch

from adtr_jax.config import AdtrSettings
from adtr_jax.detectors.detector import Detector
from adtr_jax.features import channels
from benchmarks import torch_pipeline
from benchmarks.jax_pipeline import full_precision, training_epoch, untrained
from benchmarks.rows import Row
from benchmarks.sizes import Sizes
from benchmarks.timing import Way, compare
from benchmarks.torch_adtr import TorchADTR

TARGET = 1.2
STEPS = 2  # in one call, of one compiled scan; an epoch has more


def measure(sizes: Sizes) -> Iterator[Row]:
    """One row for each number of tokens and images."""
    full_precision(sizes)
    for tokens, batch in sizes.train_steps:
        detector = untrained(settings_of(sizes, tokens, batch))
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


def settings_of(sizes: Sizes, tokens: int, batch: int) -> AdtrSettings:
    """The paper's settings with an image of so many tokens."""
    side = round(tokens**0.5)
    size = max(16 * side, 32)
    return AdtrSettings(
        backbone=sizes.backbone,
        image_size=size,
        token_stride=size // side,
        batch_size=batch,
        dtype=sizes.dtype,
    )


def random_features(detector: Detector, batch: int) -> np.ndarray:
    """F `[b h w c]`, of mean 0 and spread 1."""
    side = detector.settings.tokens_per_side
    width = channels(detector.backbone, detector.settings.layers)
    return np.random.default_rng(0).standard_normal((batch, side, side, width), np.float32)


def jax_way(detector: Detector, f: np.ndarray) -> Way:
    """One call trains `STEPS` steps."""
    epoch, state, arguments = training_epoch(detector, f, STEPS)

    def call() -> object:
        nonlocal state
        state, losses = epoch(state, *arguments)
        return jax.block_until_ready((state, losses))[1]

    return call


def torch_way(f: np.ndarray, sizes: Sizes, compile_it: bool = False) -> Way:
    """The same in PyTorch."""
    tokens, width = f.shape[1] * f.shape[2], f.shape[3]
    model = TorchADTR(width, tokens, sizes.settings.dropout).train().to(torch_pipeline.DEVICE)
    if compile_it:
        model.compile(dynamic=False)
    optimiser = torch_pipeline.adamw(model)
    rows = torch.from_numpy(f).permute(0, 3, 1, 2).contiguous().to(torch_pipeline.DEVICE)

    def call() -> object:
        losses = [torch_pipeline.train_step(model, optimiser, rows, sizes) for _ in range(STEPS)]
        return torch_pipeline.finished(torch.stack(losses))

    return call
