"""Every public module works under JAX's transformations, also composed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adtr_jax import backbones, models
from adtr_jax.backbones.efficientnet import EfficientNet
from adtr_jax.backbones.pixels import Pixels
from adtr_jax.backbones.resnet import ResNet
from adtr_jax.backbones.scaling import Layout, Scaling
from adtr_jax.config import AdtrSettings
from adtr_jax.models.gtrans import GTrans
from adtr_jax.models.one_layer import AttentionLayer, LinearLayer

TINY = AdtrSettings(
    image_size=64, token_stride=16, width=32, heads=4, depth=1, hidden=64, dropout=0.0
)
SCALED = {"lite": Scaling(0.25, 0.2, 64, lite=True), "b": Scaling(0.25, 0.2, 64, lite=False)}
SMALL = {"basic": Layout((1, 1, 1, 1), None), "bottleneck": Layout((1, 1, 1, 1), 16)}


def features(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def adtr(name):
    settings = AdtrSettings(**{**vars(TINY), "model": name})
    return models.create(settings, 12, rngs=nnx.Rngs(0)), features(2, 4, 4, 12)


def many_tokens():
    """ADTR's layers in a loop, their attention in blocks."""
    settings = AdtrSettings(**{**vars(TINY), "image_size": 23 * 16})
    return models.create(settings, 12, rngs=nnx.Rngs(0)), features(2, 23, 23, 12)


def gtrans():
    trans = ResNet(SMALL["basic"], rngs=nnx.Rngs(0))
    rngs = nnx.Rngs(1)
    model = GTrans(
        trans, (2, 3), structure="decoder", blocks=1, query_from="agn", width=32, rngs=rngs
    )
    pixels = jnp.clip(127 + 60 * features(2, 32, 32, 3), 0, 255)
    f_g = [features(2, 8, 8, 64), features(2, 4, 4, 128)]
    return (lambda model, pixels: model(pixels, f_g)), model, pixels


def call(model, x):
    return model(x)


MODULES = {
    **{name: lambda name=name: (call, *adtr(name)) for name in models.NAMES},
    "adtr, many tokens": lambda: (call, *many_tokens()),
    **{
        f"efficientnet {name}": lambda s=s: (
            call,
            EfficientNet(s, rngs=nnx.Rngs(0)),
            features(2, 32, 32, 3),
        )
        for name, s in SCALED.items()
    },
    **{
        f"resnet {name}": lambda s=s: (call, ResNet(s, rngs=nnx.Rngs(0)), features(2, 32, 32, 3))
        for name, s in SMALL.items()
    },
    "pixels": lambda: (call, Pixels(), features(2, 32, 32, 3)),
    "gtrans": gtrans,
    "linear layer": lambda: (call, LinearLayer(6, rngs=nnx.Rngs(0)), features(2, 9, 6)),
    "attention layer": lambda: (call, AttentionLayer(9, 6, rngs=nnx.Rngs(0)), features(2, 9, 6)),
}


@pytest.mark.parametrize("name", MODULES)
def test_transformations(name):
    """jit, jvp, grad and vmap agree: along a direction, forward and backward; one by one."""
    run, model, x = MODULES[name]()
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    direction = jax.tree.map(
        lambda leaf: jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params
    )
    dx = jnp.sin(x)

    def outputs(params, x):
        leaves = jax.tree.leaves(run(nnx.merge(graph, params, rest, copy=True), x))
        return jnp.concatenate([leaf.reshape(-1) for leaf in leaves])

    def loss(params, x):
        return jnp.mean(jnp.square(outputs(params, x)))

    value, slope = jax.jit(lambda p, x: jax.jvp(loss, (p, x), (direction, dx)))(params, x)
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, x)
    products = jax.tree.map(jnp.vdot, gradients, (direction, dx))
    assert np.isfinite(value) and float(slope) != 0
    assert float(slope) == pytest.approx(float(sum(jax.tree.leaves(products))), rel=2e-3)
    both = jax.jit(jax.vmap(lambda x: (outputs(params, x), jax.grad(loss, 1)(params, x))))
    mapped, mapped_gradient = both(jnp.stack([x, x + dx]))
    np.testing.assert_allclose(
        mapped[0], outputs(params, x), rtol=1e-3, atol=1e-4 * abs(mapped).max()
    )
    scale = float(jnp.abs(gradients[1]).max())
    np.testing.assert_allclose(mapped_gradient[0], gradients[1], rtol=1e-3, atol=1e-3 * scale)


def test_a_detector_is_compared_and_hashed_by_identity():
    from adtr_jax import detectors

    first, second = (
        detectors.create(Pixels(), AdtrSettings(**{**vars(TINY), "backbone": "pixels"}))
        for _ in range(2)
    )
    assert first != second
    assert {first: 1}[first] == 1 and second not in {first}
    assert backbones.digest(first.backbone) == backbones.digest(second.backbone)
