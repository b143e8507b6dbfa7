"""ADTR+ (You et al., Section 3.3): a trained ADTR learns not to reconstruct known anomalies."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from adtr_jax.config import Plus
from adtr_jax.data.anomalies import Anomalies
from adtr_jax.detectors import features
from adtr_jax.detectors.adtr import Adtr
from adtr_jax.detectors.detector import Images
from adtr_jax.devices import hosts
from adtr_jax.devices.feature_cache import Arrays, FeatureCache
from adtr_jax.devices.rows import Share
from adtr_jax.models import losses
from adtr_jax.training.train import Batch, Params, Statistics, TrainingData


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

    def initialised(self) -> "AdtrPlus":
        """Itself: it goes on with what the ADTR has learned."""
        return self

    def training_data(
        self, images: Images, mesh: Mesh, cache: FeatureCache
    ) -> "tuple[AdtrPlus, TrainingData]":
        """Features and labels of this process's share of the normal, then anomalous images.

        The anomalies' features are cached too: every epoch draws others of them, and a step costs
        no more than one of the normal-only training. Labels are `[m h w]` where the anomalies have
        masks, else `[m]`; above 0 is anomalous.
        """
        h, w, _ = self._shape
        total = len(images) + self.anomalies.count(len(images))
        own = hosts.share(total)

        def fill(arrays: Arrays) -> None:
            f, y = arrays
            y[...] = 0
            for start, pixels, masks in self._in_order(images):
                first, stop = max(start, own.start), min(start + len(pixels), own.stop)
                if first < stop:
                    mine = slice(first - start, stop - start)
                    there = slice(first - own.start, stop - own.start)
                    features.compute(self.backbone, pixels[mine], self.settings, mesh, f[there])
                    if start:
                        y[there] = 1 if masks is None else token_labels(masks[mine], h)

        def key() -> dict[str, Any]:
            normal = features.identity(self.backbone, images, self.settings)
            return normal | self.anomalies.identity()

        rows = own.stop - own.start
        shapes = [(rows, *self._shape), (rows, h, w) if self.anomalies.masked else (rows,)]
        return self, TrainingData(Share(cache.arrays(key, shapes, fill), total), len(images))

    def _in_order(
        self, images: Images
    ) -> "Iterator[tuple[int, Images, Bool[np.ndarray, 'n s s'] | None]]":
        """The normal images, then the anomalies, a part at a time; with the first one's number."""
        yield 0, images, None
        start = len(images)
        for pixels, masks in self.anomalies.chunks(images):
            yield start, pixels, masks
            start += len(pixels)

    def loss(
        self, params: Params, statistics: Statistics, batch: Batch
    ) -> tuple[Float[Array, "b"], Statistics]:
        """Eq. 7 or, for labels without positions, Eqs. 8 and 9."""
        f, y = batch.rows
        f, y = self.standardised(statistics, f), y > 0
        f_hat = self.reconstruct(params, f, batch.seeds)
        plus = self.plus
        if y.ndim == 3:
            return losses.pixel_labelled(f, f_hat, y, plus.alpha), statistics
        return losses.image_labelled(f, f_hat, y, plus.alpha, plus.k), statistics


def token_labels(masks: Bool[np.ndarray, "n s s"], side: int) -> Bool[np.ndarray, "n h w"]:
    """y: a position is anomalous where any of its pixels is."""
    cell = masks.shape[1] // side
    return np.asarray(masks.reshape(len(masks), side, cell, side, cell).any(axis=(2, 4)))
