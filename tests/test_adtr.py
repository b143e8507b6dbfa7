"""The model against PyTorch's layers: parameters, forward pass, gradient; dropout; bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adtr_jax.models import losses
from adtr_jax.models.adtr import ADTR
from adtr_jax.nn.dropout import dropout, seeds


def _count(model: nnx.Module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize(
    ("channels", "tokens", "count"), [(720, 256, 7_873_488), (560, 64, 7_693_104)]
)
def test_parameter_count(channels, tokens, count):
    model = nnx.eval_shape(lambda: ADTR(channels, tokens, rngs=nnx.Rngs(0)))
    assert _count(model) == count


@pytest.fixture(scope="module")
def pair():
    """The PyTorch reference with random weights, ours with the same, and random features."""
    torch = pytest.importorskip("torch")
    from benchmarks.torch_adtr import TorchADTR, flax_name_values, load_into

    torch.manual_seed(0)
    reference = TorchADTR(72, 36)
    with torch.no_grad():
        for parameter in reference.parameters():  # biases and norms away from 0 and 1
            parameter.add_(0.02 * torch.randn_like(parameter))
    model = ADTR(72, 36, rngs=nnx.Rngs(0))
    load_into(model, flax_name_values(reference))
    features = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6, 6, 72)), jnp.float32)
    return reference, model, features


def test_forward_parity(pair):
    import torch

    reference, model, features = pair
    with torch.no_grad():
        expected = reference(torch.from_numpy(np.array(features)).permute(0, 3, 1, 2))
    expected = expected.permute(0, 2, 3, 1).numpy()
    ours = np.asarray(model(features))
    assert np.abs(ours - expected).max() / np.abs(expected).max() < 1e-5
    assert np.abs(ours - expected).max() < 1e-4


def test_gradient_parity(pair):
    import torch

    from benchmarks.torch_adtr import flax_name_values

    reference, model, features = pair
    f = torch.from_numpy(np.array(features)).permute(0, 3, 1, 2)
    reference.zero_grad()
    ((f - reference(f)) ** 2).sum(1).mean().backward()
    expected = flax_name_values(reference, grad=True)
    graph, params = nnx.split(model)

    def loss(params):
        return losses.normal(features, nnx.merge(graph, params)(features)).mean()

    gradient = jax.grad(loss)(params)
    for path, leaf in nnx.to_flat_state(gradient):
        name = ".".join(map(str, path))
        wanted = expected[name].numpy()
        # The gradient of a key's bias is exactly zero (softmax ignores it): both have noise there.
        if name.endswith("key.bias"):
            assert np.abs(leaf[...]).max() < 1e-5, name
        else:
            assert np.abs(leaf[...] - wanted).max() / np.abs(wanted).max() < 1e-4, name


def test_inference_has_no_dropout_and_training_has(pair):
    _, model, features = pair
    plain = model(features)
    trained = model(features, seeds(0, jnp.int32(0), jnp.arange(3)))
    assert np.array_equal(plain, model(features))
    assert np.abs(trained - plain).max() > 1e-3


def test_bfloat16_is_close_to_float32(pair):
    _, model, features = pair
    half = ADTR(72, 36, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    nnx.update(half, nnx.state(model))
    wanted, got = np.asarray(model(features)), np.asarray(half(features))
    assert got.dtype == np.float32
    assert 1e-5 < np.abs(got - wanted).max() / np.abs(wanted).max() < 5e-2


def test_dropout_drops_the_right_share_and_keeps_the_mean():
    x = jnp.ones((8, 50_000))
    seed = seeds(3, jnp.int32(5), jnp.arange(8))
    y = np.asarray(dropout(x, 0.1, seed, 0))
    assert np.unique(y).tolist() == pytest.approx([0, 1 / 0.9])
    # 400,000 draws: the share's standard deviation is 0.00047.
    assert (y == 0).mean() == pytest.approx(0.1, abs=0.002)
    assert np.corrcoef(y[0] == 0, y[1] == 0)[0, 1] == pytest.approx(0, abs=0.02)
    other_site = np.asarray(dropout(x, 0.1, seed, 1))
    assert np.corrcoef(y.ravel() == 0, other_site.ravel() == 0)[0, 1] == pytest.approx(0, abs=0.01)
    neighbours = np.corrcoef(y[:, 1:].ravel() == 0, y[:, :-1].ravel() == 0)[0, 1]
    assert neighbours == pytest.approx(0, abs=0.01)
    next_step = np.asarray(dropout(x, 0.1, seeds(3, jnp.int32(6), jnp.arange(8)), 0))
    assert np.corrcoef(y.ravel() == 0, next_step.ravel() == 0)[0, 1] == pytest.approx(0, abs=0.01)


def test_dropout_of_a_sample_does_not_depend_on_its_neighbours():
    x = jnp.ones((4, 7, 5))
    seed = seeds(0, jnp.int32(1), jnp.arange(4))
    whole = dropout(x, 0.5, seed, 2)
    assert np.array_equal(whole[2:], dropout(x[2:], 0.5, seed[2:], 2))
