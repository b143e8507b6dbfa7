"""Features with mean 0 and standard deviation 1 in every channel, and scores at every position.

A backbone's channels differ in spread by more than a factor of ten, so that a few of them would
dominate the loss and the scores. And some positions are never reconstructed as well as others: an
edge that is now here, now there.
"""

from typing import NamedTuple, TypeVar, cast

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from adtr_jax.devices import hosts
from adtr_jax.devices.loader import Shard

Values = TypeVar("Values", Float[Array, "..."], Float[np.ndarray, "..."])


class Standardisation(NamedTuple):
    """Mean and standard deviation over the normal training images.

    Of every feature channel `[c]`, or of the token scores at every position `[h w]`.
    """

    mean: Float[Array | np.ndarray, "*of"]
    std: Float[Array | np.ndarray, "*of"]

    @classmethod
    def unit(cls, *shape: int) -> "Standardisation":
        """Mean 0 and standard deviation 1, which change nothing."""
        return cls(np.zeros(shape, np.float32), np.ones(shape, np.float32))

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
    def of_scores(cls, scores: Float[np.ndarray, "n h w"]) -> "Standardisation":
        """Takes both from the token scores of the training images.

        Half the spread over all positions is added to each one's own: where the training images
        hardly differ, the smallest change of a new one would count as the largest anomaly.
        """
        wide = scores.astype(np.float64)
        std = wide.std(axis=0) + 0.5 * wide.std()
        return cls(wide.mean(axis=0).astype(np.float32), std.astype(np.float32))

    @classmethod
    def of_state(cls, state: nnx.State) -> "Standardisation":
        """Reads it from a model's state, as `state` wrote it."""
        return cls(*(cast(Array, state[name][...]) for name in cls._fields))

    def state(self) -> nnx.State:
        """Returns it as a Flax state, which is saved beside a model's parameters."""
        return nnx.State({k: nnx.BatchStat(jnp.asarray(v)) for k, v in self._asdict().items()})

    def __call__(self, values: Values) -> Values:
        """Standardises features `[... c]`, or token scores `[... h w]`."""
        return (values - self.mean) / self.std
