"""ADTR (You et al., Section 3.1 and Appendix A): a transformer with a learned query embedding.

With it, the two transformers of the ablation in Table 4a, without attention and without query; and
what UniAD changes for a model of many categories (You et al., "A Unified Model for Multi-class
Anomaly Detection", 2022): a query in every layer, and attention that does not see its neighbours.

Letters: `b` batch, `h w` feature-map height and width, `n = h*w` tokens, `c` backbone channels,
`d` transformer width.
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt32

from adtr_jax.nn import cpu, initial
from adtr_jax.nn.attention import ATTENDED, Attention, Neighbours, are_many
from adtr_jax.nn.dropout import at_site, dropout
from adtr_jax.nn.layers import Dense, LayerNorm


class FeedForward(nnx.Module):
    """Appendix A's table: d -> 4d, ReLU, d."""

    def __init__(self, width: int, hidden: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.hidden = Dense(width, hidden, dtype=dtype, rngs=rngs)
        self.out = Dense(hidden, width, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b n d"], rate: float, seed: UInt32[Array, "b"] | None, site: int
    ) -> Float[Array, "b n d"]:
        hidden = nnx.relu(self.hidden(x))
        if seed is not None:
            hidden = dropout(hidden, rate, seed, site)
        return self.out(hidden)


class Concatenation(nnx.Module):
    """Stands in for an attention layer in Table 4a's "w/o Attn": concatenation, then projection.

    Section 4.4 says no more than that. Here every position's query and value are concatenated and
    projected, 2d -> d: in self-attention's place x + position with x, in cross-attention's place
    the decoder's token with the encoder's of the same position. No position sees another. Keys
    are left out, for they differ from the values by the position embedding alone, and there are no
    attention weights to drop.
    """

    def __init__(self, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.project = Dense(2 * width, width, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        q: Float[Array, "b n d"],
        k: Float[Array, "b n d"],
        v: Float[Array, "b n d"],
        *,
        rate: float,
        seed: UInt32[Array, "b"] | None,
        site: int,
    ) -> Float[Array, "b n d"]:
        """Takes what `Attention` takes, and uses `q` and `v`."""
        return self.project(jnp.concatenate([q, v], axis=-1))


@dataclass(frozen=True)
class Sizes:
    """What the layers of a transformer have in common.

    Attributes:
        width: d, the channels of a token.
        heads: of the attention, which divide the width; None: there is no attention.
        neighbours: to which the attention is blind; None: it sees all.
        hidden: channels between the two dense layers of an FFN.
        rate: dropout probability.
        dtype: of the computation.
    """

    width: int
    heads: int | None
    neighbours: Neighbours | None
    hidden: int
    rate: float
    dtype: DTypeLike

    def attention(self, rngs: nnx.Rngs) -> Attention | Concatenation:
        """Returns an attention layer, or what stands in for it."""
        if self.heads is None:
            return Concatenation(self.width, dtype=self.dtype, rngs=rngs)
        blind = self.neighbours
        return Attention(self.width, self.heads, neighbours=blind, dtype=self.dtype, rngs=rngs)

    def norm(self) -> LayerNorm:
        """Returns a LayerNorm."""
        return LayerNorm(self.width, dtype=self.dtype)

    def ffn(self, rngs: nnx.Rngs) -> FeedForward:
        """Returns an FFN."""
        return FeedForward(self.width, self.hidden, dtype=self.dtype, rngs=rngs)


class EncoderLayer(nnx.Module):
    """Self-attention and FFN, each followed by residual and LayerNorm (post-norm)."""

    def __init__(self, site: int, sizes: Sizes, *, rngs: nnx.Rngs):
        self.site, self.rate = site, sizes.rate
        self.attention = sizes.attention(rngs)
        self.attention_norm = sizes.norm()
        self.ffn = sizes.ffn(rngs)
        self.ffn_norm = sizes.norm()

    def __call__(
        self,
        x: Float[Array, "b n d"],
        position: Float[Array, "n d"],
        seed: UInt32[Array, "b"] | None,
    ) -> Float[Array, "b n d"]:
        q = x + position
        x = x + self.attention(q, q, x, rate=self.rate, seed=seed, site=self.site)
        x = self.attention_norm(x)
        return self.ffn_norm(x + self.ffn(x, self.rate, seed, self.site + 1))


class DecoderLayer(nnx.Module):
    """Self-attention, cross-attention to the encoder's output and FFN (post-norm)."""

    def __init__(self, site: int, sizes: Sizes, *, rngs: nnx.Rngs):
        self.site, self.rate = site, sizes.rate
        self.attention = sizes.attention(rngs)
        self.attention_norm = sizes.norm()
        self.cross_attention = sizes.attention(rngs)
        self.cross_attention_norm = sizes.norm()
        self.ffn = sizes.ffn(rngs)
        self.ffn_norm = sizes.norm()

    def __call__(
        self,
        x: Float[Array, "b n d"],
        encoded: Float[Array, "m n d"],
        position: Float[Array, "n d"],
        seed: UInt32[Array, "m"] | None,
    ) -> Float[Array, "m n d"]:
        q = x + position
        x = x + self.attention(q, q, x, rate=self.rate, seed=seed, site=self.site)
        x = self.attention_norm(x)
        # Without dropout the first layer's self-attention sees the query embedding alone, the same
        # for every image: it is computed once (b = 1) and shared from here on.
        x = jnp.broadcast_to(x, encoded.shape)
        return self.crossed(x, encoded, position, seed)

    def crossed(
        self,
        x: Float[Array, "m n d"],
        other: Float[Array, "m n d"],
        position: Float[Array, "n d"],
        seed: UInt32[Array, "m"] | None,
    ) -> Float[Array, "m n d"]:
        """Cross-attention to `other`, and FFN."""
        attended = self.cross_attention(
            x + position, other + position, other, rate=self.rate, seed=seed, site=self.site + 1
        )
        x = self.cross_attention_norm(x + attended)
        return self.ffn_norm(x + self.ffn(x, self.rate, seed, self.site + 2))


class LayerwiseQueryLayer(DecoderLayer):
    """UniAD's decoder layer: its own query looks at the encoder's output, then at the layer before.

    Where the query enters once, later layers can forget it, and copy what the encoder saw.
    """

    def __init__(self, site: int, tokens: int, sizes: Sizes, *, rngs: nnx.Rngs):
        super().__init__(site, sizes, rngs=rngs)
        self.query = embedding(tokens, sizes.width, rngs)

    def __call__(
        self,
        x: Float[Array, "b n d"],
        encoded: Float[Array, "b n d"],
        position: Float[Array, "n d"],
        seed: UInt32[Array, "b"] | None,
    ) -> Float[Array, "b n d"]:
        query = jnp.broadcast_to(self.query[...].astype(x.dtype), x.shape)
        q, k = query + position, encoded + position
        attended = self.attention(q, k, encoded, rate=self.rate, seed=seed, site=self.site)
        return self.crossed(self.attention_norm(query + attended), x, position, seed)


def embedding(tokens: int, width: int, rngs: nnx.Rngs) -> nnx.Param:
    """One row a token, to be learned."""
    return nnx.Param(initial.normal(rngs.params(), (tokens, width), 0.02))


class ADTR(nnx.Module):
    """Reconstructs feature maps; trained on normal images it fails on anomalies (Fig. 2).

    7.87 M parameters at c = 720, n = 256; 7.81 M without query, 6.29 M without attention.

    Args:
        channels: c, the channels of the feature maps.
        tokens: n = h*w, the positions of the feature maps; the embeddings have one row each.
        width: d, the channels of a token.
        heads: of the attention; they divide the width.
        depth: layers of the encoder, and of the decoder.
        hidden: channels between the two dense layers of an FFN.
        query: whether the decoder's input is the learned query embedding. Without it (Table 4a's
            "w/o Query") it is the encoder's output, the same that the cross-attention looks at.
        layerwise: every layer of the decoder has a query embedding of its own in its place, as a
            `LayerwiseQueryLayer`. The first one's "layer before" is the encoder.
        attention: whether there is any. Without it (Table 4a's "w/o Attn") each attention layer is
            a `Concatenation`; embeddings, FFN, residuals and LayerNorms stay.
        neighbours: side of the window around a token that its attention does not see, in encoder
            and decoder (`attention.Neighbours`); the feature maps are square then. None: none.
        rate: dropout probability for attention weights and FFN activations, in training only.
        aligned: start with an attention that looks where it stands (see `_align`), not with the
            paper's initial values. Without attention there is nothing to align.
        dtype: of the computation; parameters and LayerNorm statistics stay float32.
        rngs: needs a `params` stream.
    """

    def __init__(
        self,
        channels: int,
        tokens: int,
        *,
        width: int = 256,
        heads: int = 8,
        depth: int = 4,
        hidden: int = 1024,
        query: bool = True,
        layerwise: bool = False,
        attention: bool = True,
        neighbours: int | None = None,
        rate: float = 0.1,
        aligned: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.rate, self.dtype = rate, dtype
        self.position = embedding(tokens, width, rngs)
        self.query = embedding(tokens, width, rngs) if query and not layerwise else None
        self.project_in = Dense(channels, width, dtype=dtype, rngs=rngs)
        blind = None if neighbours is None else Neighbours(neighbours, math.isqrt(tokens))
        sizes = Sizes(width, heads if attention else None, blind, hidden, rate, dtype)
        self.encoder = nnx.List(EncoderLayer(2 * i, sizes, rngs=rngs) for i in range(depth))
        decoder = (
            functools.partial(LayerwiseQueryLayer, tokens=tokens) if layerwise else DecoderLayer
        )
        self.decoder = nnx.List(
            decoder(2 * depth + 3 * i, sizes=sizes, rngs=rngs) for i in range(depth)
        )
        self.project_out = Dense(width, channels, dtype=dtype, rngs=rngs)
        if aligned and attention:
            self._align()

    def _align(self) -> None:
        """Lets every position attend to itself, and the decoder to the same place in the encoder.

        With the paper's initial values attention is nearly uniform, and the reconstruction stays
        at the mean of the normal features for several epochs, until it has learned where to look.
        A position embedding of unit variance and equal query and key kernels give the scores of
        equal positions a head start of about |W p|^2 / sqrt(32), a factor e^5.
        """
        self.position[...] = self.position[...] / 0.02
        for _, module in nnx.iter_modules(self):
            if isinstance(module, Attention):
                # A copy: the training step donates its buffers, and none can be given away twice.
                module.key.kernel[...] = jnp.array(module.query.kernel[...])

    def __call__(
        self, features: Float[Array, "b h w c"], seed: UInt32[Array, "b"] | None = None
    ) -> Float[Array, "b h w c"]:
        """Returns the reconstruction f_hat of the features f, in float32 or wider.

        Args:
            features: f, with h*w equal to the model's `tokens`.
            seed: one a sample (`dropout.seeds`) in training; None in inference: no dropout.
        """
        if self.rate == 0:
            seed = None
        b, h, w, c = features.shape
        position = self.position[...].astype(self.dtype)
        encoded = self.project_in(features.reshape(b, h * w, c))
        many = are_many(h * w)
        apply = _in_a_loop if many else _one_by_one
        encoded = apply(self.encoder, encoded, position, seed=seed)
        x = encoded if self.query is None else self.query[...].astype(self.dtype)[None]
        if many or seed is not None:
            x = jnp.broadcast_to(x, encoded.shape)
        x = apply(self.decoder, x, encoded, position, seed=seed)
        f_hat = self.project_out(x).reshape(b, h, w, c)
        return f_hat.astype(jnp.promote_types(self.dtype, jnp.float32))


def _one_by_one(
    layers: nnx.List, x: Array, *others: Array, seed: UInt32[Array, "b"] | None
) -> Array:
    """Applies layers of one kind, from first to last; all is kept for the gradient."""
    for layer in layers:
        x = layer(x, *others, seed)
    return x


def _in_a_loop(
    layers: nnx.List, x: Array, *others: Array, seed: UInt32[Array, "b"] | None
) -> Array:
    """The same, keeping what enters each layer and what its attention returns.

    All else is computed again for the gradient. Without a loop XLA would merge that on a CPU with
    what was computed first, and keep it.
    """
    first = layers[0]
    graph, _ = nnx.split(first)
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(nnx.state, layers))
    seeds = seed
    if seed is not None:
        seeds = jnp.stack([at_site(seed, layer.site - first.site) for layer in layers])
    kept = jax.checkpoint_policies.save_only_these_names(ATTENDED)

    @functools.partial(jax.checkpoint, prevent_cse=False, policy=kept)
    def step(x: Array, of_layer: tuple[nnx.State, Array | None]) -> tuple[Array, None]:
        state, seed = of_layer
        return nnx.merge(graph, state)(x, *others, seed), None

    x = cpu.varying_as(x, others[0])  # as what a layer returns
    return lax.scan(step, x, (states, seeds))[0]
