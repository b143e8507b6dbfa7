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
from adtr_jax.nn.shapes import module_shapes

TINY = AdtrSettings(
    image_size=64, token_stride=16, width=32, heads=4, depth=1, hidden=64, dropout=0.0
)
SCALED = {"lite": Scaling(0.25, 0.2, 64, lite=True), "b": Scaling(0.25, 0.2, 64, lite=False)}
SMALL = {"basic": Layout((1, 1, 1, 1), None), "bottleneck": Layout((1, 1, 1, 1), 16)}


def features(*shape):
    numbers = np.random.default_rng(0).standard_normal(shape)
    return jax.device_put(numbers.astype(np.float32))  # what modules say that they take


def made(create):
    """A module by its shapes, with numbers of NumPy's: to draw them in JAX would take programs."""
    graph, state = nnx.split(module_shapes(create))
    rng = np.random.default_rng(0)

    def numbers(path, leaf):
        spread = 0.1 * rng.standard_normal(leaf.shape)
        match jax.tree_util.keystr(path).split("'")[-2]:
            case "kernel":
                spread *= 10 / np.sqrt(np.prod(leaf.shape[:-1]))
            case "scale" | "var":
                spread += 1
        return jax.device_put(spread.astype(leaf.dtype))

    return nnx.merge(graph, jax.tree_util.tree_map_with_path(numbers, state))


def trimmed(network, layers):
    """A network of fewer blocks, of every kind: all of them take long to compile."""
    network.trim(layers)
    return network


def adtr(name):
    settings = AdtrSettings(**{**vars(TINY), "model": name})
    return made(lambda rngs: models.create(settings, 12, rngs=rngs)), features(2, 4, 4, 12)


def many_tokens():
    """UniAD's layers in a loop, their attention in blocks."""
    uniad = {"model": "layerwise_query", "neighbours": 7}
    settings = AdtrSettings(**{**vars(TINY), "image_size": 23 * 16, **uniad})
    return made(lambda rngs: models.create(settings, 12, rngs=rngs)), features(2, 23, 23, 12)


def gtrans():
    def create(rngs):
        trans = ResNet(SMALL["basic"], rngs=rngs)
        return GTrans(
            trans, (2, 3), structure="decoder", blocks=1, query_from="agn", width=32, rngs=rngs
        )

    pixels = np.clip(127 + 60 * features(2, 32, 32, 3), 0, 255)
    f_g = [features(2, 8, 8, 64), features(2, 4, 4, 128)]
    return (lambda model, pixels: model(pixels, f_g)), made(create), pixels


def call(model, x):
    return model(x)


def taps(network, images):
    return network.taps(images)


MODULES = {
    **{
        name: lambda name=name: (call, *adtr(name))
        for name in models.NAMES
        if name != "layerwise_query"
    },
    "UniAD, many tokens": lambda: (call, *many_tokens()),
    **{
        f"efficientnet {name}": lambda s=s: (
            taps,
            made(lambda rngs: trimmed(EfficientNet(s, rngs=rngs), 2)),
            features(2, 32, 32, 3),
        )
        for name, s in SCALED.items()
    },
    **{
        f"resnet {name}": lambda s=s: (
            taps,
            made(lambda rngs: trimmed(ResNet(s, rngs=rngs), 3)),
            features(2, 32, 32, 3),
        )
        for name, s in SMALL.items()
    },
    "pixels": lambda: (call, Pixels(), features(2, 32, 32, 3)),
    "gtrans": gtrans,
    "linear layer": lambda: (call, made(lambda rngs: LinearLayer(6, rngs=rngs)), features(2, 9, 6)),
    "attention layer": lambda: (
        call,
        made(lambda rngs: AttentionLayer(9, 6, rngs=rngs)),
        features(2, 9, 6),
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_transformations(name):
    """jit, jvp, grad and vmap agree: along a direction, forward and backward; one by one."""
    run, model, x = MODULES[name]()
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    direction = jax.tree.map(
        lambda leaf: np.cos(np.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), params
    )
    dx = np.sin(x)

    def outputs(params, x):
        leaves = jax.tree.leaves(run(nnx.merge(graph, params, rest, copy=True), x))
        return jnp.concatenate([leaf.reshape(-1) for leaf in leaves])

    def loss(params, x):
        out = outputs(params, x)
        return jnp.mean(jnp.square(out)), out

    @jax.jit
    def forward_and_backward(params, x):
        (value, _), (slope, _) = jax.jvp(loss, (params, x), (direction, dx))
        return value, slope, *jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    value, slope, gradients, single = forward_and_backward(params, x)
    products = jax.tree.map(np.vdot, gradients, (direction, dx))
    assert np.isfinite(value) and float(slope) != 0
    assert float(slope) == pytest.approx(float(sum(jax.tree.leaves(products))), rel=2e-3)
    both = jax.jit(jax.vmap(lambda x: jax.grad(loss, 1, has_aux=True)(params, x)))
    mapped_gradient, mapped = both(np.stack([x, x + dx]))
    np.testing.assert_allclose(mapped[0], single, rtol=1e-3, atol=1e-4 * np.abs(mapped).max())
    scale = float(np.abs(gradients[1]).max())
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
