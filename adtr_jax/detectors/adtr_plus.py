"""ADTR+ (You et al., Section 3.3): a trained ADTR learns not to reconstruct known anomalies."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from adtr_jax import losses
from adtr_jax.anomalies import Anomalies
from adtr_jax.config import Plus
from adtr_jax.detectors.adtr import Adtr
from adtr_jax.detectors.detector import Images
from adtr_jax.train import Batch, Params, Statistics, TrainingData


@dataclass(frozen=True)
class AdtrPlus(Adtr):
    """Goes on from where an ADTR stands.

    Attributes:
        plus: how.
        anomalies: what it learns not to reconstruct.
    """

    plus: Plus
    anomalies: Anomalies

    @classmethod
    def of(cls, adtr: Adtr, plus: Plus, anomalies: Anomalies) -> "AdtrPlus":
        """The detector that starts with what `adtr` has learned.

        Raises:
            InputError: the settings do not fit.
        """
        held = {field.name: getattr(adtr, field.name) for field in dataclasses.fields(adtr)}
        settings = plus.settings(adtr.settings)
        return cls(**held | {"settings": settings, "plus": plus, "anomalies": anomalies})

    def training_data(self, images: Images, mesh: Mesh) -> "tuple[AdtrPlus, TrainingData]":
        """Features and labels of the normal images, then of the anomalous ones.

        The anomalies' features are cached too: every epoch draws others of them, and a step costs
        no more than one of the normal-only training. Labels are `[m h w]` where the anomalies have
        masks, else `[m]`; True is anomalous.
        """
        side = self.settings.tokens_per_side
        parts, labels = [self.features(images, mesh)], []
        for anomalous, masks in self.anomalies.chunks(images):
            parts.append(self.features(anomalous, mesh))
            all_anomalous = np.ones(len(anomalous), bool)
            labels.append(all_anomalous if masks is None else token_labels(masks, side))
        none = np.zeros((len(images), *labels[0].shape[1:]), bool)
        rows = np.concatenate(parts), np.concatenate([none, *labels])
        return self, TrainingData(rows, len(images))

    def loss(
        self, params: Params, statistics: Statistics, batch: Batch
    ) -> tuple[Float[Array, "b"], Statistics]:
        """Eq. 7 or, for labels without positions, Eqs. 8 and 9."""
        f, y = batch.rows
        f_hat = self.reconstruct(params, f, batch.seeds)
        plus = self.plus
        if y.ndim == 3:
            return losses.pixel_labelled(f, f_hat, y, plus.alpha), statistics
        return losses.image_labelled(f, f_hat, y, plus.alpha, plus.k), statistics


def token_labels(masks: Bool[np.ndarray, "n s s"], side: int) -> Bool[np.ndarray, "n h w"]:
    """y: a position is anomalous where any of its pixels is."""
    cell = masks.shape[1] // side
    return np.asarray(masks.reshape(len(masks), side, cell, side, cell).any(axis=(2, 4)))
