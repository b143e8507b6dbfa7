"""The networks of Table 4: parameter counts, what sets each of them apart, pixels as features."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adtr_jax import models
from adtr_jax.backbones.pixels import Pixels
from adtr_jax.config import AdtrSettings
from adtr_jax.detectors import extraction, features
from adtr_jax.detectors.token_positions import token_positions
from adtr_jax.devices.sharding import device_mesh
from adtr_jax.models import losses
from adtr_jax.models.adtr import ADTR
from adtr_jax.models.cnn import CNN
from adtr_jax.nn.dropout import seeds

SIDE, CHANNELS = 6, 20
TOKENS = SIDE**2
NAMES = [name for name in models.NAMES if name != "layerwise_query"]  # which test_uniad.py tests


def make(name, *, channels=CHANNELS, side=SIDE, depth=2, **changed):
    """The network; with two layers, not the four that are compiled in twice the time."""
    stride = 32  # pixels a token, which matters to none of the networks
    changed |= {"image_size": side * stride, "token_stride": stride, "depth": depth}
    settings = AdtrSettings(model=name, **changed)
    return models.create(settings, channels, rngs=nnx.Rngs(0))


def names(name):
    state = nnx.state(nnx.eval_shape(lambda: make(name, depth=4)))
    return {".".join(map(str, path)) for path, _ in nnx.to_flat_state(state)}


def compiled(model):
    """`model` as a function; much faster to compile whole than operation by operation."""
    graph, params = nnx.split(model)
    call = jax.jit(lambda params, f, seed: nnx.merge(graph, params)(f, seed))
    return lambda f, seed=None: call(params, f, seed)


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    return make(request.param)


@pytest.fixture(scope="module")
def f():
    return jnp.asarray(np.random.default_rng(0).normal(size=(3, SIDE, SIDE, CHANNELS)), jnp.float32)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("adtr", 7_873_488),
        ("layerwise_query", 7_873_488 + 3 * 256 * 256),
        ("no_query", 7_873_488 - 256 * 256),
        # Twelve attention layers: four dense layers 256 -> 256 each become one 512 -> 256.
        ("no_attention", 7_873_488 - 12 * (4 * 257 * 256 - 513 * 256)),
        ("cnn", 8_043_984),
    ],
)
def test_parameter_count(name, count):
    model = nnx.eval_shape(lambda: make(name, channels=720, side=16, depth=4))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == count


def test_the_variants_lack_the_part_they_are_named_for():
    full = names("adtr")
    assert names("no_query") == full - {"query"}
    queries = {f"decoder.{i}.query" for i in range(4)}
    assert names("layerwise_query") == (full - {"query"}) | queries
    left = {name for name in names("no_attention") if "attention." in name}
    assert len(left) == 12 * 2 and all(".project." in name for name in left)
    assert names("no_attention") - left == {name for name in full if "attention." not in name}


def test_full_model_is_adtr_as_it_is_made_by_default():
    created, direct = (
        nnx.state(make("adtr", depth=4)),
        nnx.state(ADTR(CHANNELS, TOKENS, rngs=nnx.Rngs(0))),
    )
    assert jax.tree.structure(created) == jax.tree.structure(direct)
    jax.tree.map(np.testing.assert_array_equal, created, direct)


def test_reconstruction_is_deterministic_but_for_dropout_where_there_are_seeds(model, f):
    run = compiled(model)
    f_hat = run(f)
    assert f_hat.shape == f.shape and f_hat.dtype == jnp.float32
    assert np.array_equal(f_hat, run(f))
    seed, other = (seeds(0, jnp.int32(step), jnp.arange(3)) for step in (0, 1))
    assert np.abs(run(f, seed) - f_hat).max() > 1e-3
    assert np.array_equal(run(f, seed), run(f, seed))
    assert np.abs(run(f, seed) - run(f, other)).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_rate_zero_ignores_seeds(name, f):
    run = compiled(make(name, dropout=0.0))
    assert np.array_equal(run(f), run(f, seeds(0, jnp.int32(0), jnp.arange(3))))


def test_gradient_is_finite_and_reaches_every_parameter(model, f):
    graph, params = nnx.split(model)

    def loss(params):
        return losses.normal(f, nnx.merge(graph, params)(f)).mean()

    for path, leaf in nnx.to_flat_state(jax.jit(jax.grad(loss))(params)):
        assert np.isfinite(leaf[...]).all(), path
        # Softmax ignores a key's bias.
        assert path[-2:] == ("key", "bias") or np.abs(leaf[...]).max() > 0, path


DIRECT = {
    "adtr": partial(ADTR, CHANNELS, TOKENS, depth=2),
    "no_query": partial(ADTR, CHANNELS, TOKENS, depth=2, query=False),
    "no_attention": partial(ADTR, CHANNELS, TOKENS, depth=2, attention=False),
    "cnn": partial(CNN, CHANNELS),
}


@pytest.mark.parametrize("name", NAMES)
def test_float64(name, f):
    with jax.enable_x64(True):
        model = DIRECT[name](dtype=jnp.float64, rngs=nnx.Rngs(0))
        exact = compiled(model)(jnp.asarray(f, jnp.float64))
        assert exact.dtype == jnp.float64
        single = make(name)
        nnx.update(single, jax.tree.map(lambda x: x.astype(jnp.float32), nnx.state(model)))
        assert 1e-9 < np.abs(compiled(single)(f) - exact).max() / np.abs(exact).max() < 1e-5


def dependence(model, shape):
    """[positions of the output, positions of the input]: how strongly one moves the other."""
    f = jnp.asarray(np.random.default_rng(1).normal(size=(1, *shape, CHANNELS)), jnp.float32)
    direction = jnp.asarray(np.random.default_rng(2).normal(size=CHANNELS), jnp.float32)

    def shifted(step):
        return model(f + step.reshape(1, *shape, 1) * direction).reshape(-1, CHANNELS)

    jacobian = jax.jit(jax.jacrev(shifted))(jnp.zeros(shape[0] * shape[1]))
    return np.abs(np.asarray(jacobian)).max(axis=1)


def test_without_attention_a_position_depends_on_itself_alone():
    moved = dependence(make("no_attention"), (SIDE, SIDE))
    assert np.diagonal(moved).min() > 1e-3
    assert np.abs(moved - np.diag(np.diagonal(moved))).max() == 0


@pytest.mark.parametrize("name", ["adtr", "no_query"])
def test_with_attention_a_position_depends_on_all(name):
    assert dependence(make(name), (SIDE, SIDE)).min() > 1e-6


def test_cnn_depends_on_27_positions_a_side():
    moved = dependence(make("cnn"), (1, 40))
    away = np.abs(np.arange(40)[:, None] - np.arange(40))
    assert moved[away > 13].max() == 0
    assert moved[away <= 13].min() > 0


def test_cnn_takes_any_size():
    assert make("cnn")(jnp.ones((2, 3, 5, CHANNELS))).shape == (2, 3, 5, CHANNELS)


def test_without_query_the_decoder_starts_from_the_encoder(f):
    model, full = make("no_query"), make("adtr")
    nnx.update(full, nnx.state(model))
    encoder_output = full.project_in(f[:1].reshape(1, TOKENS, CHANNELS))
    for encode in full.encoder:
        encoder_output = encode(encoder_output, full.position[...], None)
    full.query[...] = encoder_output[0]
    np.testing.assert_allclose(compiled(full)(f[:1]), compiled(model)(f[:1]), atol=1e-5)


def test_aligned_attention_looks_where_it_stands():
    layer = make("no_query", aligned=True, depth=4).decoder[3].cross_attention
    assert np.array_equal(layer.key.kernel[...], layer.query.kernel[...])
    assert not np.shares_memory(layer.key.kernel[...], layer.query.kernel[...])
    for name in ("no_attention", "cnn"):
        jax.tree.map(
            np.testing.assert_array_equal,
            nnx.state(make(name, aligned=True)),
            nnx.state(make(name)),
        )


def test_names_come_without_jax():
    code = "import sys, adtr_jax.models as m; print(m.NAMES, 'jax' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert printed.stdout == (
        b"('adtr', 'layerwise_query', 'no_query', 'no_attention', 'cnn') False\n"
    )


class TestPixels:
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)

    def test_tokens_are_patches_of_normalised_pixels(self):
        settings = AdtrSettings(layers=(4,), image_size=64)
        tokens = extraction.compute(Pixels(), self.images, settings, device_mesh())
        assert tokens.shape == (2, 4, 4, 768)
        assert features.channels(Pixels(), (4,)) == 768
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        expected = (self.images[1, 16:32, 48:64] / 255 - mean) / std
        np.testing.assert_allclose(tokens[1, 1, 3], expected.ravel(), atol=1e-5)

    def test_taps_have_the_channels_and_sides_of_a_backbone(self):
        backbone = Pixels()
        logits, taps = backbone(backbone.normalise(self.images[:, :48, :40]))
        assert logits.shape == (2, 0)
        sides = [(24, 20), (12, 10), (6, 5), (3, 3), (2, 2)]
        shapes = [(2, *side, c) for side, c in zip(sides, backbone.channels, strict=True)]
        assert [tap.shape for tap in taps] == shapes
        assert backbone.channels == (12, 48, 192, 768, 3072)

    def test_tokens_are_where_their_patches_are(self):
        settings = AdtrSettings(layers=(4,), image_size=64)
        assert token_positions(Pixels(), settings) == (16.0, 7.5)

    def test_no_parameters(self):
        assert jax.tree.leaves(nnx.state(Pixels())) == []
