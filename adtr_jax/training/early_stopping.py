"""Early stopping: what the model had learned when the loss of held-out images was lowest."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

from adtr_jax.devices import hosts


class Best(NamedTuple):
    """The epoch with the lowest loss of held-out images so far.

    It is saved with the training's state: a resumed training stops where a whole one does. So the
    loss is a float32 from the start, as it is in a checkpoint.

    Attributes:
        loss: the lowest.
        epoch: after which it was that, counted from 1; 0: there was none yet.
        params, rest: what the model had learned then.
    """

    loss: Float32[Array, ""]
    epoch: Int32[Array, ""]
    params: Any
    rest: Any

    @classmethod
    def before(cls, params: Any, rest: Any) -> "Best":
        """Nothing is trained yet."""
        return cls(jnp.float32(np.inf), jnp.int32(0), *_copies(params, rest))

    def after(self, epoch: int, loss: float, params: Any, rest: Any) -> "Best":
        """Returns what is best after one more epoch; the same in every process."""
        first = hosts.from_first(np.float32(loss))
        if not first < self.loss:
            return self
        return Best(jnp.float32(first), jnp.int32(epoch), *_copies(params, rest))


def _copies(params: Any, rest: Any) -> tuple[Any, Any]:
    """The training's steps overwrite their buffers."""
    return jax.tree.map(jnp.copy, (params, rest))
