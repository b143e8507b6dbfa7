"""The timed parts of the project, as the experiments use them. Nothing here imports PyTorch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from adtr_jax import backbones, detectors
from adtr_jax.api.model import Model
from adtr_jax.backbones.backbone import Backbone
from adtr_jax.config import AdtrSettings, Settings
from adtr_jax.data.images import load_images
from adtr_jax.data.samples import GOOD, Sample
from adtr_jax.detectors import extraction, features
from adtr_jax.detectors.detector import Detector
from adtr_jax.devices.batched_function import BatchedFunction
from adtr_jax.devices.feature_cache import FeatureCache
from adtr_jax.devices.loader import EpochPart
from adtr_jax.devices.sharding import device_mesh, place
from adtr_jax.training import train


def mesh() -> Mesh:
    """Returns a mesh of one device, as PyTorch uses one."""
    return device_mesh(1)


def random_backbone(name: str) -> Backbone:
    """Returns a network with random kernels and all else 1, without compiling anything."""
    graph, state = nnx.split(backbones.shapes(name))
    rng = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if len(leaf.shape) < 2:
            return jnp.ones(leaf.shape, leaf.dtype)
        scale = np.sqrt(leaf.shape[-1] / np.prod(leaf.shape))
        return jnp.asarray(scale * rng.standard_normal(leaf.shape), leaf.dtype)

    return nnx.merge(graph, jax.tree.map(draw, state))


def random_model(settings: Settings) -> Model:
    """Returns a model with initial values in network and detector, and no threshold."""
    backbone = nnx.jit(lambda: backbones.create(settings.backbone, rngs=nnx.Rngs(0)))()
    backbone.trim(max(settings.layers))
    return Model(detectors.create(backbone, settings).initialised(), None, (0.0, 1.0))


def extractor(detector: Detector) -> BatchedFunction:
    """Returns the program for pixels `[n s s 3]` -> F."""
    return extraction.extractor(detector.backbone, detector.settings, mesh())


def predictor(detector: Detector) -> BatchedFunction:
    """Returns the program for pixels -> score maps and image scores."""
    return detector.scorer(mesh())


def training(detector: Detector, images: np.ndarray) -> Any:
    """Trains on a category's images in memory and returns the parameters.

    Includes features, compilation, all epochs, log and checkpoint.
    """
    with TemporaryDirectory() as name:
        directory = Path(name)
        cache = FeatureCache(directory / ".features")
        fitted, data = detector.training_data(images, mesh(), cache)
        return train.fit(
            fitted.loss,
            (fitted.params, fitted.rest),
            data,
            settings=fitted.settings,
            mesh=mesh(),
            directory=directory,
            label="benchmark",
        )[0]


def predict(detector: Detector, files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the score maps `[n s s]` and image scores `[n]` of image files, on the host."""
    samples = [Sample(file.name, file, GOOD) for file in files]
    return detector.score(load_images(samples, detector.settings.image_size), mesh())


def untrained(settings: AdtrSettings) -> Detector:
    """Returns a detector whose backbone has shapes and no weights, because it is not called."""
    return detectors.create(backbones.shapes(settings.backbone), settings).initialised()


def random_features(detector: Detector, batch: int) -> np.ndarray:
    """Returns F `[b h w c]` for `training_steps`, of mean 0 and standard deviation 1."""
    side = detector.settings.tokens_per_side
    width = features.channels(detector.backbone, detector.settings.layers)
    return np.random.default_rng(0).standard_normal((batch, side, side, width), np.float32)


Steps = Callable[..., tuple[train.TrainState, jax.Array]]


def training_steps(
    detector: Detector, f: np.ndarray, steps: int
) -> tuple[Steps, train.TrainState, tuple]:
    """Compiles `steps` steps, all on the same features `[b h w c]`, into one program.

    Returns:
        The program, a function of the state, which is donated, and of further arguments; it returns
        the next state and the losses. The first state. The further arguments.
    """
    devices, settings = mesh(), detector.settings
    optimiser = train.make_optimiser(settings)
    run = train.compile_steps(detector.loss, optimiser, devices)
    params, rest = jax.tree.map(jnp.copy, (detector.params, detector.rest))
    state = train.TrainState(params, rest, optimiser.init(params), jnp.int32(0))
    order = np.tile(np.arange(len(f), dtype=np.int32), (steps, 1))
    part = EpochPart(place(f, devices), order, np.ones((steps, len(f)), np.float32))
    rates = train.learning_rates(settings, 500, steps)
    pace = place(train.Pace.of(rates[0], settings.seed), devices)
    return run, place(state, devices), (pace, *train.placed(part, devices))
