"""GTrans (Yan et al.): a second network learns to imitate the frozen one on normal images."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from adtr_jax import backbones
from adtr_jax.backbones.backbone import Backbone
from adtr_jax.config import GtransSettings
from adtr_jax.data.lazy import PART
from adtr_jax.detectors import extraction, features, gtrans_map
from adtr_jax.detectors.cache_key import cache_key
from adtr_jax.detectors.detector import Detector, Images, Others
from adtr_jax.devices import hosts
from adtr_jax.devices.batched_function import BatchedFunction
from adtr_jax.devices.feature_cache import Arrays, FeatureCache
from adtr_jax.devices.loader import Shard
from adtr_jax.models.gtrans import GTrans, guidance_loss
from adtr_jax.training.train import Batch, Params, Rest, TrainingData

State = tuple[Params, Rest]
Examples = tuple[UInt8[Any, "b s s 3"], tuple[Float[Any, "b _ _ _"], ...]]  # images, F_G


@dataclass(frozen=True, eq=False)
class GtransDetector(Detector):
    """F_G -> F_M, and the images again: Trans sees them too.

    The backbone is AGN. The rest are those of Trans's BatchNorm layers, and the lambdas of
    Eq. 18.
    """

    settings: GtransSettings

    @staticmethod
    def model(backbone: Backbone, settings: GtransSettings, rngs: nnx.Rngs) -> GTrans:
        """See `Detector`; Trans is a network of the backbone's kind with random weights."""
        del backbone
        return GTrans(
            backbones.create(settings.backbone, rngs=rngs),
            settings.layers,
            structure=settings.structure,
            blocks=settings.blocks,
            query_from=settings.query_from,
            groups=settings.groups,
            width=settings.width,
            dtype=jnp.dtype(settings.dtype),
            rngs=rngs,
        )

    def training_data(
        self, images: Images, mesh: Mesh, cache: FeatureCache, held_out: Others | None = None
    ) -> "tuple[GtransDetector, TrainingData]":
        """This process's images, and AGN's features of them: F_G never changes."""
        program = extraction.layers_extractor(self.backbone, self.settings, mesh)
        shard = self._examples(images, program, cache)
        others = None if held_out is None else self._examples(held_out, program, cache)
        return self, TrainingData(shard, len(images), others)

    def _examples(self, images: Images, program: BatchedFunction, cache: FeatureCache) -> Shard:
        own = images[hosts.share(len(images))]

        def fill(arrays: Arrays) -> None:
            *f_g, pixels = arrays
            for start in range(0, len(own), PART):
                pixels[start : start + PART] = own[start : start + PART]
            program.compute_own(pixels, f_g)

        key = functools.partial(cache_key, self.backbone, own, self.settings)
        layers = features.layer_shapes(self.backbone, self.settings)
        shapes = [(len(own), *shape) for shape in layers]
        dtypes = [np.float32] * len(layers) + [np.uint8]
        *f_g, pixels = cache.arrays(key, [*shapes, own.shape], fill, dtypes)
        return Shard((pixels, tuple(f_g)), len(images))

    def loss(self, params: Params, rest: Rest, batch: Batch) -> tuple[Float[Array, "b"], Rest]:
        """Eqs. 13 and 14, and BatchNorm's running rest after the batch."""
        pixels, f_g = batch.examples
        model = nnx.merge(self.graph, params, rest, copy=True)  # BatchNorm writes to it
        values = guidance_loss(f_g, model(pixels, f_g, batch.weight))
        return values, nnx.state(model, nnx.BatchStat)

    def calibrated(self, data: TrainingData, mesh: Mesh) -> "GtransDetector":
        """Sets the lambdas of Eq. 18, which bring a_mse and a_cos to one scale."""

        def function(state: State, examples: Examples) -> tuple[Array, Array]:
            pixels, f_g = examples
            f_m = nnx.merge(self.graph, *state)(pixels, f_g)
            layers = list(zip(f_g, f_m, strict=True))
            a_mse = [gtrans_map.squared_distance(g, m) for g, m in layers]
            a_cos = [gtrans_map.cosine_distance(g, m) for g, m in layers]
            return jnp.stack(a_mse, axis=-1), jnp.stack(a_cos, axis=-1)

        state = self.params, self.rest
        size = extraction.images_at_once(self.settings, mesh)
        batches = BatchedFunction(function, state, mesh, size=size, label="calibration")
        own = batches.compute_own(data.examples.arrays)
        a_mse, a_cos = (hosts.gather(values, data.examples.total) for values in own)
        model = nnx.merge(self.graph, *state, copy=True)
        model.lambdas[...] = jnp.asarray(gtrans_map.lambdas(a_mse, a_cos))
        return dataclasses.replace(self, rest=nnx.state(model, nnx.BatchStat))

    def maps(
        self, backbone: Backbone, params: Params, rest: Rest, pixels: Array
    ) -> tuple[Float[Array, "b s s"], Float[Array, "b s s"]]:
        """Eqs. 15 to 19; the positions are the map's pixels."""
        layers = self._layer_maps(backbone, params, rest, pixels)
        maps = gtrans_map.anomaly_map(layers, self.settings.fusion)
        return maps, maps

    def layer_maps(self, images: Images, mesh: Mesh) -> list[Float[np.ndarray, "n s s"]]:
        """Computes the weighted maps of the critical layers, and the fused one, as in Fig. 4.

        Args:
            images: RGB in 0..255; every process takes its share and returns all results.
            mesh: all devices.
        """
        network, kernels = extraction.frozen(self.backbone)

        def function(state: Any, pixels: Array) -> tuple[Array, ...]:
            kernels, params, rest = state
            layers = self._layer_maps(network(kernels), params, rest, pixels)
            return *layers, gtrans_map.anomaly_map(layers, self.settings.fusion)

        state = (kernels, self.params, self.rest)
        size = extraction.images_at_once(self.settings, mesh)
        return BatchedFunction(function, state, mesh, size=size, label="maps").compute_all(images)

    def _layer_maps(
        self, backbone: Backbone, params: Params, rest: Rest, pixels: Array
    ) -> list[Float[Array, "b s s"]]:
        """`gtrans_map.layer_maps`; the arguments are those of `maps`."""
        settings = self.settings
        f_g = features.extract_layers(backbone, pixels, settings)
        model = nnx.merge(self.graph, params, rest)
        placed = None
        if settings.placement == "centres":
            placed = [(2.0**i, backbone.centres[i - 1]) for i in settings.layers]
        return gtrans_map.layer_maps(
            f_g,
            model(pixels, f_g),
            model.lambdas[...],
            settings.image_size,
            weighting=settings.coefficient,
            pixels=placed,
        )
