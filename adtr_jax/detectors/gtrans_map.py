"""GTrans's anomaly map (Yan et al., Section 3.4): the layers' losses, weighted, fused, smoothed.

Letters: `b` batch, `l` critical layer, `h w` height and width of its feature map, `c` its channels,
`s` side of the map in pixels. `f_g` is F_G, AGN's features, and `f_m` is F_M, the head's.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.ndimage import gaussian_filter1d

from adtr_jax.config import Coefficient, Fusion
from adtr_jax.detectors import scoring
from adtr_jax.errors import InputError
from adtr_jax.models import losses

SIGMA = 4.0  # pixels; Eq. 19 names sigma and gives no value: that of SPADE and PaDiM


def layer_map(f_g: Float[Array, "b h w c"], f_m: Float[Array, "b h w c"]) -> Float[Array, "b h w"]:
    """Eq. 15: `P = 1/(w h) sum_channels 1/2 (F_G - F_M)^2`, one value a position."""
    _, h, w, _ = f_g.shape
    return 0.5 * jnp.sum(jnp.square(f_g - f_m), axis=-1) / (h * w)


def squared_distance(
    f_g: Float[Array, "b h w c"], f_m: Float[Array, "b h w c"]
) -> Float[Array, "b"]:
    """Eq. 16: `a_mse = 1/(w h) sum_(i,j) (F_G(i,j) - F_M(i,j))^2`, one value an image.

    The square of a difference of vectors is taken as in Eq. 13: summed over the c channels.
    """
    return losses.normal(f_g, f_m)


def cosine_distance(
    f_g: Float[Array, "b h w c"], f_m: Float[Array, "b h w c"]
) -> Float[Array, "b"]:
    """Eq. 17: `a_cos = 1 - u^T v` for every image, u and v its F_G and F_M as unit vectors; 0..2.

    Written as `|u - v|^2 / 2`: the printed form loses its digits where the directions are close,
    and may come out below 0. Features that are 0 throughout have no direction; u is 0 then.
    """
    return 0.5 * jnp.sum(jnp.square(_unit(f_g) - _unit(f_m)), axis=1)


def lambdas(
    a_mse: Float[np.ndarray, "n l"], a_cos: Float[np.ndarray, "n l"]
) -> Float[np.ndarray, "l"]:
    """The lambda of Eq. 18 for every layer: the mean of a_mse over the mean of a_cos.

    The paper wants it "to make the scale of a_mse and a_cos the same" and gives no value.

    Args:
        a_mse: of the n training images, from `squared_distance`.
        a_cos: of the same, from `cosine_distance`.

    Returns:
        Finite and greater than 0, also for a layer whose a_mse or a_cos are 0 throughout.
    """
    mean_mse, mean_cos = (x.mean(axis=0, dtype=np.float64) for x in (a_mse, a_cos))
    return (np.maximum(mean_mse, 1e-12) / np.maximum(mean_cos, 1e-12)).astype(np.float32)


def alpha(
    a_mse: Float[Array, "b"], a_cos: Float[Array, "b"], lambda_: Float[Array, ""]
) -> Float[Array, "b"]:
    """Eq. 18: `alpha = lambda a_cos a_mse / (a_mse + lambda a_cos)`; 0 where both are 0."""
    scaled = lambda_ * a_cos
    total = a_mse + scaled
    return a_mse * (scaled / jnp.where(total > 0, total, 1))


def coefficient(
    f_g: Float[Array, "b h w c"],
    f_m: Float[Array, "b h w c"],
    lambda_: Float[Array, ""],
    kind: Coefficient,
) -> Float[Array, "b"]:
    """The layer's weight in every image's map (Table 6): alpha, a_mse or a_cos, or one half."""
    a_mse, a_cos = squared_distance(f_g, f_m), cosine_distance(f_g, f_m)
    return {
        "half": jnp.full_like(a_mse, 0.5),
        "mse": a_mse,
        "cos": a_cos,
        "alpha": alpha(a_mse, a_cos, lambda_),
    }[kind]


def fuse(maps: Sequence[Float[Array, "b s s"]], fusion: Fusion) -> Float[Array, "b s s"]:
    """One map of the layers' weighted maps 1, 2, 3 (Table 7), pixel by pixel.

    P1: 3. P2: 1*3. P3: 2*3. P4: 1+2+3, as Eq. 19 and Table 3 have it, and of any number of layers.
    P5: 1*2*3. P6: 1*3 + 2*3, the paper's choice.

    Of Table 3 the paper says that its maps are "simply" added (Section 5.1). That may mean without
    Eq. 18's weights; here they are weighted, as Eq. 19 is printed and as P4 is: the row of layers
    1+2+3 has P4's values.

    Raises:
        InputError: another fusion than P4 of other than three layers.
    """
    if fusion == "P4":
        return jnp.stack(list(maps)).sum(axis=0)
    if len(maps) != 3:
        raise InputError(
            f"the fusion {fusion} is of three critical layers, not of {len(maps)}: take P4, the sum"
        )
    p1, p2, p3 = maps
    return {
        "P1": p3,
        "P2": p1 * p3,
        "P3": p2 * p3,
        "P5": p1 * p2 * p3,
        "P6": p1 * p3 + p2 * p3,
    }[fusion]


def smooth(maps: Float[Array, "b s s"], sigma: float = SIGMA) -> Float[Array, "b s s"]:
    """G_sigma of Eq. 19: `scipy.ndimage.gaussian_filter` with its defaults.

    The kernel ends at 4 sigma; beyond the border the map is mirrored, the outermost pixel repeated.

    Args:
        maps: square maps.
        sigma: standard deviation in pixels.
    """
    # Along one axis the filter is a fixed matrix, which SciPy makes, borders included.
    matrix = gaussian_filter1d(np.eye(maps.shape[1]), sigma, axis=0, mode="reflect", truncate=4.0)
    rows = jnp.asarray(matrix, maps.dtype)
    exact = jax.lax.Precision.HIGHEST  # no rounding to bfloat16 on TPU or TF32 on GPU
    return jnp.einsum("ip,bpq,jq->bij", rows, maps, rows, precision=exact)


def layer_maps(
    f_g: Sequence[Float[Array, "b _ _ _"]],
    f_m: Sequence[Float[Array, "b _ _ _"]],
    lambda_: Float[Array, "l"],
    size: int,
    *,
    weighting: Coefficient = "alpha",
    pixels: Sequence[tuple[float, float]] | None = None,
) -> list[Float[Array, "b s s"]]:
    """`alpha_l R(P_l)` of Eq. 19 for every critical layer: what Fig. 4 shows beside the whole.

    Args:
        f_g: AGN's features, `[b h_l w_l c_l]` with h_l = w_l, from shallow to deep.
        f_m: the head's, of the same shapes.
        lambda_: of every layer, from `lambdas`.
        size: s, in pixels.
        weighting: which coefficient weighs the layers (Table 6).
        pixels: spacing and offset of every layer's positions in the image, for R; None resizes
            bilinearly from corner to corner (align_corners=True): the paper does not say how.
    """
    maps = []
    for i, (g, m) in enumerate(zip(f_g, f_m, strict=True)):
        weight = coefficient(g, m, lambda_[i], weighting)
        resized = scoring.score_map(layer_map(g, m), size, pixels[i] if pixels else None)
        maps.append(weight[:, None, None] * resized)
    return maps


def anomaly_map(
    maps: Sequence[Float[Array, "b s s"]], fusion: Fusion = "P6"
) -> Float[Array, "b s s"]:
    """Eq. 19: `M = G_sigma(sum_l alpha_l R(P_l))`, the sum replaced by a fusion of Table 7.

    Table 7's products are taken of the weighted maps. The image's score is the maximum of M
    (Section 3.4): `scoring.image_score(..., "max")`.

    Args:
        maps: as `layer_maps` returns them.
        fusion: how they become one.

    Raises:
        InputError: as `fuse`.
    """
    return smooth(fuse(maps, fusion))


def _unit(f: Float[Array, "b h w c"]) -> Float[Array, "b k"]:
    """Every image's features as one vector of length 1."""
    vectors = f.reshape(f.shape[0], -1)
    norm = jnp.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / jnp.where(norm > 0, norm, 1)
