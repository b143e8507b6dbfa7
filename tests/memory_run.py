"""Trains on more data than the limit allows; prints by how many bytes the process has grown.

python memory_run.py DIRECTORY IMAGES LIMIT: images of 64 KB; the limit in bytes. Every step takes
longer than it takes to place its images on the device.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from adtr_jax.config import AdtrSettings
from adtr_jax.devices.loader import Shard
from adtr_jax.devices.sharding import device_mesh
from adtr_jax.training import train


def loss(params, rest, batch):
    start = rest + batch.examples[0, 0]
    product = jax.lax.fori_loop(0, 20, lambda _, x: jnp.tanh(x @ rest), start)
    return batch.examples @ params + product.mean(), rest


def fit(directory: Path, images: int, limit: int) -> None:
    data = np.ones((images, 2**14), np.float32)
    train.fit(
        loss,
        (jnp.zeros(2**14), jnp.eye(256)),
        train.TrainingData(Shard(data, images), images),
        settings=AdtrSettings(epochs=1),
        mesh=device_mesh(),
        directory=directory,
        label="test",
        limit=limit,
    )


def peak() -> int:
    """This process's; `ru_maxrss` is inherited from the one that starts it."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    directory, images, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    fit(directory / "first", 16, limit)  # imports, and compiles
    before = psutil.Process().memory_info().rss + images * 2**16
    fit(directory / "second", images, limit)
    print(peak() - before)
