"""The whole chain of a trained model: image -> features -> reconstruction -> score map, score."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8, UInt32

from adtr_jax import losses, models, state_file
from adtr_jax.backbones.backbone import Backbone
from adtr_jax.config import Settings
from adtr_jax.features import Statistics, channels, compute, extract, token_pixels
from adtr_jax.scoring import image_score, score_map, token_scores
from adtr_jax.sharding import in_batches

Features = Float[np.ndarray, "n h w c"]


@dataclass(frozen=True)
class Detector:
    """A frozen backbone and the model that reconstructs its features, its parameters held apart."""

    backbone: Backbone
    settings: Settings
    statistics: Statistics
    graph: nnx.GraphDef
    params: nnx.State

    @classmethod
    def create(cls, backbone: Backbone, settings: Settings, statistics: Statistics) -> "Detector":
        """A detector with fresh parameters, drawn from the settings' seed."""
        model = models.create(
            settings.model,
            channels(backbone, settings.layers),
            settings.tokens_per_side**2,
            rate=settings.dropout,
            aligned=settings.aligned,
            dtype=jnp.dtype(settings.dtype),
            rngs=nnx.Rngs(settings.seed),
        )
        graph, params = nnx.split(model)
        return cls(backbone, settings, statistics, graph, params)

    def features(self, images: UInt8[np.ndarray, "n s s 3"], mesh: Mesh) -> Features:
        """F `[n h w c]` of RGB images in 0..255, standardised if the settings say so."""
        f = compute(self.backbone, images, self.settings, mesh)
        return self.statistics.standardise(f) if self.settings.standardise else f

    def reconstruct(
        self, params: nnx.State, f: Float[Array, "b h w c"], seed: UInt32[Array, "b"] | None = None
    ) -> Float[Array, "b h w c"]:
        """f_hat; with dropout where there is one seed an image."""
        return nnx.merge(self.graph, params)(f, seed)

    def loss(
        self, params: nnx.State, f: Float[Array, "b h w c"], seed: UInt32[Array, "b"]
    ) -> Float[Array, "b"]:
        """Eq. 1 for every image of a part of the batch, with dropout drawn from `seed`."""
        return losses.normal(f, self.reconstruct(params, f, seed))

    def differences(self, images: UInt8[np.ndarray, "n s s 3"], mesh: Mesh) -> Features:
        """D = f - f_hat `[n h w c]` of RGB images in 0..255 (Eq. 2)."""

        def function(params: nnx.State, f: Array) -> tuple[Array]:
            return (f - self.reconstruct(params, f),)

        f = self.features(images, mesh)
        size = self.settings.batch_size
        return in_batches(function, self.params, f, mesh, batch_size=size, label="differences")[0]

    def score(
        self, images: UInt8[np.ndarray, "n s s 3"], mesh: Mesh
    ) -> tuple[Float[np.ndarray, "n s s"], Float[np.ndarray, "n"]]:
        """The score maps and the image scores of RGB images in 0..255; larger: more anomalous."""
        backbone_graph, backbone_state = nnx.split(self.backbone)
        settings = self.settings
        centres = settings.placement == "centres"
        tokens_at = token_pixels(self.backbone, settings) if centres else None

        def function(state: Any, pixels: Array) -> tuple[Array, Array]:
            backbone_state, params, statistics = state
            backbone = nnx.merge(backbone_graph, backbone_state)
            f = statistics.standardise(extract(backbone, pixels, settings))
            tokens = token_scores(f, self.reconstruct(params, f))
            maps = score_map(tokens, settings.image_size, tokens_at)
            return maps, image_score(tokens, maps, settings.image_score)

        state = (backbone_state, self.params, self.statistics)
        batch_size = settings.batch_size
        maps, scores = in_batches(
            function, state, images, mesh, batch_size=batch_size, label="scores"
        )
        return maps, scores

    def save(self, path: Path) -> None:
        """Writes parameters, statistics and, in the header, the settings to a safetensors file."""
        header = {"settings": json.dumps(dataclasses.asdict(self.settings))}
        state_file.save(path, self._state(), header)

    def load(self, path: Path) -> "Detector":
        """This detector with the parameters and statistics that `save` wrote to `path`.

        Raises:
            InputError: a missing or damaged file, or one of another model.
        """
        state = state_file.load(
            path, self._state(), "delete it, and the same command makes it again"
        )
        statistics = Statistics(**{k: np.asarray(v[...]) for k, v in state["statistics"].items()})
        return dataclasses.replace(self, statistics=statistics, params=state["model"])

    def _state(self) -> nnx.State:
        """All arrays of the file."""
        statistics = {
            k: nnx.BatchStat(jnp.asarray(v)) for k, v in self.statistics._asdict().items()
        }
        return nnx.State({"model": self.params, "statistics": statistics})
