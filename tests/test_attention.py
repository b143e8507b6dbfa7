"""Attention of many tokens in blocks, and layers in a loop: the same numbers in less memory."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from test_cpu_forms import arrays, derivatives

from adtr_jax.devices.loader import EpochPart
from adtr_jax.devices.sharding import device_mesh, place, platform
from adtr_jax.models import losses
from adtr_jax.models.adtr import ADTR
from adtr_jax.nn import cpu
from adtr_jax.nn.attention import MANY, Neighbours, attend, attend_in_blocks
from adtr_jax.nn.dropout import at_site, dropout, seeds
from adtr_jax.training import train

SIDE = 23  # 529 tokens, more than MANY
SEED = seeds(0, jnp.int32(0), jnp.arange(2))


@pytest.mark.parametrize("kind", ["cpu", "any"])
@pytest.mark.parametrize(
    ("seed", "near"),
    [(None, Neighbours(1, 3)), (SEED, None)],
    ids=["without neighbours", "with dropout"],
)
@pytest.mark.parametrize("blocks", [1, 4])
def test_blocks_are_what_is_computed_at_once(blocks, seed, near, kind):
    """Also where they do not divide the queries: values and derivatives, also mapped."""
    inputs = arrays((2, 4, 9, 8), (2, 4, 7, 8), (2, 4, 7, 8))

    mask = None if near is None else near.mask(jnp.arange(9), jnp.arange(7))

    def in_blocks(q, k, v):
        return attend_in_blocks(q, k, v, seed, near, rate=0.3, site=1, blocks=blocks)

    def at_once(q, k, v):
        return attend(q, k, v, seed, None, mask, rate=0.3, site=1)

    with platform(kind):
        found, expected = derivatives(in_blocks, inputs), derivatives(at_once, inputs)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * float(jnp.abs(b).max()))


def test_blocks_of_bfloat16_are_bfloat16():
    q, k, v = (x.astype(jnp.bfloat16) for x in arrays((2, 4, 9, 8), (2, 4, 7, 8), (2, 4, 7, 8)))
    found = attend_in_blocks(q, k, v, SEED, rate=0.3, site=1, blocks=3)
    expected = attend(q, k, v, SEED, rate=0.3, site=1)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(*(np.asarray(x, np.float32) for x in (found, expected)), atol=0.02)


def test_the_memory_of_blocks_does_not_hold_all_weights():
    shape = jax.ShapeDtypeStruct((1, 8, 1024, 8), jnp.float32)

    def peak(form, **static):
        def loss(q, k, v):
            return form(q, k, v, SEED[:1], rate=0.3, site=1, **static).sum()

        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(shape, shape, shape).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    weights = 4 * 8 * 1024**2
    assert peak(attend) > weights
    assert peak(attend_in_blocks, blocks=64) < weights / 8


def test_a_part_of_the_entries_is_dropped_as_in_the_whole():
    x = jnp.ones((2, 6, 5))
    entry = jnp.arange(30, dtype=jnp.uint32).reshape(6, 5)
    whole = dropout(x, 0.4, SEED, 3)
    np.testing.assert_array_equal(dropout(x[:, 2:4], 0.4, SEED, 3, entry[2:4]), whole[:, 2:4])
    np.testing.assert_array_equal(dropout(x, 0.4, at_site(SEED, 1), 2), whole)
    assert 0 < int((whole == 0).sum()) < 60


def adtr(**options) -> tuple[nnx.GraphDef, nnx.State]:
    made = ADTR(12, SIDE**2, width=32, heads=4, hidden=64, rngs=nnx.Rngs(0), **options)
    return nnx.split(made)


def features(b: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((b, SIDE, SIDE, 12)).astype(np.float32)


def one_by_one(model: ADTR, f: jax.Array, seed: jax.Array | None) -> jax.Array:
    """What the model computes, its layers one after the other."""
    position = model.position[...]
    encoded = model.project_in(f.reshape(len(f), -1, f.shape[-1]))
    for layer in model.encoder:
        encoded = layer(encoded, position, seed)
    x = encoded if model.query is None else model.query[...][None]
    if seed is not None:
        x = jnp.broadcast_to(x, encoded.shape)
    for layer in model.decoder:
        x = layer(x, encoded, position, seed)
    return model.project_out(x).reshape(f.shape)


UNIAD = {"layerwise": True, "neighbours": 7}


@pytest.mark.parametrize(("options", "seed"), [({}, None), ({}, SEED), (UNIAD, SEED)])
def test_layers_in_a_loop_are_those_one_by_one(options, seed):
    assert SIDE**2 > MANY
    graph, params = adtr(depth=2, **options)
    f = features(2)

    def compiled(function):
        def loss(params, f):
            return jnp.mean(jnp.square(function(nnx.merge(graph, params), f, seed) - f))

        return jax.jit(jax.value_and_grad(loss)).lower(params, f).compile()

    programs = [compiled(function) for function in (ADTR.__call__, one_by_one)]
    (value, gradients), (expected, wanted) = (program(params, f) for program in programs)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    largest = max(float(jnp.abs(b).max()) for b in jax.tree.leaves(wanted))
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * largest)
    peaks = [program.memory_analysis().temp_size_in_bytes for program in programs]
    assert peaks[0] < 0.9 * peaks[1]


def test_two_devices_train_on_many_tokens_as_one():
    graph, params = adtr(depth=2)
    f = features(4)

    def loss(params, rest, batch):
        f_hat = nnx.merge(graph, params)(batch.examples, batch.seeds)
        return losses.normal(batch.examples, f_hat), rest

    def step(devices: int):
        mesh, optimiser = device_mesh(devices), optax.sgd(1.0)
        pace = place(train.Pace.of(np.float32([1e-3]), 0), mesh)
        run = train.compile_steps(loss, optimiser, mesh)
        state = train.TrainState(params, None, optimiser.init(params), jnp.int32(0))
        state = place(jax.tree.map(jnp.copy, state), mesh)
        order, weight = np.array([[2, 0, 1, 3]], np.int32), np.ones((1, 4), np.float32)
        examples = place(f, mesh, jax.sharding.PartitionSpec("data"))
        return run(state, pace, *train.placed(EpochPart(examples, order, weight), mesh))

    (one, value), (two, other) = step(1), step(2)
    assert float(value[0]) == pytest.approx(float(other[0]), rel=1e-6)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_model_of_many_tokens_is_exported_for_any_batch():
    graph, params = adtr(depth=1)
    (b,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((b, SIDE, SIDE, 12), jnp.float32)
    exported = jax.export.export(jax.jit(nnx.merge(graph, params)))(shape)
    found = exported.call(features(3))
    with cpu.plain_forms():
        expected = jax.jit(nnx.merge(graph, params))(features(3))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_plain_forms_have_no_loop():
    model, f = nnx.merge(*adtr(depth=1)), features(1)
    assert "scan[" in str(jax.make_jaxpr(model)(f))
    with cpu.plain_forms():
        assert "scan[" not in str(jax.make_jaxpr(model)(f))
