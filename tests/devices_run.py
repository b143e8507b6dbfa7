"""Loss curves of the same training on one and on eight simulated devices, as JSON.

Run with JAX_ENABLE_X64=1 and XLA_FLAGS=--xla_force_host_platform_device_count=8.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from adtr_jax import losses, train
from adtr_jax.models.adtr import ADTR
from adtr_jax.sampling import Sampling
from adtr_jax.sharding import device_mesh, place, split


def curve(dtype: str, devices: int, epochs: int = 6) -> list[float]:
    """The loss of every step."""
    mesh = device_mesh(jax.devices()[:devices])
    graph, params = nnx.split(ADTR(12, 16, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0)))
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    features = np.random.default_rng(0).normal(size=(20, 4, 4, 12)).astype(dtype)
    optimiser = optax.adamw(1e-4, weight_decay=1e-4)

    def loss(params, f, seed):
        return losses.normal(f, nnx.merge(graph, params)(f, seed))

    epoch = train.compile_epoch(loss, optimiser, 0, mesh)
    state = train.TrainState(params, optimiser.init(params), jnp.int32(0))
    state, features = place((state, features), mesh)
    values: list[float] = []
    for number in range(1, epochs + 1):
        order, weight = Sampling(20, 0, batch_size=6, seed=0).epoch(number, devices)
        batches = place((order, weight.astype(dtype)), mesh, split(1))
        state, steps = epoch(state, features, *batches)
        values += np.asarray(steps, np.float64).tolist()
    return values


if __name__ == "__main__":
    assert len(jax.devices()) == 8
    dtypes = ("float32", "float64")
    print(json.dumps({d: {str(n): curve(d, n) for n in (1, 8)} for d in dtypes}))
