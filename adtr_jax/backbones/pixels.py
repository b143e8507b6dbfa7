"""No network: the image's own pixels as features, for the ablation in the paper's Table 4b."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from adtr_jax.backbones.backbone import Backbone

STRIDES = (2, 4, 8, 16, 32)


class Pixels(Backbone):
    """A backbone without parameters, which returns the normalised pixels.

    Tap i is the image cut into patches of 2^i x 2^i pixels, one position per patch and 3 * 4^i
    channels: row by row, RGB innermost. With `--layers 4 --token_stride=16` a token is its patch of
    768 values and the model reconstructs the image; with other choices, resizing the taps picks
    single patches or blends neighbouring ones.
    """

    channels = tuple(3 * stride**2 for stride in STRIDES)
    centres = tuple((stride - 1) / 2 for stride in STRIDES)

    def taps(
        self, images: Float[Array, "b h w 3"], weight: Float[Array, "b"] | None = None
    ) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Returns the patches; the image is padded by repeating its last rows and columns."""
        del weight  # there is no BatchNorm
        return tuple(_patches(images, stride) for stride in STRIDES)

    def logits(self, x: Float[Array, "b h w c"]) -> Float[Array, "b 0"]:
        """Returns logits of no class."""
        return jnp.zeros((len(x), 0), x.dtype)

    def trim(self, depth: int) -> None:
        """Does nothing: there are no layers."""


def _patches(images: Float[Array, "b h w 3"], side: int) -> Float[Array, "b i j c"]:
    """Rearranges space to depth with blocks of `side` x `side`."""
    for axis in (1, 2):
        length = images.shape[axis]
        if length % side:
            index = np.minimum(np.arange(length + -length % side), length - 1)
            images = jnp.take(images, index, axis=axis)
    b, h, w, _ = images.shape
    blocks = images.reshape(b, h // side, side, w // side, side, 3)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // side, w // side, 3 * side**2)
