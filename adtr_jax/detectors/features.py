"""Multi-scale features of the frozen backbone: taps -> resize, concatenate -> [b h w c]."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from adtr_jax.backbones.backbone import Backbone
from adtr_jax.config import AdtrSettings, Settings
from adtr_jax.detectors.resize import resize


def extract_layers(
    backbone: Backbone, pixels: UInt8[Array, "b s s 3"], settings: Settings
) -> tuple[Float[Array, "b _ _ _"], ...]:
    """Returns the chosen layers' feature maps `[b h_l w_l c_l]`, in float32.

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
    """Extracts multi-scale features: the chosen layers, resized to h x w and concatenated in order.

    Args:
        backbone: the frozen network.
        pixels: RGB in 0..255.
        settings: as for `extract_layers`; h = w = `tokens_per_side`.
    """
    side = settings.tokens_per_side
    maps = [resize(f, side, side) for f in extract_layers(backbone, pixels, settings)]
    return jnp.concatenate(maps, axis=-1)


def embed(
    backbone: Backbone, pixels: UInt8[Array, "b s s 3"], settings: Settings
) -> Float[Array, "b c"]:
    """Returns an image's features as one vector: each layer's mean over all positions, in order.

    The arguments are those of `extract_layers`.
    """
    maps = extract_layers(backbone, pixels, settings)
    return jnp.concatenate([jnp.mean(f, axis=(1, 2)) for f in maps], axis=-1)


def layer_shapes(backbone: Backbone, settings: Settings) -> list[tuple[int, ...]]:
    """Returns h_l, w_l and c_l of each map that `extract_layers` returns."""
    size = settings.image_size
    pixels = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
    maps = jax.eval_shape(lambda pixels: extract_layers(backbone, pixels, settings), pixels)
    return [tuple(map.shape[1:]) for map in maps]


def channels(backbone: Backbone, layers: Sequence[int]) -> int:
    """Returns c, the number of channels of the chosen layers together."""
    return sum(backbone.channels[i - 1] for i in layers)
