"""The EfficientNets: sizes, parity with the PyTorch packages, loading, platform of the lowering."""

import functools
import itertools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from adtr_jax import backbones
from adtr_jax.backbones.efficientnet import EfficientNet, same_padding
from adtr_jax.backbones.scaling import SCALINGS
from adtr_jax.detectors import extraction
from adtr_jax.errors import InputError
from adtr_jax.nn.convolution import ConvBatchNorm

# Trainable parameters, classifier included, and the five taps' blocks and channels.
SIZES = {
    "efficientnet-b0": (5_288_548, (0, 2, 4, 10, 15), (16, 24, 40, 112, 320)),
    "efficientnet-b1": (7_794_184, (1, 4, 7, 15, 22), (16, 24, 40, 112, 320)),
    "efficientnet-b2": (9_109_994, (1, 4, 7, 15, 22), (16, 24, 48, 120, 352)),
    "efficientnet-b3": (12_233_232, (1, 4, 7, 17, 25), (24, 32, 48, 136, 384)),
    "efficientnet-b4": (19_341_616, (1, 5, 9, 21, 31), (24, 32, 56, 160, 448)),
    "efficientnet-b5": (30_389_784, (2, 7, 12, 26, 38), (24, 40, 64, 176, 512)),
    "efficientnet-b6": (43_040_704, (2, 8, 14, 30, 44), (32, 40, 72, 200, 576)),
    "efficientnet-b7": (66_347_960, (3, 10, 17, 37, 54), (32, 48, 80, 224, 640)),
    "efficientnet-lite0": (4_652_008, (0, 2, 4, 10, 15), (16, 24, 40, 112, 320)),
    "efficientnet-lite1": (5_416_680, (0, 3, 6, 14, 20), (16, 24, 40, 112, 320)),
    "efficientnet-lite2": (6_092_072, (0, 3, 6, 14, 20), (16, 24, 48, 120, 352)),
    "efficientnet-lite3": (8_197_096, (0, 3, 6, 16, 23), (24, 32, 48, 136, 384)),
    "efficientnet-lite4": (13_006_568, (0, 4, 8, 20, 29), (24, 32, 56, 160, 448)),
}


def test_names_are_those_with_pinned_sizes():
    assert tuple(SIZES) == tuple(SCALINGS)


