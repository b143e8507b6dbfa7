"""GTrans's head (Yan et al., Sections 3.1.2, 3.2 and 3.3): Tokenizers, TFM, Mappers and the loss.

Yan et al., "Multiresolution Feature Guidance Based Transformer for Anomaly Detection". Two networks
of the same kind see the image: AGN is frozen with ImageNet's weights, Trans is trained from random
ones. The head lets the critical layers of Trans (F_T) learn from each other and from those of AGN
(F_G) by way of a few tokens; its result, F_M, is to equal F_G on normal images.

Letters: `b` batch, `l` critical layer, `h w` height and width of its feature map, `n = h*w`
positions, `c` its channels, `g` semantic groups (the tokens of one layer), `d` token width, `t`
tokens of all layers together. Tokens are rows here and columns in the paper.

The matrices of Eqs. 4 and 8 have no bias, as printed. The other linear maps have one, as PyTorch's
layers do, but where a softmax cancels it: in L_g and in the Mapper's keys. Kernels start
Xavier-uniform, biases at 0, LayerNorms (epsilon 1e-5) at scale 1.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from adtr_jax.backbones.backbone import Backbone
from adtr_jax.config import QueryFrom, Structure
from adtr_jax.models import losses
from adtr_jax.nn import initial
from adtr_jax.nn.layers import Dense, LayerNorm


def guidance_loss(
    f_g: Sequence[Float[Array, "b _ _ _"]], f_m: Sequence[Float[Array, "b _ _ _"]]
) -> Float[Array, "b"]:
    """Eqs. 13 and 14: `L = sum_l mean_(i,j) 1/2 |F_G^l(i,j) - F_M^l(i,j)|^2`, one value an image.

    The norm is over the channels, the mean over the positions of a layer.

    Args:
        f_g: AGN's features, `[b h_l w_l c_l]`.
        f_m: the head's, of the same shapes.
    """
    layers = [losses.normal(g, m) for g, m in zip(f_g, f_m, strict=True)]
    return 0.5 * jnp.stack(layers).sum(axis=0)


class Tokenizer(nnx.Module):
    """Eqs. 1 to 3, for one critical layer of c channels: g tokens, each a mean over positions.

    `G = L_g(F) / sqrt(c)` [n g], `V = L_d(F)` [n d], `T = softmax(G)^T V` [g d], the softmax over
    the positions.
    """

    def __init__(self, channels: int, groups: int, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.group = _matrix(channels, groups, dtype, rngs)  # L_g
        self.value = Dense(channels, width, dtype=dtype, rngs=rngs)  # L_d

    def __call__(self, f: Float[Array, "b h w c"]) -> Float[Array, "b g d"]:
        """The tokens of a feature map."""
        b, h, w, c = f.shape
        f = f.reshape(b, h * w, c)
        attention = _softmax(self.group(f) * c**-0.5, axis=1)
        # The weights of a group sum to 1, so L_d commutes with the mean: it is applied to the g
        # means, not to the n positions, n/g times less work and no V in memory.
        return self.value(jnp.einsum("bng,bnc->bgc", attention, f.astype(attention.dtype)))


class TFMBlock(nnx.Module):
    """Eqs. 4 to 7 (encoder) and Eqs. 8 to 11 (decoder): they differ in what they attend to.

    `A = softmax(q k^T / sqrt(d)) v`, `X_a = X + LayerNorm(A)` and
    `X_out = LayerNorm(X_a + L_1 relu(L_2 X_a))`, with `q = W_q X`, `k = W_k Y`, `v = W_v Y`, one
    head and no position embedding. In the encoder X and Y are both E_in; in the decoder X is D_in
    and Y is E_out.
    """

    def __init__(self, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.query = _matrix(width, width, dtype, rngs)
        self.key = _matrix(width, width, dtype, rngs)
        self.value = _matrix(width, width, dtype, rngs)
        self.attention_norm = LayerNorm(width, dtype=dtype)
        self.hidden = Dense(width, width, dtype=dtype, rngs=rngs)  # L_2
        self.out = Dense(width, width, dtype=dtype, rngs=rngs)  # L_1
        self.out_norm = LayerNorm(width, dtype=dtype)

    def __call__(self, x: Float[Array, "b t d"], y: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """Lets the tokens X attend to the tokens Y."""
        attended = _attend(self.query(x), self.key(y), self.value(y))
        x = x + self.attention_norm(attended)
        return self.out_norm(x + self.out(nnx.relu(self.hidden(x))))


class TFM(nnx.Module):
    """Section 3.2.2: S encoder blocks and, with the decoder, S decoder blocks.

    Every decoder block attends to the last encoder block's output, as in the transformer that the
    paper starts from.
    """

    def __init__(self, width: int, blocks: int, decode: bool, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.encoder = nnx.List(TFMBlock(width, dtype=dtype, rngs=rngs) for _ in range(blocks))
        self.decoder = nnx.List(
            TFMBlock(width, dtype=dtype, rngs=rngs) for _ in range(blocks if decode else 0)
        )

    def __call__(
        self, e: Float[Array, "b t d"], d: Float[Array, "b t d"] | None
    ) -> Float[Array, "b t d"]:
        """Returns D_out, or E_out where there is no decoder.

        Args:
            e: E_in, the tokens of Trans.
            d: D_in, the tokens of AGN; None where there is no decoder.
        """
        for block in self.encoder:
            e = block(e, e)
        if d is None:
            return e
        for block in self.decoder:
            d = block(d, e)
        return d


class Mapper(nnx.Module):
    """Eq. 12, for one critical layer of c channels: the tokens back on the feature map.

    `F_M = F_T + softmax(X_q T_k^T / sqrt(c)) T_v`, the softmax over the g tokens of the layer; X_q
    [n c] is a point-wise convolution of a feature map, T_k and T_v [g c] linear maps of the tokens.
    """

    def __init__(self, channels: int, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.query = Dense(channels, channels, dtype=dtype, rngs=rngs)
        self.key = _matrix(width, channels, dtype, rngs)
        self.value = Dense(width, channels, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        f_t: Float[Array, "b h w c"],
        x: Float[Array, "b h w c"],
        tokens: Float[Array, "b g d"],
    ) -> Float[Array, "b h w c"]:
        """Returns F_M, in float32 or wider.

        Args:
            f_t: F_T, to which the tokens' part is added.
            x: the feature map that X_q is taken from.
            tokens: the layer's group of the TFM's output.
        """
        b, h, w, c = x.shape
        x_q = self.query(x.reshape(b, h * w, c))
        mapped = _attend(x_q, self.key(tokens), self.value(tokens))
        return f_t + mapped.reshape(f_t.shape).astype(f_t.dtype)


class GTransHead(nnx.Module):
    """From the critical layers of Trans and AGN to F_M (Fig. 2).

    1.87 M parameters for the channels of ResNet-34's layer groups 1 to 3, (64, 128, 256).

    Args:
        channels: c_l of every critical layer, from the shallowest to the deepest.
        structure: of the TFM (Tables 4 and 5). `decoder` is the paper's whole TFM: the tokens of
            Trans are encoded, those of AGN decoded, and D_out is mapped. The paper says below
            Eq. 12 that keys and values come from E_out, which would leave the decoder without
            effect; its Fig. 2 and the sentence before Eq. 12 map D_out. `encoder` ("pure encoder")
            maps E_out, and AGN has no Tokenizer. `none` ("without TFM") maps nothing, F_M = F_T:
            the paper does not say what is left, but its Mapper maps "the token output by TFM", so
            that the plain imitation of AGN by Trans remains. The head then has no parameters. Of
            the tokens that are mapped each layer has its own g. The paper divides D_out "into g
            groups" and maps them to the features' spaces, of which there is one a layer; as many
            groups as layers are what Eq. 12 has keys and values for, and how E_in is made up.
        blocks: S, the encoder blocks, and as many decoder blocks; 2 in the paper.
        query_from: whose feature map X_q of Eq. 12 is taken from: `agn`'s, as printed, or
            `trans`'s, so that AGN's map does not steer what is to be compared with it.
        groups: g, the tokens of a layer (Section 4.3.2).
        width: d, the channels of a token (Section 4.3.2).
        dtype: of the computation; parameters, softmaxes and LayerNorm statistics stay float32.
        rngs: needs a `params` stream.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        structure: Structure = "decoder",
        blocks: int = 2,
        query_from: QueryFrom = "agn",
        groups: int = 8,
        width: int = 256,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        def tokenizers(wanted: bool) -> nnx.List:
            return nnx.List(
                Tokenizer(c, groups, width, dtype=dtype, rngs=rngs)
                for c in (channels if wanted else ())
            )

        decode, mapped = structure == "decoder", structure != "none"
        self.query_from = query_from
        self.trans_tokenizers = tokenizers(mapped)
        self.agn_tokenizers = tokenizers(decode)
        self.tfm = TFM(width, blocks, decode, dtype=dtype, rngs=rngs) if mapped else None
        self.mappers = nnx.List(
            Mapper(c, width, dtype=dtype, rngs=rngs) for c in (channels if mapped else ())
        )

    def __call__(
        self, f_t: Sequence[Float[Array, "b _ _ _"]], f_g: Sequence[Float[Array, "b _ _ _"]]
    ) -> list[Float[Array, "b _ _ _"]]:
        """Returns F_M, one map a critical layer, of the shapes of `f_t` and in its dtype.

        Args:
            f_t: F_T, the features of Trans, `[b h_l w_l c_l]`, float32 or wider.
            f_g: F_G, the features of AGN, of the same shapes.
        """
        if self.tfm is None:
            return list(f_t)
        e_in = _tokens(self.trans_tokenizers, f_t)
        d_in = _tokens(self.agn_tokenizers, f_g) if self.agn_tokenizers else None
        groups = jnp.split(self.tfm(e_in, d_in), len(self.mappers), axis=1)
        queries = f_g if self.query_from == "agn" else f_t
        layers = zip(self.mappers, f_t, queries, groups, strict=True)
        return [mapper(f, x, tokens) for mapper, f, x, tokens in layers]


