"""Detectors of the smallest networks with random numbers, to export: compiling takes the time."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adtr_jax import backbones, detectors
from adtr_jax.backbones.scaling import LAYOUTS, SCALINGS, Layout, Scaling
from adtr_jax.config import Settings
from adtr_jax.detectors.detector import Detector

SIDE = 64
# Networks of the smallest sort, in each family, stand where these would.
SMALLEST = {
    "efficientnet-lite0": Scaling(0.25, 0.2, SIDE, lite=True),
    "efficientnet-b0": Scaling(0.25, 0.2, SIDE, lite=False),
    "resnet-18": Layout((1, 1, 1, 1), None),
    "wide-resnet-50-2": Layout((1, 1, 1, 1), 16),
}
SMALL = {"width": 32, "heads": 4, "depth": 1, "hidden": 64}


@contextmanager
def smallest_networks() -> Iterator[None]:
    """The smallest networks in place of the published ones, compiled in little time."""
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        for name, sizes in SMALLEST.items():
            patch.setitem(SCALINGS if isinstance(sizes, Scaling) else LAYOUTS, name, sizes)
        yield
    jax.config.update("jax_disable_most_optimizations", False)


def detector(settings: Settings) -> Detector:
    """With random numbers in place of parameters and statistics; drawn by NumPy in no time."""
    rng = np.random.default_rng(0)

    def drawn(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if len(leaf.shape) < 2:
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), np.float32)
        deviation = np.prod(leaf.shape[:-1]) ** -0.5
        return jnp.asarray(rng.normal(0, deviation, leaf.shape), np.float32)

    backbone = backbones.shapes(settings.backbone)
    backbone.trim(max(settings.layers))
    graph, state = nnx.split(backbone)
    made = detectors.create(nnx.merge(graph, jax.tree.map(drawn, state)), settings)
    params, rest = (jax.tree.map(drawn, state) for state in (made.params, made.rest))
    return dataclasses.replace(made, params=params, rest=rest)
