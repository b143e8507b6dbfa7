"""Section 3.2's study: do one-layer networks also reconstruct the features of anomalies?

A linear layer (Eq. 4) and an attention layer with a learned query (Eq. 5) are trained on the
features of normal images. The linear layer can reconstruct everything by becoming the identity; in
an attention layer, every position would have to attend to itself alone.

The size of the errors distinguishes them; AUROCs do not: on toothbrush a linear layer that has
become the identity to six digits reconstructs anomalies with an error of 1e-12, and this rounding
noise, larger where features are larger, still reaches a pixel AUROC of 0.98.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float

from adtr_jax.backbones.backbone import Backbone
from adtr_jax.config import AdtrSettings
from adtr_jax.detectors import extraction
from adtr_jax.detectors.adtr_plus import token_labels
from adtr_jax.detectors.scoring import image_score, score_map, token_scores
from adtr_jax.detectors.standardisation import Standardisation
from adtr_jax.detectors.token_positions import token_positions
from adtr_jax.devices.loader import Shard
from adtr_jax.devices.sharding import compiler_options
from adtr_jax.errors import InputError
from adtr_jax.evaluation import metrics
from adtr_jax.evaluation.plots import LayerStudy
from adtr_jax.models.one_layer import AttentionLayer, LinearLayer
from adtr_jax.run import Task

Layer = TypeVar("Layer", LinearLayer, AttentionLayer)
# (the network at some step, its batch) -> values to record, by name
Measure = Callable[[Any, Float[Array, "b K C"]], dict[str, Float[Array, ""]]]


class Outcome(NamedTuple):
    """The result of one network.

    Attributes:
        picture: its row of the figure: the matrix, the training, the errors.
        values: numbers. An error is the squared difference of standardised features, averaged over
            positions and channels: predicting the channels' means gives 1.
    """

    picture: LayerStudy
    values: dict[str, float]


class Data(NamedTuple):
    """Standardised features, positions in one row, and where the test images are anomalous."""

    train: Float[np.ndarray, "n K C"]
    test: Float[np.ndarray, "m K C"]
    anomalous: Bool[np.ndarray, "m K"]

    @classmethod
    def of(cls, task: Task[AdtrSettings], backbone: Backbone) -> "Data":
        """Computes the features; raises InputError if the anomalous test images have no masks."""
        if task.masks is None:
            raise InputError(
                f"{task.category.name}: the study needs to know which pixels are anomalous, and "
                "there are no masks; add them, or choose another category"
            )
        mesh, settings = task.mesh, task.settings
        f = extraction.compute(backbone, task.images, settings, mesh)
        standardise = Standardisation.fit(Shard(f, len(f)))
        test = extraction.compute(backbone, task.test_images, settings, mesh)
        anomalous = token_labels(np.asarray(task.masks), settings.tokens_per_side)
        return cls(
            standardise(f).reshape(len(f), -1, f.shape[-1]),
            standardise(test).reshape(len(test), -1, f.shape[-1]),
            anomalous.reshape(len(test), -1),
        )


def study(task: Task[AdtrSettings], backbone: Backbone, steps: int) -> dict[str, Outcome]:
    """Trains both networks on a category's normal images, and applies them to its test images.

    Args:
        task: the images, and the settings of the features, scores, batch size, learning rate and
            seed; features are always standardised.

    Raises:
        InputError: there are no masks.
    """
    data = Data.of(task, backbone)
    positions = token_positions(backbone, task.settings)
    # Without this, float32 products run in TF32 on GPUs and in bfloat16 on TPUs.
    with jax.default_matmul_precision("highest"):
        return {
            "linear": _linear(data, task, positions, steps),
            "attention": _attention(data, task, positions, steps),
        }


def fit(
    layer: Layer,
    x: Float[np.ndarray, "n K C"],
    measure: Measure,
    settings: AdtrSettings,
    steps: int,
) -> tuple[Layer, dict[str, Float[np.ndarray, "steps"]]]:
    """Trains a network to reconstruct x by the mean squared error, as one compiled scan.

    By Adam with a cosine decay to zero, without weight decay, which would keep the linear layer
    from the identity.

    Args:
        x: features of normal images.
        measure: values to record at every step.
        settings: batch size, learning rate and seed.

    Returns:
        The trained network; and the curves of `error` and of all recorded values.
    """
    graph, params = nnx.split(layer)
    optimiser = optax.adam(optax.cosine_decay_schedule(settings.learning_rate, steps))

    def one_step(state: Any, batch: Array) -> Any:
        params, opt_state = state

        def error(params: Any) -> Array:
            return jnp.mean(jnp.square(nnx.merge(graph, params)(batch) - batch))

        value, gradients = jax.value_and_grad(error)(params)
        updates, opt_state = optimiser.update(gradients, opt_state, params)
        noted = {"error": value, **measure(nnx.merge(graph, params), batch)}
        return (optax.apply_updates(params, updates), opt_state), noted

    @functools.partial(jax.jit, compiler_options=compiler_options(jax.default_backend()))
    def run(params: Any, x: Array, order: Array) -> Any:
        state = (params, optimiser.init(params))
        return jax.lax.scan(lambda state, index: one_step(state, x[index]), state, order)

    size = (steps, min(settings.batch_size, len(x)))
    order = np.random.default_rng(settings.seed).integers(len(x), size=size, dtype=np.int32)
    (params, _), curves = run(params, jnp.asarray(x), jnp.asarray(order))
    return nnx.merge(graph, params), {name: np.asarray(curve) for name, curve in curves.items()}


def _linear(
    data: Data, task: Task[AdtrSettings], positions: tuple[float, float], steps: int
) -> Outcome:
    """Runs the linear layer (Eq. 4)."""

    def measure(layer: LinearLayer, x: Array) -> dict[str, Array]:
        bias = jnp.linalg.norm(layer.b[...])
        return {"||w - I|| / ||I||": layer.distance_to_identity(), "||b||": bias}

    layer = LinearLayer(data.train.shape[-1], rngs=nnx.Rngs(task.settings.seed))
    layer, curves = fit(layer, data.train, measure, task.settings, steps)
    error, values = _errors(layer, data, task, positions)
    values["distance_to_identity"] = float(layer.distance_to_identity())
    values["bias_norm"] = float(jnp.linalg.norm(layer.b[...]))
    picture = LayerStudy(
        "linear layer (Eq. 4)",
        np.abs(layer.w[...]),
        "|w|, channel to channel",
        curves,
        error[~data.anomalous],
        error[data.anomalous],
    )
    return Outcome(picture, values)


def _attention(
    data: Data, task: Task[AdtrSettings], positions: tuple[float, float], steps: int
) -> Outcome:
    """Runs the attention layer (Eq. 5)."""

    def measure(layer: AttentionLayer, x: Array) -> dict[str, Array]:
        return {"mean diagonal of the map": _diagonals(layer.map(x)).mean()}

    layer = AttentionLayer(*data.train.shape[1:], rngs=nnx.Rngs(task.settings.seed))
    layer, curves = fit(layer, data.train, measure, task.settings, steps)
    error, values = _errors(layer, data, task, positions)
    train_map = layer.map(jnp.asarray(data.train))
    diagonals = np.asarray(_diagonals(layer.map(jnp.asarray(data.test))))
    values["diagonal_training"] = float(_diagonals(train_map).mean())
    values["diagonal_normal"] = float(diagonals[~data.anomalous].mean())
    values["diagonal_anomalous"] = float(diagonals[data.anomalous].mean())
    picture = LayerStudy(
        "attention layer (Eq. 5)",
        np.asarray(train_map.mean(axis=0)),
        "map, position to position",
        curves,
        error[~data.anomalous],
        error[data.anomalous],
    )
    return Outcome(picture, values)


def _errors(
    layer: Layer, data: Data, task: Task[AdtrSettings], positions: tuple[float, float]
) -> tuple[Float[np.ndarray, "m K"], dict[str, float]]:
    """Returns the error at every position of the test images, its means, and its AUROCs."""
    settings, side = task.settings, task.settings.tokens_per_side
    x = jnp.asarray(data.test)
    grid = (len(x), side, side, -1)
    tokens = token_scores(x.reshape(grid), layer(x).reshape(grid))
    maps = score_map(tokens, settings.image_size, positions)
    scores = image_score(tokens, maps, settings.image_score)
    labels = np.array([sample.label for sample in task.category.test])
    measured = metrics.evaluate(
        np.asarray(scores), labels, np.asarray(maps), np.asarray(task.masks)
    )
    error = np.asarray(tokens).reshape(data.anomalous.shape) ** 2 / x.shape[-1]
    train = jnp.asarray(data.train)
    values = {
        "error_training": float(jnp.square(layer(train) - train).mean()),
        "error_normal": float(error[~data.anomalous].mean()),
        "error_anomalous": float(error[data.anomalous].mean()),
    }
    return error, values | {name: measured[name] for name in ("image_auroc", "pixel_auroc")}


def _diagonals(maps: Float[Array, "b K K"]) -> Float[Array, "b K"]:
    """Returns the weight of each position for itself; 1 throughout is the identity."""
    return jnp.diagonal(maps, axis1=1, axis2=2)