class GTrans(nnx.Module):
    """Trans and the head, and the weights of the layers' maps: all that is learned (Fig. 2).

    Args:
        trans: a network of AGN's kind with random weights; the layers behind the last critical one
            are removed.
        layers: the critical layers, numbered from 1 as the backbone's taps are.
        structure, blocks, query_from, groups, width, dtype, rngs: as in `GTransHead`.
    """

    def __init__(
        self,
        trans: Backbone,
        layers: Sequence[int],
        *,
        structure: Structure,
        blocks: int,
        query_from: QueryFrom,
        groups: int = 8,
        width: int = 256,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        trans.trim(max(layers))
        self.trans, self.layers, self.dtype = trans, tuple(layers), dtype
        self.head = GTransHead(
            [trans.channels[i - 1] for i in layers],
            structure=structure,
            blocks=blocks,
            query_from=query_from,
            groups=groups,
            width=width,
            dtype=dtype,
            rngs=rngs,
        )
        # Eq. 18's, one a layer; fitted to the training images once all else is trained.
        self.lambdas = nnx.BatchStat(jnp.ones(len(layers)))

    def __call__(
        self,
        pixels: UInt8[Array, "b s s 3"] | Float[Array, "b s s 3"],
        f_g: Sequence[Float[Array, "b _ _ _"]],
        weight: Float[Array, "b"] | None = None,
    ) -> list[Float[Array, "b _ _ _"]]:
        """Returns F_M, one map a critical layer, in float32 or wider.

        Args:
            pixels: RGB in 0..255.
            f_g: F_G, AGN's features of the same images.
            weight: in training, which images count in BatchNorm's statistics (`ConvBatchNorm`).
        """
        taps = self.trans.taps(self.trans.normalise(pixels).astype(self.dtype), weight)
        full = jnp.promote_types(self.dtype, jnp.float32)
        return self.head([taps[i - 1].astype(full) for i in self.layers], f_g)


def _tokens(
    tokenizers: Sequence[Tokenizer], features: Sequence[Float[Array, "b _ _ _"]]
) -> Float[Array, "b t d"]:
    """The tokens of all layers, layer after layer."""
    layers = zip(tokenizers, features, strict=True)
    return jnp.concatenate([tokenize(f) for tokenize, f in layers], axis=1)


def _attend(
    q: Float[Array, "b n e"], k: Float[Array, "b m e"], v: Float[Array, "b m e"]
) -> Float[Array, "b n e"]:
    """`softmax(q k^T / sqrt(e)) v`, the softmax over the m keys."""
    full = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum("bne,bme->bnm", q * q.shape[-1] ** -0.5, k, preferred_element_type=full)
    return jnp.einsum("bnm,bme->bne", _softmax(scores, axis=-1).astype(v.dtype), v)


def _softmax(x: Float[Array, "b n m"], axis: int) -> Float[Array, "b n m"]:
    """The softmax in float32 or wider, in the dtype of `x`."""
    full = jnp.promote_types(x.dtype, jnp.float32)
    return jax.nn.softmax(x.astype(full), axis=axis).astype(x.dtype)


def _matrix(inputs: int, outputs: int, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear map of the channels without bias: Xavier-uniform kernel in float32."""
    return nnx.Linear(
        inputs,
        outputs,
        use_bias=False,
        dtype=dtype,
        param_dtype=jnp.float32,
        kernel_init=lambda key, shape, _: initial.xavier_uniform(key, shape),
        rngs=rngs,
    )
