"""Bilinear resize with align_corners=True, as the papers' code resizes feature maps and score maps.

`jax.image.resize` samples at half-pixel centres and antialiases when it shrinks: another resize.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def _interpolate(x: Array, axis: int, size: int) -> Array:
    """Resizes one axis to `size` samples: corner onto corner, linear in between."""
    length = x.shape[axis]
    if length == size:
        return x
    # PyTorch's float32 arithmetic: float64 positions would differ from it by up to 1e-5 of a pixel.
    scale = np.float32((length - 1) / (size - 1) if size > 1 else 0)
    position = np.arange(size, dtype=np.float32) * scale
    low = np.minimum(position.astype(np.int32), max(length - 2, 0))
    high = np.minimum(low + 1, length - 1)
    shape = [1] * x.ndim
    shape[axis] = size
    fraction = jnp.asarray((position - low).reshape(shape), x.dtype)
    # Two gathers and a blend, not a matrix product: exact in float32 on every device, where a
    # product would by default be rounded to bfloat16 on TPU and TF32 on GPU.
    a, b = jnp.take(x, low, axis), jnp.take(x, high, axis)
    return a + (b - a) * fraction


def resize(x: Float[Array, "b h w c"], height: int, width: int) -> Float[Array, "b i j c"]:
    """Resizes maps to `height` x `width`, bilinearly with align_corners=True.

    Equals `torch.nn.functional.interpolate(..., mode="bilinear", align_corners=True)`, up and down.
    """
    return _interpolate(_interpolate(x, 1, height), 2, width)
