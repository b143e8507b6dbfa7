"""What of the project is timed, as the experiments use it. Nothing here imports PyTorch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from adtr_jax import backbones, detectors, features, train
from adtr_jax.config import AdtrSettings
from adtr_jax.data.images import load_images
from adtr_jax.data.samples import GOOD, Sample
from adtr_jax.detectors.detector import Detector
from adtr_jax.sharding import device_mesh, place
from benchmarks.sizes import Sizes


def full_precision(sizes: Sizes) -> None:
    """float32 products in float32, as in the experiments; bfloat16 as the device likes."""
    precision = "highest" if sizes.dtype == "float32" else "default"
    jax.config.update("jax_default_matmul_precision", precision)


def extractor(detector: Detector) -> tuple[Callable[..., jax.Array], nnx.State]:
    """A compiled function of its second result and of pixels `[b s s 3]`, which computes F."""
    graph, state = nnx.split(detector.backbone)

    @jax.jit
    def extract(state: nnx.State, pixels: jax.Array) -> jax.Array:
        return features.extract(nnx.merge(graph, state), pixels, detector.settings)

    return extract, jax.device_put(state)


def training_images(detector: Detector, images: np.ndarray) -> tuple[Detector, train.TrainingData]:
    """The features of a category's images, and the detector fitted to them."""
    return detector.training_data(images, device_mesh())


def training(detector: Detector, data: train.TrainingData) -> Any:
    """Compilation, all epochs, log and checkpoint; returns the parameters."""
    with TemporaryDirectory() as directory:
        return train.fit(
            detector.loss,
            (detector.params, detector.statistics),
            data,
            settings=detector.settings,
            mesh=device_mesh(),
            directory=Path(directory),
            label="benchmark",
        )[0]


def predict(detector: Detector, files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Image files -> score maps `[n s s]` and image scores `[n]`, on the host."""
    samples = [Sample(file.name, file, GOOD) for file in files]
    return detector.score(load_images(samples, detector.settings.image_size), device_mesh())


def untrained(settings: AdtrSettings) -> Detector:
    """A detector whose backbone has shapes and no weights, for it is not called."""
    backbone = nnx.eval_shape(lambda: backbones.create(settings.backbone, rngs=nnx.Rngs(0)))
    return detectors.create(backbone, settings)


def training_epoch(
    detector: Detector, f: np.ndarray, steps: int
) -> tuple[Callable[..., Any], train.TrainState, tuple]:
    """An epoch of `steps` steps, all on the same features `[b h w c]`.

    Returns:
        The compiled program, its first state, which it overwrites, and its other arguments.
    """
    mesh, settings = device_mesh(), detector.settings
    optimiser = train.make_optimiser(settings, train.learning_rate(settings, 500, steps))
    epoch = train.compile_epoch(detector.loss, optimiser, settings.seed, mesh)
    params, statistics = jax.tree.map(jnp.copy, (detector.params, detector.statistics))
    state = train.TrainState(params, statistics, optimiser.init(params), jnp.int32(0))
    order = np.tile(np.arange(len(f), dtype=np.int32), (steps, 1))
    arguments = (f, order, np.ones((steps, len(f)), np.float32))
    return epoch, place(state, mesh), place(arguments, mesh)
