"""Bilinear resize of feature maps and score maps.

`jax.image.resize` samples at half-pixel centres and antialiases when it shrinks: another resize.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def resize(x: Float[Array, "b h w c"], height: int, width: int) -> Float[Array, "b i j c"]:
    """Resizes maps to `height` x `width`, bilinearly with align_corners=True: corner onto corner.

    Equals `torch.nn.functional.interpolate(..., mode="bilinear", align_corners=True)`, up and down.
    """
    for axis, size in ((1, height), (2, width)):
        if x.shape[axis] != size:
            # PyTorch's float32 arithmetic: float64 would differ from it by up to 1e-5 of a sample.
            scale = np.float32((x.shape[axis] - 1) / (size - 1) if size > 1 else 0)
            x = _sample(x, axis, np.arange(size, dtype=np.float32) * scale)
    return x


def spread(
    x: Float[Array, "b n n c"], size: int, spacing: float, offset: float
) -> Float[Array, "b s s c"]:
    """Raises square maps to `size` x `size` pixels, sample i at the pixel `spacing * i + offset`.

    Linear between the samples, constant beyond the outermost.
    """
    last = x.shape[1] - 1
    position = np.clip((np.arange(size, dtype=np.float32) - offset) / spacing, 0, last)
    return _sample(_sample(x, 1, position), 2, position)


def _sample(x: Array, axis: int, position: np.ndarray) -> Array:
    """Linear interpolation along one axis at fractional indices."""
    length = x.shape[axis]
    low = np.minimum(position.astype(np.int32), max(length - 2, 0))
    high = np.minimum(low + 1, length - 1)
    shape = [1] * x.ndim
    shape[axis] = len(position)
    fraction = jnp.asarray((position - low).reshape(shape), x.dtype)
    # Two gathers and a blend, not a matrix product: exact in float32 on every device, where a
    # product would by default be rounded to bfloat16 on TPU and TF32 on GPU.
    a, b = jnp.take(x, low, axis=axis), jnp.take(x, high, axis=axis)
    return a + (b - a) * fraction
