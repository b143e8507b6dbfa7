"""GTrans's head and loss against PyTorch's layers: parts, whole, gradients; sizes; bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adtr_jax.models.gtrans import GTransHead, Mapper, TFMBlock, Tokenizer, guidance_loss

torch = pytest.importorskip("torch")
import torch_gtrans as twin  # noqa: E402

RESNET34 = (64, 128, 256)
LITE2 = (24, 48, 120)
SIDES = (12, 6, 3)


def _count(model):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def _features(channels, sides, seed):
    """Feature maps of two images, larger on average than their spread, as those of a ReLU are."""
    rng = np.random.default_rng(seed)
    pairs = zip(channels, sides, strict=True)
    return [rng.gamma(1.0, 2.0, size=(2, n, n, c)).astype(np.float32) for c, n in pairs]


def _torch(x):
    if isinstance(x, list):
        return [_torch(part) for part in x]
    axes = (0, 3, 1, 2) if x.ndim == 4 else (0, 2, 1)
    return torch.from_numpy(np.ascontiguousarray(np.transpose(x, axes)))


def _ours(x):
    return np.moveaxis(x.detach().numpy(), 1, -1)


def _error(ours, expected):
    return np.abs(np.asarray(ours) - expected).max() / np.abs(expected).max()


def _perturbed(make):
    """A twin with biases and norms away from 0 and 1, and groups that look at different positions.

    With PyTorch's small initial values for L_g the eight tokens of a layer are nearly equal, and
    the gradients of the Mapper's queries and keys are differences of nearly equal numbers.
    """
    torch.manual_seed(0)
    module = make()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
            if "L_g" in name:
                parameter.mul_(20)
    return module


def _same(reference, make):
    return twin.with_parameters_of(reference, lambda: make(nnx.Rngs(0)))


def _pair(channels=LITE2, structure="decoder", blocks=2, query_from="agn", **dtype):
    options = {"structure": structure, "blocks": blocks, "query_from": query_from}
    reference = _perturbed(lambda: twin.Head(channels, **options))
    head = _same(reference, lambda rngs: GTransHead(channels, **options, **dtype, rngs=rngs))
    return reference, head


def _pass(head, f_t, f_g):
    return head([jnp.asarray(f) for f in f_t], [jnp.asarray(f) for f in f_g])


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 1_871_232),
        ({"blocks": 1}, 1_212_800),
        ({"blocks": 3}, 2_529_664),
        ({"structure": "encoder"}, 1_093_760),
        ({"structure": "encoder", "blocks": 1}, 764_544),
        ({"structure": "none"}, 0),
    ],
)
def test_parameter_count_for_resnet34(options, count):
    head = nnx.eval_shape(lambda: GTransHead(RESNET34, **options, rngs=nnx.Rngs(0)))
    assert _count(head) == count


@pytest.mark.parametrize("channels", [64, 120])
def test_tokenizer_is_equations_1_to_3(channels):
    reference = _perturbed(lambda: twin.Tokenizer(channels))
    ours = _same(reference, lambda rngs: Tokenizer(channels, 8, 256, dtype=jnp.float32, rngs=rngs))
    (f,) = _features([channels], [14], 0)
    tokens = ours(jnp.asarray(f))
    assert tokens.shape == (2, 8, 256)
    assert _error(tokens, _ours(reference(_torch(f)))) < 1e-5


@pytest.mark.parametrize("decoder", [False, True])
def test_tfm_block_is_equations_4_to_11(decoder):
    reference = _perturbed(twin.Block)
    ours = _same(reference, lambda rngs: TFMBlock(256, dtype=jnp.float32, rngs=rngs))
    x, y = np.random.default_rng(0).normal(size=(2, 3, 24, 256)).astype(np.float32)
    y = y if decoder else x
    expected = _ours(reference(_torch(x), _torch(y)))
    assert _error(ours(jnp.asarray(x), jnp.asarray(y)), expected) < 1e-5


def test_mapper_is_equation_12():
    reference = _perturbed(lambda: twin.Mapper(48))
    ours = _same(reference, lambda rngs: Mapper(48, 256, dtype=jnp.float32, rngs=rngs))
    f_t, f_g = (_features([48], [10], seed)[0] for seed in (0, 1))
    tokens = np.random.default_rng(2).normal(size=(2, 8, 256)).astype(np.float32)
    expected = _ours(reference(_torch(f_t), _torch(f_g), _torch(tokens)))
    got = np.asarray(ours(jnp.asarray(f_t), jnp.asarray(f_g), jnp.asarray(tokens)))
    assert _error(got, expected) < 1e-5
    assert _error(got - f_t, expected - f_t) < 1e-5  # the tokens' part alone


@pytest.mark.parametrize("query_from", ["agn", "trans"])
@pytest.mark.parametrize(
    ("structure", "blocks"), [("decoder", 2), ("decoder", 1), ("encoder", 2), ("encoder", 3)]
)
def test_head_parity(structure, blocks, query_from):
    reference, head = _pair(structure=structure, blocks=blocks, query_from=query_from)
    f_t, f_g = _features(LITE2, SIDES, 0), _features(LITE2, SIDES, 1)
    expected = reference(_torch(f_t), _torch(f_g))
    got = _pass(head, f_t, f_g)
    assert [f.shape for f in got] == [f.shape for f in f_t]
    for ours, wanted, f in zip(got, expected, f_t, strict=True):
        assert _error(ours, _ours(wanted)) < 1e-5
        assert _error(ours - f, _ours(wanted) - f) < 2e-5


def test_head_with_four_layers():
    channels, sides = (32, 48, 64, 80), (6, 4, 2, 1)
    reference, head = _pair(channels, blocks=1)
    f_t, f_g = _features(channels, sides, 0), _features(channels, sides, 1)
    expected = reference(_torch(f_t), _torch(f_g))
    for ours, wanted in zip(_pass(head, f_t, f_g), expected, strict=True):
        assert _error(ours, _ours(wanted)) < 1e-5


def test_without_tfm_the_features_of_trans_remain():
    f_t, f_g = _features(LITE2, SIDES, 0), _features(LITE2, SIDES, 1)
    head = GTransHead(LITE2, structure="none", rngs=nnx.Rngs(0))
    for ours, f in zip(_pass(head, f_t, f_g), f_t, strict=True):
        assert np.array_equal(ours, f)


def test_without_decoder_and_with_query_from_trans_agn_is_not_used():
    f_t, f_g = _features(LITE2, SIDES, 0), _features(LITE2, SIDES, 1)
    _, head = _pair(structure="encoder", query_from="trans")
    alone = _pass(head, f_t, [np.zeros_like(f) for f in f_g])
    for ours, wanted in zip(_pass(head, f_t, f_g), alone, strict=True):
        assert np.array_equal(ours, wanted)


def test_loss_is_equations_13_and_14():
    f_g, f_m = _features(LITE2, SIDES, 0), _features(LITE2, SIDES, 1)
    ours = guidance_loss([jnp.asarray(f) for f in f_g], [jnp.asarray(f) for f in f_m])
    assert _error(ours, twin.loss(_torch(f_g), _torch(f_m)).numpy()) < 1e-6
    by_hand = [
        sum(0.5 * ((g[i].astype(float) - m[i]) ** 2).sum(-1).mean() for g, m in zip(f_g, f_m))  # noqa: B905
        for i in range(2)
    ]
    assert np.asarray(ours) == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"structure": "encoder", "blocks": 1, "query_from": "trans"}]
)
def test_gradient_parity(options):
    reference, head = _pair(**options)
    f_t, f_g = _features(LITE2, SIDES, 0), _features(LITE2, SIDES, 1)
    torch_t = [f.requires_grad_() for f in _torch(f_t)]
    twin.loss(_torch(f_g), reference(torch_t, _torch(f_g))).mean().backward()
    expected = twin.flax_name_values(reference, grad=True)
    graph, params = nnx.split(head)

    @jax.jit
    def gradients(params, f_t, f_g):
        def loss(params, f_t):
            return guidance_loss(f_g, nnx.merge(graph, params)(f_t, f_g)).mean()

        return jax.grad(loss, argnums=(0, 1))(params, f_t)

    by_params, by_f_t = gradients(params, f_t, f_g)
    flat = nnx.to_flat_state(by_params)
    assert len(flat) == len(expected)
    for path, leaf in flat:
        name = ".".join(map(str, path))
        assert _error(leaf[...], expected[name].numpy()) < 5e-5, name
    for ours, wanted in zip(by_f_t, torch_t, strict=True):
        assert _error(ours, _ours(wanted.grad)) < 1e-5


def test_bfloat16_is_close_to_float32():
    f_t, f_g = _features(LITE2, SIDES, 0), _features(LITE2, SIDES, 1)
    _, full = _pair()
    _, half = _pair(dtype=jnp.bfloat16)
    leaves = jax.tree.leaves(nnx.state(half, nnx.Param))
    assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}
    for got, wanted, f in zip(_pass(half, f_t, f_g), _pass(full, f_t, f_g), f_t, strict=True):
        assert got.dtype == np.float32
        assert 1e-5 < _error(got - f, np.asarray(wanted - f)) < 5e-2
