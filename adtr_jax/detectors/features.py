"""Multi-scale features of the frozen backbone: taps -> resize, concatenate -> [b h w c]."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from adtr_jax.backbones.backbone import Backbone
from adtr_jax.config import AdtrSettings, Settings
from adtr_jax.detectors.resize import resize
from adtr_jax.devices import hosts
from adtr_jax.devices.batches import Batches
from adtr_jax.devices.rows import Share
from adtr_jax.devices.sharding import on_cpu

CONSTANT = 4096  # an array of no more numbers is a constant of the compiled program
VERSION = 1  # of all that is written here or in `data.synthetic`: raise it when features change


def layers(
    backbone: Backbone, pixels: UInt8[Array, "b s s 3"], settings: Settings
) -> tuple[Float[Array, "b _ _ _"], ...]:
    """The chosen layers' maps [b h_l w_l c_l], in float32.

    Args:
        backbone: the frozen network.
        pixels: RGB in 0..255.
        settings: says which `layers` (1..5), and the compute `dtype`.
    """
    taps = backbone.taps(backbone.normalise(pixels).astype(settings.dtype))
    return tuple(taps[i - 1].astype(jnp.float32) for i in settings.layers)


def extract(
    backbone: Backbone, pixels: UInt8[Array, "b s s 3"], settings: AdtrSettings
) -> Float[Array, "b h w c"]:
    """The chosen layers' maps, resized to h x w (align_corners=True), concatenated in order.

    Args:
        backbone: the frozen network.
        pixels: RGB in 0..255.
        settings: as for `layers`, and h = w = `tokens_per_side`.
    """
    side = settings.tokens_per_side
    maps = [resize(f, side, side) for f in layers(backbone, pixels, settings)]
    return jnp.concatenate(maps, axis=-1)


def compute(
    backbone: Backbone,
    images: UInt8[np.ndarray, "n s s 3"],
    settings: AdtrSettings,
    mesh: Mesh,
    out: Float[np.ndarray, "n h w c"] | None = None,
) -> Float[np.ndarray, "n h w c"]:
    """What `extract` makes of these images, on this process's devices; written to `out` if given.

    Once, for nothing before the reconstruction trains.
    """
    return extractor(backbone, settings, mesh).of_own(images, None if out is None else [out])[0]


def extractor(backbone: Backbone, settings: AdtrSettings, mesh: Mesh) -> Batches:
    """What `compute` runs: pixels `[n s s 3]` -> F."""

    def function(*arguments: Any) -> tuple[Array]:
        return (extract(*arguments),)

    return _batches(function, backbone, settings, mesh)


def compute_layers(
    backbone: Backbone,
    images: UInt8[np.ndarray, "n s s 3"],
    settings: Settings,
    mesh: Mesh,
    out: list[np.ndarray] | None = None,
) -> tuple[Float[np.ndarray, "n _ _ _"], ...]:
    """What `layers` makes of these images, as `compute` does."""
    return tuple(_batches(layers, backbone, settings, mesh).of_own(images, out))


def layer_shapes(backbone: Backbone, settings: Settings) -> list[tuple[int, ...]]:
    """h_l, w_l and c_l of the maps that `layers` makes of an image."""
    size = settings.image_size
    pixels = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
    maps = jax.eval_shape(lambda pixels: layers(backbone, pixels, settings), pixels)
    return [tuple(map.shape[1:]) for map in maps]


def _batches(
    function: Callable[..., tuple[Array, ...]], backbone: Backbone, settings: Settings, mesh: Mesh
) -> Batches:
    """A function of the frozen network, of pixels and of the settings, batch by batch."""
    network, kernels = frozen(backbone)

    def of_kernels(kernels: list[Array], pixels: Array) -> tuple[Array, ...]:
        return function(network(kernels), pixels, settings)

    size = images_at_once(settings, mesh)
    return Batches(of_kernels, kernels, mesh, size=size, label="features")


def frozen(backbone: Backbone) -> tuple[Callable[[list[Array]], Backbone], list[Array]]:
    """The network as a function of its larger arrays; and these.

    The small ones, BatchNorm's numbers and biases, are constants of it: a compiled program has done
    what it can with them, and takes 136 arguments instead of B4's 610.
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
    """How many images a device takes in one call outside training.

    A CPU core is at its full speed with one image of 256 x 256 pixels, and what is between the
    layers of more leaves its caches; any other device gets enough to do. As many numbers as an
    image has pixels are in the attention of the square root of so many tokens.
    """
    tokens = settings.tokens_per_side**2 if isinstance(settings, AdtrSettings) else 0
    pixels = 2**16 if on_cpu(mesh) else 2**22
    return max(1, pixels // max(settings.image_size, tokens) ** 2)


def identity(
    backbone: Backbone, images: UInt8[np.ndarray, "n s s 3"], settings: Settings
) -> dict[str, Any]:
    """What the features of these images depend on, as JSON values: the key of a `FeatureCache`."""
    black_and_white = np.array([[[[0] * 3, [255] * 3]]], np.uint8)
    weights = hashlib.sha256()
    for leaf in jax.tree.leaves(nnx.state(backbone)):
        weights.update(np.asarray(leaf).tobytes())
    return {
        "version": VERSION,
        "backbone": settings.backbone,
        "normalise": np.asarray(backbone.normalise(black_and_white)).tolist(),
        "weights": weights.hexdigest(),
        "images": hashlib.sha256(images.tobytes()).hexdigest(),
        "layers": list(settings.layers),
        "dtype": settings.dtype,
        "processes": [jax.process_index(), jax.process_count()],
    }


def token_pixels(backbone: Backbone, settings: AdtrSettings) -> tuple[float, float]:
    """Where the tokens are in the image: token i at the pixel `spacing * i + offset`.

    The resize with align_corners=True takes each layer at other places; the mean over the channels
    of the chosen layers counts.

    Returns:
        Spacing and offset in pixels.
    """
    size, last = settings.image_size, settings.tokens_per_side - 1
    chosen = [i - 1 for i in settings.layers]
    weights = [backbone.channels[i] for i in chosen]
    spacings = [2 ** (i + 1) * (-(-size // 2 ** (i + 1)) - 1) / max(last, 1) for i in chosen]
    spacing = float(np.average(spacings, weights=weights))
    return spacing, float(np.average([backbone.centres[i] for i in chosen], weights=weights))


Features = TypeVar("Features", Float[Array, "... c"], Float[np.ndarray, "... c"])


class Statistics(NamedTuple):
    """Mean and spread of every feature channel over the normal training images."""

    mean: Float[np.ndarray, "c"]
    std: Float[np.ndarray, "c"]

    @classmethod
    def identity(cls, channels: int) -> "Statistics":
        """Mean 0 and standard deviation 1: `standardise` changes nothing."""
        return cls(np.zeros(channels, np.float32), np.ones(channels, np.float32))

    def standardise(self, features: Features) -> Features:
        """Brings every channel to mean 0 and standard deviation 1 on the training images."""
        return (features - self.mean) / self.std


def statistics(features: Share) -> Statistics:
    """The statistics of the training features `[n h w c]`, the same in every process.

    A backbone's channels differ in spread by more than a factor of ten, so that a few of them
    dominate the raw loss and the raw score.
    """
    own = [
        (f.mean(axis=(0, 1), dtype=np.float64), f.var(axis=(0, 1), dtype=np.float64))
        for f in features.arrays
    ]
    channels = features.arrays.shape[-1]
    images = hosts.gather(np.array(own).reshape(len(own), 2, channels), features.total)
    mean = images[:, 0].mean(axis=0)
    # The variance within the images, and that of their means.
    std = np.sqrt(images[:, 1].mean(axis=0) + images[:, 0].var(axis=0))
    return Statistics(
        mean.astype(np.float32), np.where(std > 1e-6 * std.max(), std, 1.0).astype(np.float32)
    )


def channels(backbone: Backbone, layers: Sequence[int]) -> int:
    """c, the channels of the chosen layers together."""
    return sum(backbone.channels[i - 1] for i in layers)
