"""What every method is to the rest of the code: how it is trained, and how it scores images."""

import abc
import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from adtr_jax.backbones.backbone import Backbone
from adtr_jax.data.lazy import LazyArray
from adtr_jax.detectors import extraction, features
from adtr_jax.detectors.collect import ScoredPart
from adtr_jax.detectors.scoring import image_score
from adtr_jax.devices.batched_function import BatchedFunction
from adtr_jax.devices.feature_cache import FeatureCache
from adtr_jax.devices.sharding import device_mesh
from adtr_jax.nn.shapes import module_shapes
from adtr_jax.training.train import Batch, Params, Rest, TrainingData

Images = UInt8[np.ndarray | LazyArray, "n s s 3"]
Others = UInt8[np.ndarray | LazyArray, "m s s 3"]
This = TypeVar("This", bound="Detector")


@dataclass(frozen=True, eq=False)
class Detector(abc.ABC):
    """A frozen backbone and a model of its features.

    It never changes: training returns another detector. Like Flax modules, detectors are compared
    and hashed by identity.

    Attributes:
        backbone: the frozen network.
        settings: how to train and score.
        graph: the model's structure.
        params: what is trained by gradients.
        rest: all else that is learned from the training images, such as BatchNorm's statistics.
        backbone_sha256: of the backbone's weights, where it lacks some; "": it is whole.
    """

    prefix: ClassVar[str] = ""  # of the options, on the command line, that say how long it trains

    backbone: Backbone
    settings: Any
    graph: nnx.GraphDef
    params: nnx.State
    rest: nnx.State
    backbone_sha256: str = dataclasses.field(default="", kw_only=True)

    @classmethod
    def create(cls: type[This], backbone: Backbone, settings: Any) -> This:
        """Returns a detector with shapes in place of values (see `initialised`, `model_file`)."""
        model = module_shapes(lambda rngs: cls.model(backbone, settings, rngs))
        return cls(backbone, settings, *nnx.split(model, nnx.Param, nnx.BatchStat))

    def initialised(self: This) -> This:
        """Returns the detector before its training, parameters drawn from the settings' seed."""
        model = self.model(self.backbone, self.settings, nnx.Rngs(self.settings.seed))
        params, rest = nnx.state(model, nnx.Param, nnx.BatchStat)
        # A model without such variables leaves those of the detector itself.
        return dataclasses.replace(self, params=params, rest=rest or self.rest)

    @staticmethod
    @abc.abstractmethod
    def model(backbone: Backbone, settings: Any, rngs: nnx.Rngs) -> nnx.Module:
        """Returns the model that is trained; draws its parameters from the stream `params`."""

    @abc.abstractmethod
    def training_data(
        self, images: Images, mesh: Mesh, cache: FeatureCache, held_out: Others | None = None
    ) -> "tuple[Detector, TrainingData]":
        """Computes what the loss takes; also returns the detector as fitted to these images.

        Args:
            images: normal RGB images in 0..255, the same in every process, which takes its share.
            mesh: all devices.
            cache: where features are kept.
            held_out: others, to which nothing is fitted; None: there are none.
        """

    @abc.abstractmethod
    def loss(self, params: Params, rest: Rest, batch: Batch) -> tuple[Float[Array, "b"], Rest]:
        """Computes one loss an image of a device's part of a batch, and the new `rest`."""

    @abc.abstractmethod
    def maps(
        self, backbone: Backbone, params: Params, rest: Rest, pixels: Array
    ) -> tuple[Float[Array, "b h w"], Float[Array, "b s s"]]:
        """Computes the scores of all positions and the score maps.

        Args:
            backbone, params, rest: in place of the detector's own, which would be constants of the
                compiled program.
            pixels: RGB images `[b s s 3]` in 0..255.
        """

    def calibrated(self, data: TrainingData, mesh: Mesh) -> "Detector":
        """Returns the trained detector with what scoring takes from the training data, if any."""
        del data, mesh
        return self

    def maps_and_scores(
        self, backbone: Backbone, params: Params, rest: Rest, pixels: Array
    ) -> tuple[Float[Array, "b s s"], Float[Array, "b"]]:
        """Computes the score maps and image scores; the arguments are those of `maps`."""
        positions, maps = self.maps(backbone, params, rest, pixels)
        return maps, image_score(positions, maps, self.settings.image_score)

    def score(
        self, images: Images, mesh: Mesh | None = None
    ) -> tuple[Float[np.ndarray, "n s s"], Float[np.ndarray, "n"]]:
        """Computes the score maps and image scores of RGB images in 0..255.

        Larger is more anomalous. Every process takes its share of the images and returns all
        results. The default mesh is `device_mesh()`.
        """
        maps, scores = self.scorer(mesh or device_mesh()).compute_all(images)
        return maps, scores

    def score_and_embed(
        self, images: Images, mesh: Mesh | None = None
    ) -> tuple[Float[np.ndarray, "n s s"], Float[np.ndarray, "n"], Float[np.ndarray, "n c"]]:
        """As `score`, and the images' embeddings (`features.embed`), by the same program."""
        maps, scores, embeddings = self.scorer(mesh or device_mesh(), embed=True).compute_all(
            images
        )
        return maps, scores, embeddings

    def scores_in_parts(self, images: Images, mesh: Mesh | None = None) -> Iterator[ScoredPart]:
        """As `score` of this process's images, some at a time, and which of them they are."""
        for part, (maps, scores) in self.scorer(mesh or device_mesh()).batches(images):
            yield part, maps, scores

    @property
    def batch(self) -> int:
        """The images that `score` takes at once on the default mesh, where there are enough."""
        return self.scorer(device_mesh()).batch

    def scorer(self, mesh: Mesh, *, embed: bool = False) -> BatchedFunction:
        """Returns the program that `score` runs: pixels `[b s s 3]` -> maps, scores.

        With `embed` the images' embeddings follow: XLA computes the features once for all.
        """
        if (mesh, embed) not in self._scorers:
            network, kernels = extraction.frozen(self.backbone)

            def function(state: Any, pixels: Array) -> tuple[Array, ...]:
                kernels, params, rest = state
                backbone = network(kernels)
                found = self.maps_and_scores(backbone, params, rest, pixels)
                more = (features.embed(backbone, pixels, self.settings),) if embed else ()
                return *found, *more

            state = (kernels, self.params, self.rest)
            size = extraction.images_at_once(self.settings, mesh)
            program = BatchedFunction(function, state, mesh, size=size, label="scores")
            self._scorers[mesh, embed] = program
        return self._scorers[mesh, embed]

    @functools.cached_property
    def _scorers(self) -> dict[tuple[Mesh, bool], BatchedFunction]:
        return {}
