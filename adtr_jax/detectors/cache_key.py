"""What cached features depend on."""

import hashlib
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from adtr_jax import backbones
from adtr_jax.backbones.backbone import Backbone
from adtr_jax.config import Settings
from adtr_jax.data.lazy import LazyArray, digests

# Of what `features` and `data.synthetic` compute: raise it when cached features are to be dropped.
VERSION = 1


def cache_key(
    backbone: Backbone, images: UInt8[np.ndarray | LazyArray, "n s s 3"], settings: Settings
) -> dict[str, Any]:
    """Returns the `FeatureCache` key of these images' features, as JSON values."""
    black_and_white = np.array([[[[0] * 3, [255] * 3]]], np.uint8)
    return {
        "version": VERSION,
        "backbone": settings.backbone,
        "normalise": np.asarray(backbone.normalise(black_and_white)).tolist(),
        "weights": backbones.digest(backbone),
        "images": hashlib.sha256(" ".join(digests(images)).encode()).hexdigest(),
        "layers": list(settings.layers),
        "dtype": settings.dtype,
        "processes": [jax.process_index(), jax.process_count()],
    }
