"""ResNet-18, ResNet-34 and Wide-ResNet-50-2, whose taps are the stem and the four layer groups.

He et al. 2016, https://arxiv.org/abs/1512.03385; Zagoruyko & Komodakis 2016,
https://arxiv.org/abs/1605.07146. Computes what torchvision's networks compute in evaluation mode,
with their checkpoints' weights.
"""

import jax
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from adtr_jax.backbones.backbone import CLASSES, Backbone
from adtr_jax.backbones.scaling import Layout
from adtr_jax.nn.convolution import ConvBatchNorm
from adtr_jax.nn.layers import Dense

EPSILON = 1e-5  # BatchNorm's, of the reference networks
STEM = 64  # channels; the groups' basic blocks have 64, 128, 256 and 512
EXPANSION = 4  # a bottleneck block returns four times the channels of a basic one


class Block(nnx.Module):
    """Residual block: relu(convolutions(x) + shortcut(x)).

    A basic block has two 3x3 convolutions. A bottleneck block has 1x1, 3x3 and 1x1, with the stride
    on the 3x3 convolution as in torchvision, unlike the paper.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, bottleneck: int | None, *, rngs: nnx.Rngs
    ):
        # (inputs, outputs, kernel size, stride); padding keeps a 3x3 kernel on its sample's centre.
        sizes = (
            ((inputs, outputs, 3, stride), (outputs, outputs, 3, 1))
            if bottleneck is None
            else (
                (inputs, bottleneck, 1, 1),
                (bottleneck, bottleneck, 3, stride),
                (bottleneck, outputs, 1, 1),
            )
        )
        self.convolutions = nnx.List(
            ConvBatchNorm(
                before,
                after,
                size,
                stride=step,
                padding=(size // 2, size // 2),
                epsilon=EPSILON,
                activation=jax.nn.relu if i < len(sizes) - 1 else None,
                rngs=rngs,
            )
            for i, (before, after, size, step) in enumerate(sizes)
        )
        self.shortcut = (
            ConvBatchNorm(inputs, outputs, stride=stride, epsilon=EPSILON, rngs=rngs)
            if stride != 1 or inputs != outputs
            else None
        )

    def __call__(
        self, x: Float[Array, "b h w c"], weight: Float[Array, "b"] | None = None
    ) -> Float[Array, "b h2 w2 c2"]:
        """Returns the activated sum; `weight` as in `Backbone.taps`."""
        y = x
        for convolution in self.convolutions:
            y = convolution(y, weight)
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x, weight)))


class ResNet(Backbone):
    """A ResNet; every tap is the output of a ReLU.

    The taps are the stem before its max pooling, and the four groups. Every kernel is centred on a
    sample of its input, so the first sample of every tap is centred on pixel 0.
    """

    def __init__(self, layout: Layout, *, rngs: nnx.Rngs):
        expansion = 1 if layout.bottleneck is None else EXPANSION
        self.channels = (STEM, *(STEM * 2**i * expansion for i in range(4)))
        self.centres = (0.0,) * len(self.channels)
        self.stem = ConvBatchNorm(
            3,
            STEM,
            7,
            stride=2,
            padding=(3, 3),
            epsilon=EPSILON,
            activation=jax.nn.relu,
            rngs=rngs,
        )
        self.groups = nnx.List(self._group(i, layout, rngs) for i in range(4))
        self.classifier = Dense(self.channels[-1], CLASSES, rngs=rngs)

    def taps(
        self, images: Float[Array, "b h w 3"], weight: Float[Array, "b"] | None = None
    ) -> tuple[Float[Array, "b _ _ _"], ...]:
        x = self.stem(images, weight)
        taps = [x]
        x = max_pool(x)
        for group in self.groups:
            for block in group:
                x = block(x, weight)
            taps.append(x)
        return tuple(taps)

    def logits(self, x: Float[Array, "b h w c"]) -> Float[Array, "b 1000"]:
        return self.classifier(x.mean(axis=(1, 2)))

    def trim(self, depth: int) -> None:
        del self.classifier
        self.groups = nnx.List(self.groups[: depth - 1])

    def _group(self, i: int, layout: Layout, rngs: nnx.Rngs) -> nnx.List:
        """Returns group i, 0 to 3, whose first block halves the sides if i > 0."""
        inputs, outputs = self.channels[i : i + 2]
        bottleneck = None if layout.bottleneck is None else layout.bottleneck * 2**i
        first = Block(inputs, outputs, 1 if i == 0 else 2, bottleneck, rngs=rngs)
        more = range(1, layout.blocks[i])
        return nnx.List([first, *(Block(outputs, outputs, 1, bottleneck, rngs=rngs) for _ in more)])


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Returns the maxima of 3 x 3 windows with stride 2, padded by 1 with -inf.

    Rows, then columns, each in three dimensions: fewer comparisons, and ONNX can say it.
    """
    b, h, w, c = x.shape
    x = _max_pool_1d(x.reshape(b * h, w, c)).reshape(b, h, -1)
    x = _max_pool_1d(x)
    return x.reshape(b, x.shape[1], -1, c)


def _max_pool_1d(x: Float[Array, "b n c"]) -> Float[Array, "b n2 c"]:
    least = np.array(-np.inf, x.dtype)  # a constant, otherwise JAX cannot differentiate
    return lax.reduce_window(x, least, lax.max, (1, 3, 1), (1, 2, 1), ((0, 0), (1, 1), (0, 0)))
