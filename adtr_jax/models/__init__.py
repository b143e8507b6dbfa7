"""The networks that reconstruct features: names -> Flax modules of one signature.

Importing this package imports no JAX, so that a command line can list `NAMES` at once.
"""

from typing import TYPE_CHECKING, get_args

from adtr_jax.config import ModelName
from adtr_jax.errors import unknown

if TYPE_CHECKING:
    import flax.nnx
    import jax.typing

    import adtr_jax.models.adtr
    import adtr_jax.models.cnn

NAMES: tuple[ModelName, ...] = get_args(ModelName)


def create(
    name: str,
    channels: int,
    tokens: int,
    *,
    rate: float,
    aligned: bool,
    dtype: "jax.typing.DTypeLike",
    rngs: "flax.nnx.Rngs",
) -> "adtr_jax.models.adtr.ADTR | adtr_jax.models.cnn.CNN":
    """The network `name`, with fresh parameters: `(features [b h w c], seed [b] | None) -> f_hat`.

    `adtr` is the full transformer, the others the rows of the paper's Table 4a: `no_query`,
    `no_attention` (see `ADTR`) and `cnn` (see `CNN`).

    Args:
        name: one of `NAMES`.
        channels: c, the channels of the feature maps.
        tokens: n = h*w, the positions of the feature maps; the CNN takes any number.
        rate: dropout probability, in training only.
        aligned: start with an attention that looks where it stands; of no effect on `no_attention`
            and `cnn`, which have none, and where every position sees itself from the start.
        dtype: of the computation; parameters stay float32.
        rngs: needs a `params` stream.

    Raises:
        InputError: `name` is not in `NAMES`; the message suggests the nearest.
    """
    if name not in NAMES:
        raise unknown("no model", name, NAMES)
    from adtr_jax.models.adtr import ADTR
    from adtr_jax.models.cnn import CNN

    if name == "cnn":
        return CNN(channels, rate=rate, dtype=dtype, rngs=rngs)
    return ADTR(
        channels,
        tokens,
        query=name != "no_query",
        attention=name != "no_attention",
        rate=rate,
        aligned=aligned,
        dtype=dtype,
        rngs=rngs,
    )
