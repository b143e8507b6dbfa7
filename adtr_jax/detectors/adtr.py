"""ADTR (You et al.): a transformer reconstructs the features of normal images (Section 3.1)."""

import dataclasses
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt32

from adtr_jax import features, losses, models
from adtr_jax.backbones.backbone import Backbone
from adtr_jax.config import AdtrSettings
from adtr_jax.detectors.detector import Detector, Images
from adtr_jax.scoring import score_map, token_scores
from adtr_jax.sharding import in_batches
from adtr_jax.train import Batch, Params, Statistics, TrainingData

Features = Float[np.ndarray, "n h w c"]


@dataclass(frozen=True)
class Adtr(Detector):
    """F -> f_hat; its statistics are the features' mean and spread, by which they are scaled."""

    settings: AdtrSettings

    @classmethod
    def create(cls, backbone: Backbone, settings: AdtrSettings) -> "Adtr":
        """See `Detector`."""
        channels = features.channels(backbone, settings.layers)
        model = models.create(
            settings.model,
            channels,
            settings.tokens_per_side**2,
            rate=settings.dropout,
            aligned=settings.aligned,
            dtype=jnp.dtype(settings.dtype),
            rngs=nnx.Rngs(settings.seed),
        )
        graph, params = nnx.split(model)
        blank = _state(features.Statistics.identity(channels))
        return cls(backbone, settings, graph, params, blank)

    def training_data(self, images: Images, mesh: Mesh) -> "tuple[Adtr, TrainingData]":
        """The standardised features of all images."""
        f = features.compute(self.backbone, images, self.settings, mesh)
        if not self.settings.standardise:
            return self, TrainingData(f, len(f))
        statistics = features.statistics(f)
        fitted = dataclasses.replace(self, statistics=_state(statistics))
        return fitted, TrainingData(statistics.standardise(f), len(f))

    def loss(
        self, params: Params, statistics: Statistics, batch: Batch
    ) -> tuple[Float[Array, "b"], Statistics]:
        """Eq. 1, with dropout."""
        f = batch.rows
        return losses.normal(f, self.reconstruct(params, f, batch.seeds)), statistics

    def maps(
        self, backbone: Backbone, params: Params, statistics: Statistics, pixels: Array
    ) -> tuple[Float[Array, "b h w"], Float[Array, "b s s"]]:
        """Eqs. 2 and 3."""
        settings = self.settings
        f = _statistics(statistics).standardise(features.extract(backbone, pixels, settings))
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
        """D = f - f_hat `[n h w c]` of RGB images in 0..255 (Eq. 2)."""

        def function(params: Params, f: Array) -> tuple[Array]:
            return (f - self.reconstruct(params, f),)

        f = self.features(images, mesh)
        size = self.settings.batch_size
        return in_batches(function, self.params, f, mesh, batch_size=size, label="differences")[0]


def _state(statistics: features.Statistics) -> nnx.State:
    return nnx.State({k: nnx.BatchStat(jnp.asarray(v)) for k, v in statistics._asdict().items()})


def _statistics(state: Statistics) -> features.Statistics:
    return features.Statistics(state["mean"][...], state["std"][...])
