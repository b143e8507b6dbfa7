"""Flax modules with shapes in place of values, for values that are read and not drawn."""

from collections.abc import Callable
from typing import TypeVar

import jax
from flax import nnx
from jaxtyping import Array

Module = TypeVar("Module", bound=nnx.Module)


def module_shapes(make: Callable[[nnx.Rngs], Module]) -> Module:
    """What `make` makes, its arrays abstract: nothing is drawn, computed or compiled.

    Args:
        make: draws no other streams than `params`.
    """
    return nnx.eval_shape(lambda: make(_OneKey()))


class _OneKey(nnx.Rngs):
    """The same key for every parameter.

    Counting the draws takes most of the time of tracing them: half a second for a large network.
    """

    def __init__(self) -> None:
        super().__init__(0)

    def params(self) -> Array:
        """Any key."""
        return jax.random.key(0)