@pytest.mark.parametrize("name", SIZES)
def test_parameters_taps_and_strides(name):
    parameters, blocks, channels = SIZES[name]

    def run(images):
        network = backbones.create(name, rngs=nnx.Rngs(0))
        return network, *network(images)

    images = jax.ShapeDtypeStruct((2, 96, 64, 3), jnp.float32)
    network, logits, taps = nnx.eval_shape(run, images)
    leaves = jax.tree.leaves(nnx.state(network, nnx.Param))
    assert sum(leaf.size for leaf in leaves) == parameters
    assert network.tapped == blocks
    assert network.channels == channels
    assert logits.shape == (2, 1000)
    strides = (2, 4, 8, 16, 32)
    assert [tap.shape for tap in taps] == [
        (2, 96 // stride, 64 // stride, c) for stride, c in zip(strides, channels, strict=True)
    ]


def test_random_initialisation_has_variance_two_over_fan_out():
    rngs = nnx.Rngs(0)
    dense = ConvBatchNorm(16, 96, 3, epsilon=1e-3, rngs=rngs).kernel[...]
    depthwise = ConvBatchNorm(960, 960, 5, depthwise=True, epsilon=1e-3, rngs=rngs).kernel[...]
    assert dense.shape == (3, 3, 16, 96)
    assert float(dense.std()) == pytest.approx((2 / (9 * 96)) ** 0.5, rel=0.03)
    assert depthwise.shape == (5, 5, 1, 960)
    assert float(depthwise.std()) == pytest.approx((2 / 25) ** 0.5, rel=0.03)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite2"])
def test_centres_are_those_of_the_gradient(name):
    """What a tap's sample sees, measured: the middle of the pixels that its value depends on."""
    network = backbones.shapes(name)
    network.trim(3)
    graph, state = nnx.split(network)
    # All weights equal and the activations in their linear range: a receptive field of ones.
    state = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 1e-3), state)
    images = jnp.full((1, 128, 128, 3), 0.1)
    strides = (2, 4, 8)

    def values(x):
        taps = nnx.merge(graph, state).taps(x)
        return [tap[0, 64 // i, 64 // i, 0] for i, tap in zip(strides, taps, strict=True)]

    # One program for all taps.
    for tap, gradient in enumerate(jax.jit(jax.jacrev(values))(images)):
        seen = np.flatnonzero(np.abs(gradient)[0].sum((1, 2)))
        middle = (seen[0] + seen[-1]) / 2
        assert middle == 64 + network.centres[tap]


def test_a_frozen_network_takes_only_its_larger_arrays():
    network = backbones.create("efficientnet-lite0", rngs=nnx.Rngs(0))
    network.trim(3)
    rng = np.random.default_rng(0)
    graph, state = nnx.split(network)
    state = jax.tree.map(lambda leaf: leaf * rng.uniform(0.5, 1.5, leaf.shape), state)
    images = jnp.asarray(rng.normal(size=(1, 32, 32, 3)), jnp.float32)
    rebuilt, large = extraction.frozen(nnx.merge(graph, state))
    # Of the third tap's blocks: 5 x 5 of 240 channels, and 1 x 1 from and to 24 and 40.
    assert sorted(leaf.size for leaf in large) == [5760, 6000, 9600, 9600]
    assert len(jax.tree.leaves(state)) == 75
    expected = jax.jit(lambda state, x: nnx.merge(graph, state).taps(x))(state, images)
    found = jax.jit(lambda large, x: rebuilt(large).taps(x))(large, images)
    for tap, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(tap, other, rtol=1e-4, atol=1e-5)


def test_static_padding_is_same_at_the_native_size():
    # Block 6 of B4 sees 95 pixels: two rows before and two after, where SAME at 64 has (1, 2).
    assert same_padding(95, 5, 2) == (2, 2)
    assert same_padding(64, 5, 2) == (1, 2)
    assert same_padding(190, 3, 2) == (0, 1)
    network = backbones.shapes("efficientnet-b4")
    assert network.blocks[6].depthwise.padding == (2, 2)


def test_the_package_gives_its_names_without_jax():
    code = "import sys, adtr_jax.backbones as b; print(len(b.NAMES), 'jax' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout.split() == [b"17", b"False"]


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(InputError, match="called efficientnet_b4: did you mean efficientnet-b4"):
        backbones.create("efficientnet_b4", rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="did you mean efficientnet-lite2"):
        backbones.load("lite2", Path())


# Parity with the PyTorch packages


def reference(name: str):
    """The PyTorch network, built by default, with random weights and BatchNorm statistics.

    The kernels' gain of 1.3 keeps what the image contributes alive over a hundred layers; with a
    gain of 1.5, B4 is chaotic: float32 and float64 differ by a tenth.
    """
    torch = pytest.importorskip("torch")
    package = "efficientnet_lite_pytorch" if "lite" in name else "efficientnet_pytorch"
    network = pytest.importorskip(package).EfficientNet.from_name(name).eval()
    generator = torch.Generator().manual_seed(4)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.8, 1.2, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        elif isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            std = 1.3 * module.weight[0].numel() ** -0.5
            torch.nn.init.normal_(module.weight, std=std, generator=generator)
            if module.bias is not None:
                torch.nn.init.normal_(module.bias, std=0.2, generator=generator)
    return network


def reference_outputs(network, images: np.ndarray, blocks: tuple[int, ...]) -> list[np.ndarray]:
    """Logits and taps, NHWC, of the PyTorch network."""
    import torch

    taps = []
    hooks = [
        network._blocks[i].register_forward_hook(lambda _, __, y: taps.append(y)) for i in blocks
    ]
    with torch.no_grad():
        logits = network(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))))
    for hook in hooks:
        hook.remove()
    return [logits.numpy(), *(tap.numpy().transpose(0, 2, 3, 1) for tap in taps)]


def worst(found, expected) -> float:
    """Largest difference over largest magnitude, the worst of all outputs."""
    return max(
        float(np.abs(np.asarray(f, np.float32) - e).max() / np.abs(e).max())
        for f, e in zip(found, expected, strict=True)
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Name -> the PyTorch network, and ours with its weights, through conversion and file."""
    to_flax = pytest.importorskip("conversion.mapping").to_flax

    @functools.cache
    def make(name: str):
        theirs = reference(name)
        folder = tmp_path_factory.mktemp("weights")
        tensors = {key: value.numpy() for key, value in theirs.state_dict().items()}
        save_file(to_flax(tensors, name), folder / f"{name}.safetensors")
        return theirs, backbones.load(name, folder)

    return make


@nnx.jit
def forward(network: EfficientNet, images):
    return network(images)


def random_images(size: int, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(size).standard_normal((batch, size, size, 3), np.float32)


@pytest.mark.parametrize(
    "name, size",
    [
        *itertools.product(["efficientnet-b0", "efficientnet-b4"], [32, 224, 256, 512]),
        ("efficientnet-lite3", 256),
    ],
)
def test_parity_with_pytorch(pair, name, size):
    theirs, ours = pair(name)
    images = random_images(size, batch=2 if size == 32 else 1)
    expected = reference_outputs(theirs, images, ours.tapped)
    logits, taps = forward(ours, images)
    assert len(expected) == 6
    for tap in expected[1:]:  # no constants: they differ from place to place, if there are several
        assert tap.shape[1] == 1 or tap.std(axis=(1, 2)).mean() > 0.05 * np.abs(tap).max()
    assert worst((logits, *taps), expected) <= 1e-4


def test_bfloat16_is_close_to_float32(pair):
    _, ours = pair("efficientnet-b4")
    images = random_images(32, batch=2)
    _, taps = forward(ours, images)
    coarse_logits, coarse_taps = forward(ours, jnp.asarray(images, jnp.bfloat16))
    assert {coarse_logits.dtype, *(tap.dtype for tap in coarse_taps)} == {jnp.dtype("bfloat16")}
    assert worst(coarse_taps, taps) <= 5e-2


def test_a_call_without_jit_is_the_same(pair):
    _, network = pair("efficientnet-b0")
    block = network.blocks[1]  # halves the resolution, and has every part but the residual
    x = random_images(16).repeat(16, axis=-1)[..., :16]
    assert worst([block(jnp.asarray(x))], [nnx.jit(lambda block, x: block(x))(block, x)]) <= 1e-5


# Preprocessing


def test_normalise_is_imagenets_or_lites():
    pixels = np.array([0, 127, 255], np.uint8).reshape(1, 1, 1, 3)
    b0 = backbones.shapes("efficientnet-b0")
    lite = backbones.shapes("efficientnet-lite0")
    for dtype in (np.uint8, np.float32):
        values = b0.normalise(pixels.astype(dtype))
        assert values.dtype == jnp.float32
        expected = [-0.485 / 0.229, (127 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
        np.testing.assert_allclose(values.ravel(), expected, rtol=1e-5)
        expected = [-127 / 128, 0, 1]
        np.testing.assert_allclose(lite.normalise(pixels.astype(dtype)).ravel(), expected)


# Loading


LITE0 = "efficientnet-lite0"


@pytest.fixture(scope="module")
def zeros() -> dict[str, np.ndarray]:
    network = backbones.shapes(LITE0)
    leaves = nnx.to_flat_state(nnx.state(network))
    return {
        ".".join(map(str, keys)): np.zeros(leaf.get_value().shape, np.float32)
        for keys, leaf in leaves
    }


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / f"{LITE0}.safetensors"


def message_of_load(file: Path) -> str:
    with pytest.raises(InputError) as caught:
        backbones.load(LITE0, file.parent)
    message = str(caught.value)
    assert message.startswith(f"{file}")
    assert f"`python -m conversion {LITE0} --out={file.parent}`" in message
    assert "\n" not in message
    return message


def test_load_gives_every_tensor_its_place(zeros, file):
    values = {key: np.full_like(zero, i) for i, (key, zero) in enumerate(zeros.items())}
    save_file(values, file)
    leaves = nnx.to_flat_state(nnx.state(backbones.load(LITE0, file.parent)))
    assert len(leaves) == len(values)
    for keys, leaf in leaves:
        np.testing.assert_array_equal(leaf.get_value(), values[".".join(map(str, keys))])


def test_load_a_file_that_is_not_there(file):
    assert "is not there" in message_of_load(file)


def test_load_a_truncated_and_a_foreign_file(zeros, file):
    save_file(zeros, file)
    file.write_bytes(file.read_bytes()[:-100])
    assert "is not a readable safetensors file" in message_of_load(file)
    file.write_bytes(b"\x80\x02}q\x00.")
    assert "is not a readable safetensors file" in message_of_load(file)


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"extra.kernel": np.zeros(3, np.float32)}, "the network has no tensor 'extra.kernel'"),
        ({"stem.kernel": None}, "tensor 'stem.kernel' is missing"),
        ({"stem.var": np.zeros(3, np.float32)}, "'stem.var' has shape (3,), not (32,)"),
        ({"stem.mean": np.zeros(32, np.float64)}, "'stem.mean' is F64, not F32"),
    ],
)
def test_load_wants_exactly_the_networks_tensors(zeros, file, change, expected):
    tensors = {key: value for key, value in (zeros | change).items() if value is not None}
    save_file(tensors, file)
    assert expected in message_of_load(file)
