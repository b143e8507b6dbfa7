"""The networks that reconstruct features: names -> Flax modules of one signature.

Importing this package imports no JAX, so that a command line can list `NAMES` at once.
"""

from typing import TYPE_CHECKING, get_args

from adtr_jax.config import AdtrSettings, ModelName

if TYPE_CHECKING:
    import flax.nnx

    import adtr_jax.models.adtr
    import adtr_jax.models.cnn

NAMES: tuple[ModelName, ...] = get_args(ModelName)


def create(
    settings: AdtrSettings, channels: int, *, rngs: "flax.nnx.Rngs"
) -> "adtr_jax.models.adtr.ADTR | adtr_jax.models.cnn.CNN":
    """Returns the network that the settings name, with fresh parameters.

    All have one signature, `(features [b h w c], seed [b] | None) -> f_hat`. `adtr` is the full
    transformer, and `layerwise_query` has UniAD's decoder in place of its own; the others are the
    rows of the paper's Table 4a: `no_query`, `no_attention` (see `ADTR`) and `cnn` (see `CNN`).

    Args:
        settings: model, sizes, dropout and dtype; parameters stay float32.
        channels: c, the channels of the feature maps.
        rngs: needs a `params` stream.
    """
    import jax.numpy as jnp

    from adtr_jax.models.adtr import ADTR
    from adtr_jax.models.cnn import CNN

    rate, dtype = settings.dropout, jnp.dtype(settings.dtype)
    if settings.model == "cnn":
        return CNN(channels, width=settings.width, rate=rate, dtype=dtype, rngs=rngs)
    return ADTR(
        channels,
        settings.tokens_per_side**2,
        width=settings.width,
        heads=settings.heads,
        depth=settings.depth,
        hidden=settings.hidden,
        query=settings.model != "no_query",
        layerwise=settings.model == "layerwise_query",
        attention=settings.model != "no_attention",
        neighbours=settings.neighbours,
        aligned=settings.aligned,
        rate=rate,
        dtype=dtype,
        rngs=rngs,
    )
