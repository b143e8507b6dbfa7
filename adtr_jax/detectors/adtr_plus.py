"""ADTR+ (You et al., Section 3.3): a trained ADTR learns not to reconstruct known anomalies."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from adtr_jax.config import Plus
from adtr_jax.data.anomalies import Anomalies
from adtr_jax.detectors import extraction
from adtr_jax.detectors.adtr import AdtrDetector
from adtr_jax.detectors.cache_key import cache_key
from adtr_jax.detectors.detector import Images, Others
from adtr_jax.devices import hosts
from adtr_jax.devices.feature_cache import Arrays, FeatureCache
from adtr_jax.devices.loader import Shard
from adtr_jax.models import losses
from adtr_jax.training.train import Batch, Params, Rest, TrainingData

SOMEWHERE = 2  # the label of an image that is anomalous, it is unknown where


@dataclass(frozen=True, eq=False)
class AdtrPlusDetector(AdtrDetector):
    """Goes on from where an ADTR stands.

    Attributes:
        plus: how.
        anomalies: what it learns not to reconstruct.
    """

    prefix = "plus."

    plus: Plus
    anomalies: Anomalies

    @classmethod
    def of(cls, adtr: AdtrDetector, plus: Plus, anomalies: Anomalies) -> "AdtrPlusDetector":
        """The detector that starts with what `adtr` has learned.

        Raises:
            InputError: the settings do not fit.
        """
        held = {field.name: getattr(adtr, field.name) for field in dataclasses.fields(adtr)}
        settings = plus.settings(adtr.settings)
        return cls(**held | {"settings": settings, "plus": plus, "anomalies": anomalies})

    def initialised(self) -> "AdtrPlusDetector":
        """Itself: it goes on with what the ADTR has learned."""
        return self

    def training_data(
        self, images: Images, mesh: Mesh, cache: FeatureCache, held_out: Others | None = None
    ) -> "tuple[AdtrPlusDetector, TrainingData]":
        """Features and labels of this process's share of the normal, then anomalous images.

        The anomalies' features are cached too: every epoch draws others of them, and a step costs
        no more than one of the normal-only training. Labels are `[m h w]` where any anomaly has a
        mask, else `[m]`: 0 is normal, 1 anomalous, and `SOMEWHERE` what has no mask. No anomaly is
        made of the held-out images.
        """
        h, w, _ = self._shape
        total = len(images) + self.anomalies.count(len(images))
        own = hosts.share(total)
        program = extraction.extractor(self.backbone, self.settings, mesh)

        def fill(arrays: Arrays) -> None:
            f, y = arrays
            y[...] = 0
            normal = images[own]
            if len(normal):
                program.compute_own(normal, [f[: len(normal)]])
            start, n = len(normal), len(images)
            anomalous = slice(max(own.start - n, 0), max(own.stop - n, 0))
            for pixels, masks in self.anomalies.chunks(images, anomalous):
                there = slice(start, start + len(pixels))
                program.compute_own(pixels, [f[there]])
                y[there] = SOMEWHERE if masks is None else token_labels(masks, h)
                start = there.stop

        def key() -> dict[str, Any]:
            normal = cache_key(self.backbone, images, self.settings)
            return normal | self.anomalies.fingerprint()

        count, labels = own.stop - own.start, (h, w) if self.anomalies.masked else ()
        shapes = [(count, *self._shape), (count, *labels)]
        shard, others = Shard(cache.arrays(key, shapes, fill), total), None
        if held_out is not None:
            others = self.examples(held_out, program, cache)
            y = np.zeros((others.own, *labels), np.float32)
            others = others._replace(arrays=[others.arrays, y])
        return self, TrainingData(shard, len(images), others)

    def loss(self, params: Params, rest: Rest, batch: Batch) -> tuple[Float[Array, "b"], Rest]:
        """Eq. 7 or, for images without masks, Eqs. 8 and 9."""
        f, y = batch.examples
        f = self.standardised(rest, f)
        f_hat = self.reconstruct(params, f, batch.seeds)
        alpha, k = self.plus.alpha, self.plus.k
        if y.ndim == 1:
            return losses.image_labelled(f, f_hat, y > 0, alpha, k), rest
        somewhere = y[:, 0, 0] == SOMEWHERE
        by_image = losses.image_labelled(f, f_hat, somewhere, alpha, k)
        by_pixel = losses.pixel_labelled(f, f_hat, y > 0, alpha)
        return jnp.where(somewhere, by_image, by_pixel), rest


def token_labels(masks: Bool[np.ndarray, "n s s"], side: int) -> Bool[np.ndarray, "n h w"]:
    """y: a position is anomalous where any of its pixels is."""
    cell = masks.shape[1] // side
    return np.asarray(masks.reshape(len(masks), side, cell, side, cell).any(axis=(2, 4)))
