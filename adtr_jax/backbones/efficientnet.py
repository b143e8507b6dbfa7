"""EfficientNet-B0..B7 and lite0..lite4 (Tan & Le 2019, https://arxiv.org/abs/1905.11946).

Computes what the PyTorch packages efficientnet-pytorch and efficientnet-lite-pytorch compute in
evaluation mode, with their checkpoints' weights, and returns ADTR's feature maps.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from adtr_jax.backbones.backbone import CLASSES, Backbone
from adtr_jax.backbones.scaling import Scaling
from adtr_jax.nn.convolution import ConvBatchNorm
from adtr_jax.nn.cpu import Padding
from adtr_jax.nn.layers import Dense, global_mean, relu6, swish

EPSILON = 1e-3  # BatchNorm's, of the reference networks

# Table 1 of the paper: blocks, kernel size, stride of the first block, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class BlockShape:
    """The resolved sizes of one block."""

    size: int
    stride: int
    expansion: int
    inputs: int
    outputs: int
    padding: Padding


class MBConv(nnx.Module):
    """Mobile inverted bottleneck: expand, depthwise, squeeze-and-excitation, project, residual."""

    def __init__(self, shape: BlockShape, lite: bool, *, rngs: nnx.Rngs):
        activation = relu6 if lite else swish
        width = shape.inputs * shape.expansion
        self.residual = shape.stride == 1 and shape.inputs == shape.outputs
        self.expand = (
            ConvBatchNorm(shape.inputs, width, epsilon=EPSILON, activation=activation, rngs=rngs)
            if shape.expansion != 1
            else None
        )
        self.depthwise = ConvBatchNorm(
            width,
            width,
            shape.size,
            stride=shape.stride,
            padding=shape.padding,
            depthwise=True,
            epsilon=EPSILON,
            activation=activation,
            rngs=rngs,
        )
        # The squeezed width is a quarter of the block's input, not of the expanded one.
        squeezed = max(1, shape.inputs // 4)
        self.squeeze = None if lite else Dense(width, squeezed, rngs=rngs)
        self.excite = None if lite else Dense(squeezed, width, rngs=rngs)
        self.project = ConvBatchNorm(width, shape.outputs, epsilon=EPSILON, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w c"], weight: Float[Array, "b"] | None = None
    ) -> Float[Array, "b h2 w2 c2"]:
        """Returns the raw output, without a final activation; `weight` as in `Backbone.taps`."""
        y = x if self.expand is None else self.expand(x, weight)
        y = self.depthwise(y, weight)
        if self.squeeze is not None and self.excite is not None:
            gate = self.excite(swish(self.squeeze(global_mean(y))))
            y = y * jax.nn.sigmoid(gate)[:, None, None, :]
        y = self.project(y, weight)
        return x + y if self.residual else y


class EfficientNet(Backbone):
    """An EfficientNet; its taps are raw block outputs, without further BatchNorm or activation.

    Attributes:
        tapped: indices of the five tapped blocks: the last before each halving of the resolution,
            and the last. The static padding shifts their `centres` off the stride's half.
    """

    def __init__(self, scaling: Scaling, *, rngs: nnx.Rngs):
        self.lite = scaling.lite
        activation = relu6 if scaling.lite else swish
        stem, shapes, head = _layout(scaling)
        halved = (i for i, shape in enumerate(shapes[1:]) if shape.stride == 2)
        self.tapped = (*halved, len(shapes) - 1)
        self.channels = tuple(shapes[i].outputs for i in self.tapped)
        padding = same_padding(scaling.image_size, 3, 2)
        self.centres = _centres(padding, shapes, self.tapped)
        self.stem = ConvBatchNorm(
            3,
            stem,
            3,
            stride=2,
            padding=padding,
            epsilon=EPSILON,
            activation=activation,
            rngs=rngs,
        )
        self.blocks = nnx.List([MBConv(shape, scaling.lite, rngs=rngs) for shape in shapes])
        self.head = ConvBatchNorm(
            shapes[-1].outputs, head, epsilon=EPSILON, activation=activation, rngs=rngs
        )
        self.classifier = Dense(head, CLASSES, rngs=rngs)

    def taps(
        self, images: Float[Array, "b h w 3"], weight: Float[Array, "b"] | None = None
    ) -> tuple[Float[Array, "b _ _ _"], ...]:
        x = self.stem(images, weight)
        taps = []
        for i, block in enumerate(self.blocks):
            x = block(x, weight)
            if i in self.tapped:
                taps.append(x)
        return tuple(taps)

    def logits(self, x: Float[Array, "b h w c"]) -> Float[Array, "b 1000"]:
        return self.classifier(self.head(x).mean(axis=(1, 2)))

    def trim(self, depth: int) -> None:
        del self.head, self.classifier
        self.blocks = nnx.List(self.blocks[: self.tapped[depth - 1] + 1])

    def normalise(
        self, pixels: UInt8[Array | np.ndarray, "b h w 3"] | Float[Array | np.ndarray, "b h w 3"]
    ) -> Float[Array, "b h w 3"]:
        """As `Backbone.normalise` for B0..B7; (x - 127) / 128 for lite."""
        if self.lite:
            return (jnp.asarray(pixels, jnp.float32) - 127) / 128
        return super().normalise(pixels)


def same_padding(side: int, size: int, stride: int) -> Padding:
    """Returns TensorFlow's SAME padding, before and after, for an input of `side` pixels.

    The reference networks fix it at their native image size and keep it for all others.
    """
    total = max((math.ceil(side / stride) - 1) * stride + size - side, 0)
    return total // 2, total - total // 2


def _centres(stem: Padding, shapes: list[BlockShape], taps: tuple[int, ...]) -> tuple[float, ...]:
    """Returns the pixel at the centre of row 0 of every tap; pixel 0 is the first one's centre."""
    stride, centre, centres = 2, 1.0 - stem[0], []
    for i, shape in enumerate(shapes):
        centre += stride * ((shape.size - 1) / 2 - shape.padding[0])
        stride *= shape.stride
        if i in taps:
            centres.append(centre)
    return tuple(centres)


def _layout(scaling: Scaling) -> tuple[int, list[BlockShape], int]:
    """Returns the stem's channels, all blocks, and the head's channels."""
    lite = scaling.lite
    stem, head = (32, 1280) if lite else (_channels(32, scaling), _channels(1280, scaling))
    shapes: list[BlockShape] = []
    side, inputs = math.ceil(scaling.image_size / 2), stem
    for index, (blocks, size, stage_stride, expansion, outputs) in enumerate(STAGES):
        fixed = lite and index in (0, len(STAGES) - 1)
        for i in range(blocks if fixed else math.ceil(blocks * scaling.depth)):
            stride = stage_stride if i == 0 else 1
            padding = same_padding(side, size, stride)
            width = _channels(outputs, scaling)
            shapes.append(BlockShape(size, stride, expansion, inputs, width, padding))
            side, inputs = math.ceil(side / stride), width
    return stem, shapes, head


def _channels(baseline: int, scaling: Scaling) -> int:
    """Returns scaled channels: the nearest multiple of 8, at least 8 and 90 % of the product."""
    exact = baseline * scaling.width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded
