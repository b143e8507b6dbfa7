"""What UniAD adds to ADTR against PyTorch: neighbour mask, query in every layer, jitter, clip."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from adtr_jax import detectors
from adtr_jax.backbones.pixels import Pixels
from adtr_jax.config import AdtrSettings
from adtr_jax.devices.sharding import platform
from adtr_jax.errors import InputError
from adtr_jax.models import losses
from adtr_jax.models.adtr import ADTR
from adtr_jax.nn.attention import Neighbours
from adtr_jax.nn.dropout import seeds
from adtr_jax.nn.jitter import jitter
from adtr_jax.training import train

SIDE, CHANNELS = 6, 12
DRAWN = np.random.default_rng(0).normal(size=(2, SIDE, SIDE, CHANNELS)).astype(np.float32)
FEATURES = jnp.asarray(DRAWN)
SEEDS = seeds(0, jnp.int32(4), jnp.arange(2))


pytestmark = pytest.mark.usefixtures("soon_compiled")


@pytest.mark.parametrize(("size", "layerwise"), [(3, False), (5, True)])
def test_reconstruction_and_gradient_are_those_in_pytorch(size, layerwise):
    torch = pytest.importorskip("torch")
    from torch_uniad import HEADS, HIDDEN, WIDTH, TorchUniAD

    from benchmarks.torch_adtr import flax_name_values, load_into

    torch.manual_seed(0)
    theirs = TorchUniAD(CHANNELS, SIDE, size=size, layerwise=layerwise)
    with torch.no_grad():
        for parameter in theirs.parameters():  # biases and norms away from 0 and 1
            parameter.add_(0.1 * torch.randn_like(parameter))
    f = torch.from_numpy(DRAWN)
    f_hat = theirs(f)
    ((f - f_hat) ** 2).sum(-1).mean().backward()
    sizes = {"width": WIDTH, "heads": HEADS, "hidden": HIDDEN, "depth": 2}
    options = {"layerwise": layerwise, "neighbours": size}
    ours = ADTR(CHANNELS, SIDE**2, **sizes, **options, rngs=nnx.Rngs(0))
    load_into(ours, flax_name_values(theirs))
    graph, params = nnx.split(ours)

    def loss(params):
        found = nnx.merge(graph, params)(FEATURES)
        return losses.normal(FEATURES, found).mean(), found

    with platform("cpu"):  # one form, compiled in half the time
        (_, found), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(found, f_hat.detach().numpy(), atol=1e-5)
    expected = flax_name_values(theirs, grad=True)
    for path, leaf in nnx.to_flat_state(gradient):
        name = ".".join(map(str, path))
        wanted = expected[name].numpy()
        # Softmax ignores a key's bias: both have noise there.
        scale = 1 if name.endswith("key.bias") else np.abs(wanted).max()
        np.testing.assert_allclose(leaf[...], wanted, atol=1e-4 * scale, err_msg=name)


def test_a_window_leaves_out_what_is_near():
    """Of a map of 4 rows and 6 columns: the corner sees all but 2 x 2 tokens, others but 3 x 3."""
    tokens = jnp.arange(24)
    mask = np.asarray(Neighbours(3, 6).mask(tokens, tokens)).reshape(4, 6, 4, 6)
    assert np.argwhere(mask[0, 0]).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert mask[2, 3].sum() == 9 and mask[2, 3, 1:4, 2:5].all()
    assert mask[1, 5].sum() == 6 and not mask[1, 5, :, 0].any()


def test_jitter_is_normal_in_proportion_to_a_tokens_norm():
    f = np.repeat(DRAWN, 100, axis=-1)
    noise = np.asarray(jax.jit(lambda f: jitter(f, 20.0, SEEDS))(f)) - f
    sigma = 20 * np.linalg.norm(f, axis=-1, keepdims=True) / f.shape[-1]
    z = noise / sigma
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    # 86,400 numbers: the standard error of a correlation is 0.0034, between images 0.0048.
    assert np.corrcoef(z[0].ravel(), z[1].ravel())[0, 1] == pytest.approx(0, abs=0.02)
    assert np.corrcoef(z[..., 1:].ravel(), z[..., :-1].ravel())[0, 1] == pytest.approx(0, abs=0.015)


def test_jitter_of_an_image_depends_on_seed_step_and_place_alone():

    @jax.jit
    def draw(f):
        others = [seeds(1, jnp.int32(4), jnp.arange(2)), seeds(0, jnp.int32(5), jnp.arange(2))]
        whole, *drawn = (jitter(f, 20.0, seed) for seed in (SEEDS, *others))
        return whole, jitter(f[1:], 20.0, SEEDS[1:]), drawn

    whole, alone, others = draw(FEATURES)
    np.testing.assert_array_equal(whole[1:], alone)
    for drawn in others:
        assert np.abs(drawn - whole).min() > 0


def test_jitter_is_on_what_is_reconstructed_and_in_training_only():
    settings = AdtrSettings(backbone="pixels", layers=(4,), image_size=64, model="no_attention")
    sizes = {"width": 16, "heads": 2, "depth": 1, "hidden": 16, "dropout": 0.0}
    settings = dataclasses.replace(settings, **sizes, jitter=20.0)
    detector = detectors.create(Pixels(), settings).initialised()
    f = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4, 4, 768)), jnp.float32)

    @jax.jit
    def run(params, f):
        trained, tested = (
            detector.loss(params, detector.rest, train.Batch(f, seed, None))[0]
            for seed in (SEEDS, None)
        )
        both = jnp.stack([jitter(f, 20.0, SEEDS), f])
        return jnp.stack([trained, tested]), jax.vmap(nnx.merge(detector.graph, params))(both)

    with platform("cpu"):
        found, f_hat = run(detector.params, f)
    np.testing.assert_allclose(found, np.square(f - f_hat).sum(-1).mean((2, 3)), rtol=1e-5)
    assert np.abs(f_hat[0] - f_hat[1]).max() > 0.1


@pytest.mark.parametrize("clip", [0.1, 100.0])
def test_a_clipped_gradient_is_the_one_in_pytorch(clip):
    """As AdamW's first moment has it; the first step does not depend on the gradient's scale."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    gradients = [3 * rng.normal(size=shape).astype(np.float32) for shape in ((3, 4), (5,))]
    norm = np.linalg.norm(np.concatenate([gradient.ravel() for gradient in gradients]))
    assert 0.1 < norm < 100
    theirs = [torch.nn.Parameter(torch.zeros(gradient.shape)) for gradient in gradients]
    for parameter, gradient in zip(theirs, gradients, strict=True):
        parameter.grad = torch.from_numpy(gradient.copy())
    torch.nn.utils.clip_grad_norm_(theirs, clip)
    ours = train.make_optimiser(AdtrSettings(clip=clip))
    first = jax.jit(lambda g: ours.update(g, ours.init(g), g)[1][1][0].mu)(gradients)
    for parameter, mu in zip(theirs, first, strict=True):
        np.testing.assert_allclose(mu, 0.1 * parameter.grad, rtol=1e-5)


def test_bad_settings_are_one_line():
    window = r"--neighbours=\d+ must be odd, above 0 and below 16, the tokens on a side of the"
    for size in (0, 4, 17):
        with pytest.raises(InputError, match=window):
            AdtrSettings(neighbours=size)
    assert AdtrSettings(neighbours=15).neighbours == 15
    with pytest.raises(InputError, match="--neighbours is of attention, and --model=cnn has none"):
        AdtrSettings(neighbours=7, model="cnn")
    for name in ("clip", "jitter"):
        with pytest.raises(InputError, match=rf"--{name}=0.0 must be greater than 0"):
            AdtrSettings(**{name: 0.0})
