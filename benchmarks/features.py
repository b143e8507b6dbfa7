"""Forward pass of a backbone against the PyTorch package on this machine, same weights and images.

python -m benchmarks.features [--backbone efficientnet-b4] [--batch 1 8]
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import torch
import tyro
from flax import nnx
from safetensors.numpy import save_file

from adtr_jax import backbones
from adtr_jax.backbones.backbone import Backbone
from adtr_jax.backbones.scaling import SCALINGS
from benchmarks.timing import interleaved
from conversion.mapping import to_flax


@dataclass(frozen=True)
class Features:
    """Print the seconds of one forward pass in JAX and in PyTorch, and their ratio."""

    backbone: Literal[tuple(SCALINGS)] = "efficientnet-b4"  # type: ignore[valid-type]
    """The network, with random weights."""
    batch: tuple[int, ...] = (1, 8)
    """Images in one call."""
    image_size: int = 256
    """Side of the images in pixels."""
    repeats: int = 7
    """How often each is timed, in turn; the median counts."""


def networks(name: str) -> tuple[Backbone, torch.nn.Module]:
    """Ours and the package's, with the same random weights."""
    if "lite" in name:
        from efficientnet_lite_pytorch import EfficientNet as TorchEfficientNet
    else:
        from efficientnet_pytorch import EfficientNet as TorchEfficientNet

    theirs = TorchEfficientNet.from_name(name).eval()
    tensors = {key: value.numpy() for key, value in theirs.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        save_file(to_flax(tensors, name), Path(folder) / f"{name}.safetensors")
        return backbones.load(name, Path(folder)), theirs


def jax_forward(network: Backbone, images: np.ndarray) -> Callable[[], object]:
    """One call computes logits and taps."""
    graph, state = nnx.split(network)
    forward = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    x = jax.numpy.asarray(images)
    return lambda: jax.block_until_ready(forward(state, x))


def torch_forward(network: torch.nn.Module, images: np.ndarray) -> Callable[[], object]:
    """The same in PyTorch, in its own layout and without gradients."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def call() -> object:
        with torch.no_grad():
            return network(x)

    return call


def main(arguments: Features) -> None:
    """Times and prints."""
    side = arguments.image_size
    print(f"{arguments.backbone}, {side} x {side} px, float32, {os.cpu_count()} cores, ", end="")
    print(f"jax {jax.__version__} on {jax.default_backend()}, torch {torch.__version__} on cpu")
    ours, theirs = networks(arguments.backbone)
    print(f"{'batch':>5} {'jax s':>8} {'torch s':>8} {'ratio':>6}")
    for batch in arguments.batch:
        images = np.random.default_rng(0).standard_normal((batch, side, side, 3), np.float32)
        ways = {"jax": jax_forward(ours, images), "torch": torch_forward(theirs, images)}
        seconds = interleaved(ways, arguments.repeats)
        ratio = seconds["torch"] / seconds["jax"]
        print(f"{batch:5} {seconds['jax']:8.3f} {seconds['torch']:8.3f} {ratio:6.2f}")


if __name__ == "__main__":
    main(tyro.cli(Features))
