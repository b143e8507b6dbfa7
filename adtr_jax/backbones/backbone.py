"""The interface of all backbones: ImageNet networks with logits and five taps."""

import abc

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

CLASSES = 1000
# ImageNet's mean and standard deviation, RGB on [0, 1].
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(nnx.Module):
    """An ImageNet network.

    Attributes:
        channels: of the five taps, whose strides are 2, 4, 8, 16 and 32.
        centres: for every tap, the pixel at the centre of the receptive field of its first row and
            column; the next are one stride further. Pixel 0 is the first pixel's centre.
    """

    channels: tuple[int, ...]
    centres: tuple[float, ...]

    @abc.abstractmethod
    def taps(
        self, images: Float[Array, "b h w 3"], weight: Float[Array, "b"] | None = None
    ) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Returns five feature maps [b, h/s, w/s, channels[i]] at strides s = 2, 4, 8, 16, 32.

        Sides that s does not divide are rounded up. A trimmed network has fewer taps.

        Args:
            images: RGB as `normalise` returns it, of any size from 32 x 32.
            weight: in training, each image's weight in BatchNorm's statistics (see
                `ConvBatchNorm`); None uses the running ones.
        """

    @abc.abstractmethod
    def logits(self, x: Float[Array, "b h w c"]) -> Float[Array, "b classes"]:
        """Returns the ImageNet logits, given the last tap."""

    @abc.abstractmethod
    def trim(self, depth: int) -> None:
        """Removes all layers after the first `depth` taps, including those of the logits."""

    def __call__(
        self, images: Float[Array, "b h w 3"]
    ) -> tuple[Float[Array, "b classes"], tuple[Float[Array, "b _ _ _"], ...]]:
        """Returns logits and taps of normalised images, in the images' dtype.

        Under `jax.jit`, logits that the caller drops cost nothing.
        """
        taps = self.taps(images)
        return self.logits(taps[-1]), taps

    def normalise(
        self, pixels: UInt8[Array | np.ndarray, "b h w 3"] | Float[Array | np.ndarray, "b h w 3"]
    ) -> Float[Array, "b h w 3"]:
        """Converts RGB values in 0..255 to float32 images as the checkpoint was trained on.

        By ImageNet's mean and standard deviation on [0, 1], unless a network overrides it.
        """
        return (jnp.asarray(pixels, jnp.float32) / 255 - jnp.array(MEAN)) / jnp.array(STD)
