"""What every method is to the rest of the code: how it is trained, and how it scores images."""

import abc
import dataclasses
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from adtr_jax.backbones.backbone import Backbone
from adtr_jax.detectors import features
from adtr_jax.detectors.scoring import image_score
from adtr_jax.devices.batches import Batches
from adtr_jax.devices.feature_cache import FeatureCache
from adtr_jax.files import state_file
from adtr_jax.nn.shapes import module_shapes
from adtr_jax.training.train import Batch, Params, Statistics, TrainingData

Images = UInt8[np.ndarray, "n s s 3"]
This = TypeVar("This", bound="Detector")


@dataclass(frozen=True)
class Detector(abc.ABC):
    """A frozen backbone and a model of its features; what the model has learned is held apart.

    Attributes:
        backbone: the network.
        settings: how to train and score.
        graph: the model's structure.
        params: what is trained by gradients.
        statistics: what is learned from the training data without gradients.
    """

    backbone: Backbone
    settings: Any
    graph: nnx.GraphDef
    params: nnx.State
    statistics: nnx.State

    @classmethod
    def create(cls: type[This], backbone: Backbone, settings: Any) -> This:
        """A detector with shapes for values, which `initialised` draws or `load` reads."""
        model = module_shapes(lambda rngs: cls.model(backbone, settings, rngs))
        return cls(backbone, settings, *nnx.split(model, nnx.Param, nnx.BatchStat))

    def initialised(self: This) -> This:
        """This detector before its training, its parameters drawn from the settings' seed."""
        model = self.model(self.backbone, self.settings, nnx.Rngs(self.settings.seed))
        params, statistics = nnx.state(model, nnx.Param, nnx.BatchStat)
        # Those of a model that has none are the detector's own, and stay.
        return dataclasses.replace(self, params=params, statistics=statistics or self.statistics)

    @staticmethod
    @abc.abstractmethod
    def model(backbone: Backbone, settings: Any, rngs: nnx.Rngs) -> nnx.Module:
        """What is trained, its parameters drawn from the stream `params`."""

    @abc.abstractmethod
    def training_data(
        self, images: Images, mesh: Mesh, cache: FeatureCache
    ) -> "tuple[Detector, TrainingData]":
        """What the loss takes, of normal RGB images in 0..255; and the detector fitted to it.

        Args:
            images: the same in every process, which takes its share of them.
            mesh: all devices.
            cache: where features are kept.
        """

    @abc.abstractmethod
    def loss(
        self, params: Params, statistics: Statistics, batch: Batch
    ) -> tuple[Float[Array, "b"], Statistics]:
        """One loss an image of a device's part of a batch, and the statistics after it."""

    @abc.abstractmethod
    def maps(
        self, backbone: Backbone, params: Params, statistics: Statistics, pixels: Array
    ) -> tuple[Float[Array, "b h w"], Float[Array, "b s s"]]:
        """The scores of all positions, and the score maps, of RGB images `[b s s 3]` in 0..255."""

    def calibrated(self, data: TrainingData, mesh: Mesh) -> "Detector":
        """The trained detector with what scoring takes from the training data, if anything."""
        del data, mesh
        return self

    def score(
        self, images: Images, mesh: Mesh
    ) -> tuple[Float[np.ndarray, "n s s"], Float[np.ndarray, "n"]]:
        """The score maps and the image scores of RGB images in 0..255; larger: more anomalous.

        Every process takes its share of the images, and returns all results.
        """
        maps, scores = self.scorer(mesh).of_all(images)
        return maps, scores

    def scorer(self, mesh: Mesh) -> Batches:
        """What `score` runs: pixels `[b s s 3]` -> maps, scores."""
        if mesh not in self._scorers:
            network, kernels = features.frozen(self.backbone)

            def function(state: Any, pixels: Array) -> tuple[Array, Array]:
                kernels, params, statistics = state
                positions, maps = self.maps(network(kernels), params, statistics, pixels)
                return maps, image_score(positions, maps, self.settings.image_score)

            state = (kernels, self.params, self.statistics)
            size = features.images_at_once(self.settings, mesh)
            self._scorers[mesh] = Batches(function, state, mesh, size=size, label="scores")
        return self._scorers[mesh]

    @functools.cached_property
    def _scorers(self) -> dict[Mesh, Batches]:
        """What is compiled already: images may come one by one."""
        return {}

    def save(self, path: Path) -> None:
        """Writes what was learned and, in the header, the settings to a safetensors file."""
        header = {"settings": json.dumps(dataclasses.asdict(self.settings))}
        state_file.save(path, self._state(), header)

    def load(self, path: Path) -> "Detector":
        """This detector with what `save` wrote to `path`.

        Raises:
            InputError: a missing or damaged file, or one of another model.
        """
        remedy = "delete it, and the same command makes it again"
        state = state_file.load(path, self._state(), remedy)
        statistics = state.get("statistics", nnx.State({}))
        return dataclasses.replace(self, params=state["model"], statistics=statistics)

    def _state(self) -> nnx.State:
        return nnx.State({"model": self.params, "statistics": self.statistics})
