"""Features of many images, batch by batch, on the devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from adtr_jax.backbones.backbone import Backbone
from adtr_jax.config import AdtrSettings, Settings
from adtr_jax.data.lazy import LazyArray
from adtr_jax.detectors import features
from adtr_jax.devices.batched_function import BatchedFunction
from adtr_jax.devices.sharding import on_cpu

CONSTANT = 4096  # an array of at most so many elements is a constant of the compiled program
A_TOKEN = 64  # 17 KB with c = 720 and d = 256; EfficientNet-B4 takes 290 bytes a pixel


def compute(
    backbone: Backbone,
    images: UInt8[np.ndarray | LazyArray, "n s s 3"],
    settings: AdtrSettings,
    mesh: Mesh,
) -> Float[np.ndarray, "n h w c"]:
    """Extracts the features of this process's images (`features.extract`)."""
    return extractor(backbone, settings, mesh).compute_own(images)[0]


def embeddings(
    backbone: Backbone,
    images: UInt8[np.ndarray | LazyArray, "n s s 3"],
    settings: Settings,
    mesh: Mesh,
) -> Float[np.ndarray, "n c"]:
    """Embeds images (`features.embed`), in every process."""

    def function(*arguments: Any) -> tuple[Array]:
        return (features.embed(*arguments),)

    return _batched(function, backbone, settings, mesh).compute_all(images)[0]


def extractor(backbone: Backbone, settings: AdtrSettings, mesh: Mesh) -> BatchedFunction:
    """Returns the program that `compute` runs: pixels `[n s s 3]` -> F; compiled once."""

    def function(*arguments: Any) -> tuple[Array]:
        return (features.extract(*arguments),)

    return _batched(function, backbone, settings, mesh)


def layers_extractor(backbone: Backbone, settings: Settings, mesh: Mesh) -> BatchedFunction:
    """As `extractor`, for the layers' maps as they are (`features.extract_layers`)."""
    return _batched(features.extract_layers, backbone, settings, mesh)


def _batched(
    function: Callable[..., tuple[Array, ...]], backbone: Backbone, settings: Settings, mesh: Mesh
) -> BatchedFunction:
    """Returns `function(backbone, pixels, settings)` as a function of pixels, batch by batch."""
    network, kernels = frozen(backbone)

    def of_kernels(kernels: list[Array], pixels: Array) -> tuple[Array, ...]:
        return function(network(kernels), pixels, settings)

    size = images_at_once(settings, mesh)
    return BatchedFunction(of_kernels, kernels, mesh, size=size, label="features")


def frozen(backbone: Backbone) -> tuple[Callable[[list[Array]], Backbone], list[Array]]:
    """Splits a network into a function of its large arrays, and these.

    The small ones, BatchNorm's and the biases, become constants of the compiled program: XLA folds
    them, and the program takes 136 arguments instead of EfficientNet-B4's 610.
    """
    graph, state = nnx.split(backbone)
    leaves, structure = jax.tree.flatten(state)
    constants = [np.asarray(leaf) if leaf.size <= CONSTANT else None for leaf in leaves]

    def network(kernels: list[Array]) -> Backbone:
        rest = iter(kernels)
        values = [next(rest) if small is None else jnp.asarray(small) for small in constants]
        return nnx.merge(graph, jax.tree.unflatten(structure, values))

    return network, [leaf for leaf in leaves if leaf.size > CONSTANT]


def images_at_once(settings: Settings, mesh: Mesh) -> int:
    """Returns how many images a device takes in one call outside training.

    A CPU core is at its full speed with one image of 256 x 256 pixels, and the activations of more
    leave its caches; any other device gets enough to do. A token takes as much memory as `A_TOKEN`
    pixels do in the backbone.
    """
    tokens = settings.tokens_per_side**2 if isinstance(settings, AdtrSettings) else 0
    pixels = 2**16 if on_cpu(mesh) else 2**22
    return max(1, pixels // max(settings.image_size**2, A_TOKEN * tokens))
