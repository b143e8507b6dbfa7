"""Features with mean 0 and standard deviation 1 in every channel.

A backbone's channels differ in spread by more than a factor of ten, so that a few of them would
dominate the loss and the scores.
"""

from typing import NamedTuple, TypeVar, cast

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from adtr_jax.devices import hosts
from adtr_jax.devices.loader import Shard

Features = TypeVar("Features", Float[Array, "... c"], Float[np.ndarray, "... c"])


class Standardisation(NamedTuple):
    """Mean and standard deviation of every feature channel over the normal training images."""

    mean: Float[Array | np.ndarray, "c"]
    std: Float[Array | np.ndarray, "c"]

    @classmethod
    def unit(cls, channels: int) -> "Standardisation":
        """Mean 0 and standard deviation 1, which change nothing."""
        return cls(np.zeros(channels, np.float32), np.ones(channels, np.float32))

    @classmethod
    def fit(cls, features: Shard) -> "Standardisation":
        """Takes both from the training features `[n h w c]`; the same in every process.

        A channel that is constant keeps its scale.
        """
        own = [
            (f.mean(axis=(0, 1), dtype=np.float64), f.var(axis=(0, 1), dtype=np.float64))
            for f in features.arrays
        ]
        channels = features.arrays.shape[-1]
        images = hosts.gather(np.array(own).reshape(len(own), 2, channels), features.total)
        mean = images[:, 0].mean(axis=0)
        # The variance within the images, and that of their means.
        std = np.sqrt(images[:, 1].mean(axis=0) + images[:, 0].var(axis=0))
        std = np.where(std > 1e-6 * std.max(), std, 1.0)
        return cls(mean.astype(np.float32), std.astype(np.float32))

    @classmethod
    def of_state(cls, state: nnx.State) -> "Standardisation":
        """Reads it from a model's state, as `state` wrote it."""
        return cls(*(cast(Array, state[name][...]) for name in cls._fields))

    def state(self) -> nnx.State:
        """Returns it as a Flax state, which is saved beside a model's parameters."""
        return nnx.State({k: nnx.BatchStat(jnp.asarray(v)) for k, v in self._asdict().items()})

    def __call__(self, features: Features) -> Features:
        """Standardises features."""
        return (features - self.mean) / self.std
