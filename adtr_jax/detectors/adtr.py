"""ADTR (You et al.): a transformer reconstructs the features of normal images (Section 3.1)."""

import dataclasses
import functools
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt32

from adtr_jax import models
from adtr_jax.backbones.backbone import Backbone
from adtr_jax.config import AdtrSettings
from adtr_jax.detectors import features
from adtr_jax.detectors.detector import Detector, Images
from adtr_jax.detectors.scoring import score_map, token_scores
from adtr_jax.devices import hosts
from adtr_jax.devices.batches import Batches
from adtr_jax.devices.feature_cache import Arrays, FeatureCache
from adtr_jax.devices.rows import Share
from adtr_jax.models import losses
from adtr_jax.training.train import Batch, Params, Statistics, TrainingData

Features = Float[np.ndarray, "n h w c"]


@dataclass(frozen=True)
class Adtr(Detector):
    """F -> f_hat; its statistics are the features' mean and spread, by which they are scaled."""

    settings: AdtrSettings

    @classmethod
    def create(cls, backbone: Backbone, settings: AdtrSettings) -> "Adtr":
        """See `Detector`; until there are features to take them of, the statistics change none."""
        made = super().create(backbone, settings)
        blank = features.Statistics.identity(features.channels(backbone, settings.layers))
        return dataclasses.replace(made, statistics=_state(blank))

    @staticmethod
    def model(backbone: Backbone, settings: AdtrSettings, rngs: nnx.Rngs) -> nnx.Module:
        """See `Detector`."""
        return models.create(
            settings.model,
            features.channels(backbone, settings.layers),
            settings.tokens_per_side**2,
            rate=settings.dropout,
            aligned=settings.aligned,
            dtype=jnp.dtype(settings.dtype),
            rngs=rngs,
        )

    def training_data(
        self, images: Images, mesh: Mesh, cache: FeatureCache
    ) -> "tuple[Adtr, TrainingData]":
        """The features of this process's images."""
        own = images[hosts.share(len(images))]

        def fill(arrays: Arrays) -> None:
            features.compute(self.backbone, own, self.settings, mesh, arrays[0])

        key = functools.partial(features.identity, self.backbone, own, self.settings)
        share = Share(cache.arrays(key, [(len(own), *self._shape)], fill)[0], len(images))
        data = TrainingData(share, len(images))
        if not self.settings.standardise:
            return self, data
        return dataclasses.replace(self, statistics=_state(features.statistics(share))), data

    @property
    def _shape(self) -> tuple[int, int, int]:
        """h, w and c."""
        side = self.settings.tokens_per_side
        return side, side, features.channels(self.backbone, self.settings.layers)

    def loss(
        self, params: Params, statistics: Statistics, batch: Batch
    ) -> tuple[Float[Array, "b"], Statistics]:
        """Eq. 1, with dropout."""
        f = self.standardised(statistics, batch.rows)
        return losses.normal(f, self.reconstruct(params, f, batch.seeds)), statistics

    def standardised(
        self, statistics: Statistics, f: Float[Array, "b h w c"]
    ) -> Float[Array, "b h w c"]:
        """The features as the model takes them: standardised, if the settings say so."""
        return _statistics(statistics).standardise(f) if self.settings.standardise else f

    def maps(
        self, backbone: Backbone, params: Params, statistics: Statistics, pixels: Array
    ) -> tuple[Float[Array, "b h w"], Float[Array, "b s s"]]:
        """Eqs. 2 and 3."""
        settings = self.settings
        f = self.standardised(statistics, features.extract(backbone, pixels, settings))
        tokens = token_scores(f, self.reconstruct(params, f))
        centres = settings.placement == "centres"
        tokens_at = features.token_pixels(backbone, settings) if centres else None
        return tokens, score_map(tokens, settings.image_size, tokens_at)

    def features(self, images: Images, mesh: Mesh) -> Features:
        """F `[n h w c]` of RGB images in 0..255, standardised if the settings say so."""
        f = features.compute(self.backbone, images, self.settings, mesh)
        if not self.settings.standardise:
            return f
        return features.Statistics(*map(np.asarray, _statistics(self.statistics))).standardise(f)

    def reconstruct(
        self, params: Params, f: Float[Array, "b h w c"], seed: UInt32[Array, "b"] | None = None
    ) -> Float[Array, "b h w c"]:
        """f_hat; with dropout where there is one seed an image."""
        return nnx.merge(self.graph, params)(f, seed)

    def differences(self, images: Images, mesh: Mesh) -> Features:
        """D = f - f_hat `[n h w c]` of RGB images in 0..255 (Eq. 2), in every process."""

        def function(params: Params, f: Array) -> tuple[Array]:
            return (f - self.reconstruct(params, f),)

        f = self.features(images, mesh)
        size = features.images_at_once(self.settings, mesh)
        return Batches(function, self.params, mesh, size=size, label="differences").of_all(f)[0]


def _state(statistics: features.Statistics) -> nnx.State:
    return nnx.State({k: nnx.BatchStat(jnp.asarray(v)) for k, v in statistics._asdict().items()})


def _statistics(state: Statistics) -> features.Statistics:
    return features.Statistics(state["mean"][...], state["std"][...])
