"""The baseline of Table 4a: "a CNN revised from ResNet" reconstructs the features.

The paper says no more of it. Here it is a convolution and six basic blocks of ResNet (He et al.
2016, "Deep Residual Learning for Image Recognition", Fig. 2) at one resolution and one width,
between the same 1x1 convolutions as the transformer's, with about as many parameters (8.04 M
against 7.87 M at c = 720) and the FFN's dropout: what differs is how the positions are mixed.
LayerNorm over the channels, as in the transformer, takes BatchNorm's place: it needs no running
statistics, and a position's output depends on nothing but the 27 x 27 positions around it.

Letters: `b` batch, `h w` feature-map height and width, `c` backbone channels, `d` the width.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt32

from adtr_jax.nn.convolution import convolution
from adtr_jax.nn.dropout import dropout
from adtr_jax.nn.layers import Dense, LayerNorm


class ConvLayerNorm(nnx.Module):
    """3x3 convolution d -> d, zero-padded and without bias, then LayerNorm over the channels."""

    def __init__(self, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.dtype = dtype
        self.kernel = nnx.Param(nnx.initializers.he_normal()(rngs.params(), (3, 3, width, width)))
        self.norm = LayerNorm(width, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
        kernel = self.kernel[...].astype(self.dtype)
        return self.norm(convolution(x.astype(self.dtype), kernel, stride=1, padding=(1, 1)))


class Block(nnx.Module):
    """ResNet's basic block: two convolutions, residual, ReLU; dropout between them in training."""

    def __init__(self, site: int, width: int, rate: float, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.site, self.rate = site, rate
        self.first = ConvLayerNorm(width, dtype=dtype, rngs=rngs)
        self.second = ConvLayerNorm(width, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w d"], seed: UInt32[Array, "b"] | None
    ) -> Float[Array, "b h w d"]:
        y = nnx.relu(self.first(x))
        if seed is not None:
            y = dropout(y, self.rate, seed, self.site)
        return nnx.relu(x + self.second(y))


class CNN(nnx.Module):
    """Reconstructs feature maps with 3x3 convolutions; 8.04 M parameters at c = 720.

    Args:
        channels: c, the channels of the feature maps, of any height and width.
        width: d, the channels of the blocks.
        blocks: how many there are.
        rate: dropout probability within the blocks, in training only.
        dtype: of the computation; parameters and LayerNorm statistics stay float32.
        rngs: needs a `params` stream.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 256,
        blocks: int = 6,
        rate: float = 0.1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.rate, self.dtype = rate, dtype
        self.project_in = Dense(channels, width, dtype=dtype, rngs=rngs)
        self.stem = ConvLayerNorm(width, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(Block(i, width, rate, dtype=dtype, rngs=rngs) for i in range(blocks))
        self.project_out = Dense(width, channels, dtype=dtype, rngs=rngs)

    def __call__(
        self, features: Float[Array, "b h w c"], seed: UInt32[Array, "b"] | None = None
    ) -> Float[Array, "b h w c"]:
        """Returns the reconstruction f_hat of the features f, in float32 or wider.

        Args:
            features: f.
            seed: one a sample (`dropout.seeds`) in training; None in inference: no dropout.
        """
        if self.rate == 0:
            seed = None
        x = nnx.relu(self.stem(self.project_in(features)))
        for block in self.blocks:
            x = block(x, seed)
        f_hat = self.project_out(x)
        return f_hat.astype(jnp.promote_types(self.dtype, jnp.float32))
