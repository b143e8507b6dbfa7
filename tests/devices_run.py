"""Loss curves of the same training on one and on eight simulated devices, as JSON.

Run with JAX_ENABLE_X64=1 and JAX_NUM_CPU_DEVICES=8.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from adtr_jax import backbones
from adtr_jax.backbones.scaling import LAYOUTS, Layout
from adtr_jax.config import GtransSettings
from adtr_jax.detectors.gtrans import GtransDetector
from adtr_jax.devices.loader import Loader, Shard
from adtr_jax.devices.sharding import device_mesh, place
from adtr_jax.models import losses
from adtr_jax.models.adtr import ADTR
from adtr_jax.nn.convolution import ConvBatchNorm
from adtr_jax.training import train
from adtr_jax.training.sampling import Sampling

EPOCHS = 6
IMAGES = 20


def adtr(dtype: str):
    """ADTR's loss on random features; what it starts with; the features."""
    graph, params = nnx.split(ADTR(12, 16, depth=1, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0)))

    def loss(params, rest, batch):
        f_hat = nnx.merge(graph, params)(batch.examples, batch.seeds)
        return losses.normal(batch.examples, f_hat), rest

    features = np.random.default_rng(0).normal(size=(IMAGES, 4, 4, 12)).astype(dtype)
    return loss, (params, None), features


def gtrans(dtype: str):
    """GTrans's, whose student has BatchNorm layers, on random images and features of AGN."""
    LAYOUTS["resnet-18"] = Layout(blocks=(1, 1, 1, 1), bottleneck=None)
    first = {"layers": (1, 2), "fusion": "P4"}  # of more, nothing is different but the time
    settings = GtransSettings(backbone="resnet-18", image_size=32, blocks=1, dtype=dtype, **first)
    # Shapes alone: the loss has no use for AGN, whose features these are.
    detector = GtransDetector.create(backbones.shapes("resnet-18"), settings).initialised()
    rng = np.random.default_rng(0)
    shapes = [(16, 64), (8, 64)]
    f_g = tuple(rng.gamma(1.0, 1.0, size=(IMAGES, n, n, c)).astype(dtype) for n, c in shapes)
    images = rng.integers(0, 255, (IMAGES, 32, 32, 3), dtype=np.uint8)
    return detector.loss, (detector.params, detector.rest), (images, f_g)


def depthwise(dtype: str):
    """A layer whose gradient is written by hand."""
    layer = ConvBatchNorm(
        *(6, 6, 5), stride=2, padding=(1, 2), depthwise=True, epsilon=1e-3, rngs=nnx.Rngs(0)
    )
    graph, *start = nnx.split(layer, nnx.Param, nnx.BatchStat)

    def loss(params, rest, batch):
        layer = nnx.merge(graph, params, rest, copy=True)
        values = jnp.square(layer(batch.examples, batch.weight) - batch.examples[:, :-1:2, :-1:2])
        return values.mean(axis=(1, 2, 3)), nnx.state(layer, nnx.BatchStat)

    images = np.random.default_rng(0).normal(size=(IMAGES, 9, 9, 6)).astype(dtype)
    return loss, tuple(start), images


def curve(
    method, dtype: str, devices: int, limit: int | None = None
) -> tuple[list[float], list[float]]:
    """The loss of every step; and the mean of each array of `rest` after the last."""
    mesh = device_mesh(devices)
    loss, start, data = method(dtype)
    params, rest = jax.tree.map(lambda leaf: leaf.astype(dtype), start)
    optimiser = optax.adamw(1.0, weight_decay=1e-4)
    pace = place(train.Pace.of(np.full(1, 1e-4, dtype), 0), mesh)
    run = train.compile_steps(loss, optimiser, mesh)
    state = train.TrainState(params, rest, optimiser.init(params), jnp.int32(0))
    state, loader = place(state, mesh), Loader(Shard(data, IMAGES), mesh, limit)
    values: list[float] = []
    for number in range(1, EPOCHS + 1):
        order, weight = Sampling(IMAGES, 0, batch_size=6, seed=0).epoch(number, devices)
        for part in loader.parts(order, weight.astype(dtype)):
            state, steps = run(state, pace, *train.placed(part, mesh))
            values += np.asarray(steps, np.float64).tolist()
    return values, [float(leaf.mean()) for leaf in jax.tree.leaves(state.rest)]


if __name__ == "__main__":
    assert len(jax.devices()) == 8
    jax.config.update("jax_default_prng_impl", "rbg")  # compiled in half the time of threefry
    kinds = {adtr: ["float64"], gtrans: ["float64"], depthwise: ["float32", "float64"]}
    curves = {
        f"{method.__name__} {dtype} {devices}": curve(method, dtype, devices)
        for method, dtypes in kinds.items()
        for dtype in dtypes
        for devices in (1, 8)
    }
    curves["depthwise float64 8, a step at a time"] = curve(depthwise, "float64", 8, limit=1)
    print(json.dumps(curves))
