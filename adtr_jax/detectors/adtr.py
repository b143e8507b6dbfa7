"""ADTR (You et al.): a transformer reconstructs the features of normal images (Section 3.1)."""

import dataclasses
import functools
from dataclasses import dataclass

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt32

from adtr_jax import models
from adtr_jax.backbones.backbone import Backbone
from adtr_jax.config import AdtrSettings
from adtr_jax.detectors import extraction, features
from adtr_jax.detectors.cache_key import cache_key
from adtr_jax.detectors.detector import Detector, Images, Others
from adtr_jax.detectors.scoring import relative_scores, score_map, token_scores
from adtr_jax.detectors.standardisation import Standardisation
from adtr_jax.detectors.token_positions import token_positions
from adtr_jax.devices import hosts
from adtr_jax.devices.batched_function import BatchedFunction
from adtr_jax.devices.feature_cache import Arrays, FeatureCache
from adtr_jax.devices.loader import Shard
from adtr_jax.models import losses
from adtr_jax.nn.jitter import jitter
from adtr_jax.training.train import Batch, Params, Rest, TrainingData

Features = Float[np.ndarray, "n h w c"]


@dataclass(frozen=True, eq=False)
class AdtrDetector(Detector):
    """F -> f_hat.

    Its `rest` is a `Standardisation` of the features; in it, if the settings standardise, another
    one of their relative scores: `scores`.
    """

    settings: AdtrSettings

    @classmethod
    def create(cls, backbone: Backbone, settings: AdtrSettings) -> "AdtrDetector":
        """See `Detector`; the standardisations change nothing until they are fitted."""
        made = super().create(backbone, settings)
        blank = Standardisation.unit(features.channels(backbone, settings.layers))
        return dataclasses.replace(made, rest=made._standardisations(blank))

    def _standardisations(
        self, features: Standardisation, scores: Standardisation | None = None
    ) -> nnx.State:
        """Returns the `rest` of these."""
        rest = features.state()
        if self.settings.standardise:
            h, w, _ = self._shape
            rest["scores"] = (scores or Standardisation.unit(h, w)).state()
        return rest

    @staticmethod
    def model(backbone: Backbone, settings: AdtrSettings, rngs: nnx.Rngs) -> nnx.Module:
        """See `Detector`."""
        return models.create(settings, features.channels(backbone, settings.layers), rngs=rngs)

    def training_data(
        self, images: Images, mesh: Mesh, cache: FeatureCache, held_out: Others | None = None
    ) -> "tuple[AdtrDetector, TrainingData]":
        """Extracts the features, and fits the standardisation to those that are trained on."""
        program = extraction.extractor(self.backbone, self.settings, mesh)
        shard = self.examples(images, program, cache)
        others = None if held_out is None else self.examples(held_out, program, cache)
        data = TrainingData(shard, len(images), others)
        if not self.settings.standardise:
            return self, data
        rest = self._standardisations(Standardisation.fit(shard))
        return dataclasses.replace(self, rest=rest), data

    def examples(self, images: Images, program: BatchedFunction, cache: FeatureCache) -> Shard:
        """Extracts the features of this process's share of the images by the `extractor`."""
        own = images[hosts.share(len(images))]

        def fill(arrays: Arrays) -> None:
            program.compute_own(own, arrays)

        key = functools.partial(cache_key, self.backbone, own, self.settings)
        return Shard(cache.arrays(key, [(len(own), *self._shape)], fill)[0], len(images))

    def calibrated(self, data: TrainingData, mesh: Mesh) -> "AdtrDetector":
        """Fits the standardisation of relative scores to the normal training images."""
        if not self.settings.standardise:
            return self

        def function(state: tuple[Params, Rest], f: Array) -> tuple[Array]:
            params, rest = state
            f = self.standardised(rest, f)
            return (relative_scores(f, self.reconstruct(params, f)),)

        state = self.params, self.rest
        size = extraction.images_at_once(self.settings, mesh)
        batches = BatchedFunction(function, state, mesh, size=size, label="calibration")
        f, *_ = jax.tree.leaves(data.examples.arrays)  # anomalies, if any, follow the normal ones
        normal = max(0, min(len(f), data.normal - hosts.share(data.examples.total).start))
        scores = np.zeros(f.shape[:3], np.float32)
        batches.compute_own(f[:normal], [scores[:normal]])
        scores = hosts.gather(scores, data.examples.total)[: data.normal]
        fitted = Standardisation.of_scores(scores)
        rest = self._standardisations(Standardisation.of_state(self.rest), fitted)
        return dataclasses.replace(self, rest=rest)

    @property
    def _shape(self) -> tuple[int, int, int]:
        """h, w and c."""
        side = self.settings.tokens_per_side
        return side, side, features.channels(self.backbone, self.settings.layers)

    def loss(self, params: Params, rest: Rest, batch: Batch) -> tuple[Float[Array, "b"], Rest]:
        """Eq. 1, with dropout; what is reconstructed may be jittered, what is aimed at is not."""
        f = self.standardised(rest, batch.examples)
        return losses.normal(f, self.reconstruct(params, f, batch.seeds)), rest

    def standardised(self, rest: Rest, f: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns the features as the model takes them: standardised, if the settings say so."""
        return Standardisation.of_state(rest)(f) if self.settings.standardise else f

    def maps(
        self, backbone: Backbone, params: Params, rest: Rest, pixels: Array
    ) -> tuple[Float[Array, "b h w"], Float[Array, "b s s"]]:
        """Eqs. 2 and 3; see `Detector`."""
        settings = self.settings
        f = self.standardised(rest, features.extract(backbone, pixels, settings))
        f_hat = self.reconstruct(params, f)
        tokens = token_scores(f, f_hat)
        centres = settings.placement == "centres"
        positions = token_positions(backbone, settings) if centres else None
        maps = score_map(tokens, settings.image_size, positions)
        if settings.image_score == "relative":
            tokens = Standardisation.of_state(rest["scores"])(relative_scores(f, f_hat))
        return tokens, maps

    def features(self, images: Images, mesh: Mesh) -> Features:
        """Extracts F `[n h w c]` of RGB images in 0..255, standardised if the settings say so."""
        f = extraction.compute(self.backbone, images, self.settings, mesh)
        if not self.settings.standardise:
            return f
        return Standardisation(*map(np.asarray, Standardisation.of_state(self.rest)))(f)

    def reconstruct(
        self, params: Params, f: Float[Array, "b h w c"], seed: UInt32[Array, "b"] | None = None
    ) -> Float[Array, "b h w c"]:
        """Returns f_hat; with jitter and dropout where there is one seed an image."""
        if seed is not None and self.settings.jitter is not None:
            f = jitter(f, self.settings.jitter, seed)
        return nnx.merge(self.graph, params)(f, seed)

    def differences(self, images: Images, mesh: Mesh) -> Features:
        """Computes D = f - f_hat `[n h w c]` of RGB images in 0..255 (Eq. 2), in every process."""

        def function(params: Params, f: Array) -> tuple[Array]:
            return (f - self.reconstruct(params, f),)

        f = self.features(images, mesh)
        size = extraction.images_at_once(self.settings, mesh)
        program = BatchedFunction(function, self.params, mesh, size=size, label="differences")
        return program.compute_all(f)[0]
