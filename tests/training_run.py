"""A small training run in a process of its own, for tests that kill it.

python training_run.py DIRECTORY EPOCHS SAVE_SECONDS: trains ADTR on random features, keeps a
running mean of them as its `rest`, and writes all it has learned to DIRECTORY/params.npy.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from adtr_jax.config import AdtrSettings
from adtr_jax.devices.loader import Shard
from adtr_jax.devices.sharding import AXIS, device_mesh
from adtr_jax.errors import InputError
from adtr_jax.models import adtr, losses
from adtr_jax.training import train


def main(directory: Path, epochs: int, save_seconds: float) -> None:
    train.SAVE_SECONDS = save_seconds
    settings = AdtrSettings(epochs=epochs, batch_size=6)
    # One layer is compiled soonest.
    graph, params = nnx.split(adtr.ADTR(12, 64, depth=1, rngs=nnx.Rngs(0)))
    features = np.random.default_rng(0).normal(size=(20, 8, 8, 12)).astype(np.float32)

    def loss(params, rest, batch):
        f_hat = nnx.merge(graph, params)(batch.examples, batch.seeds)
        mean = jax.lax.pmean(batch.examples.mean(axis=(0, 1, 2)), AXIS)
        return losses.normal(batch.examples, f_hat), 0.9 * rest + 0.1 * mean

    learned = train.fit(
        loss,
        (params, np.zeros(12, np.float32)),
        train.TrainingData(Shard(features, len(features)), len(features)),
        settings=settings,
        mesh=device_mesh(),
        directory=directory,
        label="test",
    )
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(learned)])
    np.save(directory / "params.npy", flat)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
    except train.Stopped as stopped:
        sys.exit(print(stopped, file=sys.stderr) or 130)
