"""ADTR+ (Section 3.3): a trained model learns not to reconstruct known anomalies."""

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, UInt8, UInt32

from adtr_jax import losses
from adtr_jax.anomalies import Anomalies
from adtr_jax.config import Plus
from adtr_jax.detector import Detector
from adtr_jax.train import Loss, Params


def training_data(
    detector: Detector,
    normal: UInt8[np.ndarray, "n s s 3"],
    anomalies: Anomalies,
    mesh: Mesh,
) -> tuple[Float[np.ndarray, "m h w c"], Bool[np.ndarray, "m ..."]]:
    """The features of all images, the normal ones first, and their labels.

    The anomalies' features are cached too: every epoch draws others of them, and a step costs no
    more than one of the normal-only training.

    Returns:
        Features; labels `[m h w]` where the anomalies have masks, else `[m]`; True is anomalous.
    """
    side = detector.settings.tokens_per_side
    parts, labels = [detector.features(normal, mesh)], []
    for images, masks in anomalies.chunks(normal):
        parts.append(detector.features(images, mesh))
        labels.append(np.ones(len(images), bool) if masks is None else token_labels(masks, side))
    none = np.zeros((len(normal), *labels[0].shape[1:]), bool)
    return np.concatenate(parts), np.concatenate([none, *labels])


def token_labels(masks: Bool[np.ndarray, "n s s"], side: int) -> Bool[np.ndarray, "n h w"]:
    """y: a position is anomalous where any of its pixels is."""
    cell = masks.shape[1] // side
    return np.asarray(masks.reshape(len(masks), side, cell, side, cell).any(axis=(2, 4)))


def loss(detector: Detector, plus: Plus) -> Loss:
    """Eq. 7 or, for labels without positions, Eqs. 8 and 9, as a function of the parameters."""

    def value(
        params: Params,
        data: tuple[Float[Array, "b h w c"], Bool[Array, "b ..."]],
        seed: UInt32[Array, "b"],
    ) -> Float[Array, "b"]:
        f, y = data
        f_hat = detector.reconstruct(params, f, seed)
        if y.ndim == 3:
            return losses.pixel_labelled(f, f_hat, y, plus.alpha)
        return losses.image_labelled(f, f_hat, y, plus.alpha, plus.k)

    return value
