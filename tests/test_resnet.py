"""The ResNets: sizes, parity with torchvision's arithmetic through the conversion, its errors."""

import dataclasses
import functools
import hashlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import load_file
from torch_resnet import random_network

import conversion
from adtr_jax import backbones
from adtr_jax.backbones.resnet import max_pool
from adtr_jax.backbones.scaling import LAYOUTS
from adtr_jax.devices.sharding import AXIS, device_mesh, per_device, replicated, split
from adtr_jax.errors import InputError
from conversion import manifest
from conversion.mapping import to_flax

# Trainable parameters, classifier included, and the taps' channels.
SIZES = {
    "resnet-18": (11_689_512, (64, 64, 128, 256, 512)),
    "resnet-34": (21_797_672, (64, 64, 128, 256, 512)),
    "wide-resnet-50-2": (68_883_240, (64, 256, 512, 1024, 2048)),
}


def test_names_are_those_with_pinned_sizes():
    assert tuple(SIZES) == tuple(LAYOUTS)
    assert set(SIZES) < set(backbones.NAMES)


@pytest.mark.parametrize("name", SIZES)
def test_parameters_taps_and_strides(name):
    parameters, channels = SIZES[name]

    def run(images):
        network = backbones.create(name, rngs=nnx.Rngs(0))
        return network, *network(images)

    images = jax.ShapeDtypeStruct((2, 96, 65, 3), jnp.float32)
    network, logits, taps = nnx.eval_shape(run, images)
    leaves = jax.tree.leaves(nnx.state(network, nnx.Param))
    assert sum(leaf.size for leaf in leaves) == parameters
    assert network.channels == channels
    assert logits.shape == (2, 1000)
    rounded_up = (33, 17, 9, 5, 3)
    assert [tap.shape for tap in taps] == [
        (2, 96 // 2**i, width, c)
        for i, width, c in zip(range(1, 6), rounded_up, channels, strict=True)
    ]


# Parity with PyTorch


def convert(name: str, state: dict[str, torch.Tensor], folder: Path) -> Path:
    """The state dict through a file and the conversion, as if it were the published one."""
    checkpoint = folder / f"{name}.pth"
    torch.save(state, checkpoint)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    published = dataclasses.replace(manifest.entry(name), sha256=digest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "entry", lambda name: published)
        return conversion.convert(name, checkpoint=checkpoint, out=folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Name -> the PyTorch network, and ours with its weights."""

    @functools.cache
    def make(name: str):
        folder = tmp_path_factory.mktemp("weights")
        theirs = random_network(name)
        convert(name, theirs.state_dict(), folder)
        return theirs, backbones.load(name, folder)

    return make


def random_images(size: int, batch: int) -> np.ndarray:
    return np.random.default_rng(size).standard_normal((batch, size, size, 3), np.float32)


def reference_outputs(network: torch.nn.Module, images: np.ndarray) -> list[np.ndarray]:
    """Logits and taps, NHWC, of the PyTorch network."""
    with torch.no_grad():
        logits, taps = network(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())
    return [logits.numpy(), *(tap.permute(0, 2, 3, 1).numpy() for tap in taps)]


def relative_errors(found, expected) -> list[float]:
    """Largest difference over largest magnitude, of every output."""
    return [
        float(np.abs(np.asarray(f, np.float32) - e).max() / np.abs(e).max())
        for f, e in zip(found, expected, strict=True)
    ]


@nnx.jit
def forward(network, images):
    logits, taps = network(images)
    return [logits, *taps]


@pytest.mark.parametrize(
    "name, size",
    [
        *((name, size) for name in ("resnet-18", "resnet-34") for size in (32, 224, 256)),
        ("wide-resnet-50-2", 32),
        ("wide-resnet-50-2", 224),
    ],
)
def test_parity_with_pytorch(pair, name, size):
    theirs, ours = pair(name)
    images = random_images(size, batch=2 if size == 32 else 1)
    expected = reference_outputs(theirs, images)
    found = forward(ours, images)
    assert [output.shape for output in found] == [output.shape for output in expected]
    for tap in expected[1:]:  # no constants: they differ from place to place, if there are several
        assert tap.shape[1] == 1 or tap.std(axis=(1, 2)).mean() > 0.02 * np.abs(tap).max()
    assert max(relative_errors(found, expected)) <= 1e-4


def in_training(network, images, weight):
    """Taps, the gradient of a loss by the parameters, and the statistics after one batch."""
    graph, params, statistics = nnx.split(network, nnx.Param, nnx.BatchStat)

    def run(state, images, weight):
        def loss(params):
            model = nnx.merge(graph, params, state[1], copy=True)
            taps = model.taps(images, weight)
            total = sum(jnp.sum(jnp.square(tap) * weight[:, None, None, None]) for tap in taps)
            return jax.lax.psum(total, AXIS), (taps, nnx.state(model, nnx.BatchStat))

        gradients, (taps, statistics) = jax.grad(loss, has_aux=True)(state[0])
        return taps, gradients, statistics

    out = (split(), replicated, replicated)
    compiled = per_device(run, device_mesh(), (replicated, split(), split()), out)
    taps, *states = compiled((params, statistics), jnp.asarray(images), jnp.asarray(weight))
    return taps, *(
        {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(state)}
        for state in states
    )


def test_training_mode_parity_with_pytorch(tmp_path):
    """Batch statistics, gradients through them, and the running ones; an image of weight 0."""
    theirs = random_network("resnet-18").train()
    convert("resnet-18", theirs.state_dict(), tmp_path)
    ours = backbones.load("resnet-18", tmp_path)
    images = random_images(64, batch=4)
    weight = np.array([1, 1, 0, 1], np.float32)
    taps, gradients, statistics = in_training(ours, images, weight)
    counted = torch.from_numpy(images[weight > 0]).permute(0, 3, 1, 2).contiguous()
    _, expected = theirs(counted)
    expected_loss = sum(tap.square().sum() for tap in expected)
    expected_loss.backward()
    found = [np.asarray(tap)[weight > 0] for tap in taps]
    wanted = [tap.detach().permute(0, 2, 3, 1).numpy() for tap in expected]
    assert max(relative_errors(found, wanted)) <= 1e-4
    after = to_flax({k: v.numpy() for k, v in theirs.state_dict().items()}, "resnet-18")
    assert len(statistics) == 40
    for name, value in statistics.items():
        np.testing.assert_allclose(value, after[name], rtol=1e-4, atol=1e-5 * after[name].max())
    by_name = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    state = theirs.state_dict() | {k: v for k, v in by_name.items() if v is not None}
    wanted = to_flax({k: v.numpy() for k, v in state.items()}, "resnet-18")
    compared = [name for name in gradients if not name.startswith("classifier")]
    assert len(compared) == 60
    for name in compared:
        assert relative_errors([gradients[name]], [wanted[name]])[0] <= 1e-4, name


def test_a_trimmed_network_has_the_first_taps_and_nothing_else(pair):
    _, network = pair("resnet-18")
    whole = nnx.clone(network)
    network = nnx.clone(network)
    network.trim(3)
    images = jnp.asarray(random_images(32, batch=1))
    taps = network.taps(images)
    assert len(taps) == 3
    for tap, wanted in zip(taps, whole.taps(images), strict=False):
        np.testing.assert_array_equal(tap, wanted)
    leaves = jax.tree.leaves(nnx.state(network, nnx.Param))
    assert sum(leaf.size for leaf in leaves) == 683_072  # stem, groups 1 and 2


def test_bfloat16_is_close_to_float32(pair):
    _, ours = pair("resnet-34")
    images = random_images(32, batch=2)
    coarse = forward(ours, jnp.asarray(images, jnp.bfloat16))
    assert {output.dtype for output in coarse} == {jnp.dtype("bfloat16")}
    assert max(relative_errors(coarse[1:], forward(ours, images)[1:])) <= 5e-2


def test_normalise_is_imagenets(pair):
    _, network = pair("resnet-18")
    pixels = np.array([0, 127, 255], np.uint8).reshape(1, 1, 1, 3)
    expected = [-0.485 / 0.229, (127 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    np.testing.assert_allclose(network.normalise(pixels).ravel(), expected, rtol=1e-5)


def test_max_pool_pads_with_what_is_never_the_maximum():
    x = np.random.default_rng(0).uniform(-2, -1, (2, 7, 8, 3)).astype(np.float32)
    expected = torch.nn.functional.max_pool2d(torch.from_numpy(x).permute(0, 3, 1, 2), 3, 2, 1)
    np.testing.assert_array_equal(max_pool(jnp.asarray(x)), expected.permute(0, 2, 3, 1))


def test_centres_are_those_of_what_a_sample_sees():
    """The middle of the columns that, lit one at a time in a dark image, reach a tap's sample."""
    network = backbones.shapes("resnet-18")
    graph, state = nnx.split(network)

    def passes_light(keys, leaf):
        """Convolutions that take means, so that light neither vanishes nor explodes on its way."""
        shape = leaf.get_value().shape
        kernel = 1 / np.prod(shape[:-1])
        return leaf.replace(jnp.full(shape, {"kernel": kernel, "bias": 0, "mean": 0}.get(keys, 1)))

    leaves = ((keys, passes_light(keys[-1], leaf)) for keys, leaf in nnx.to_flat_state(state))
    network = nnx.merge(graph, nnx.from_flat_state(leaves))
    side = 128
    columns = jnp.eye(side)[:, None, :, None] * jnp.ones((1, 4, 1, 3))
    taps = nnx.jit(lambda network, images: network(images)[1][:3])(network, columns)
    for i, stride in enumerate((2, 4, 8)):
        place = side // 2 // stride
        seen = np.flatnonzero(np.asarray(taps[i])[:, 0, place, 0])
        assert seen[0] > 0 and seen[-1] < side - 1
        assert (seen[0] + seen[-1]) / 2 == stride * place + network.centres[i]


# Conversion


def arrays_of(network: torch.nn.Module) -> dict[str, np.ndarray]:
    return {key: tensor.numpy() for key, tensor in network.state_dict().items()}


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    return arrays_of(random_network("resnet-18"))


@pytest.mark.parametrize("name", SIZES)
def test_every_tensor_is_mapped_and_counted(name):
    state = arrays_of(random_network(name))
    arrays = to_flax(state, name)
    originals = {key: a for key, a in state.items() if not key.endswith("num_batches_tracked")}
    assert len(arrays) == len(originals)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    trained = [key for key in arrays if not key.endswith((".mean", ".var"))]
    assert sum(arrays[key].size for key in trained) == SIZES[name][0]
    for found, expected in zip(
        sorted(float(array.sum(dtype=np.float64)) for array in arrays.values()),
        sorted(float(array.sum(dtype=np.float64)) for array in originals.values()),
        strict=True,
    ):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_layouts_and_names_of_every_kind_of_tensor(pair):
    state = arrays_of(pair("wide-resnet-50-2")[0])
    arrays = to_flax(state, "wide-resnet-50-2")
    block = {
        f"groups.1.0.{ours}.{new}": state[f"layer2.0.{bn}.{old}"]
        for ours, bn in (
            ("convolutions.0", "bn1"),
            ("convolutions.1", "bn2"),
            ("convolutions.2", "bn3"),
            ("shortcut", "downsample.1"),
        )
        for new, old in (
            ("scale", "weight"),
            ("bias", "bias"),
            ("mean", "running_mean"),
            ("var", "running_var"),
        )
    }
    kernels = {
        "stem.kernel": "conv1.weight",
        "groups.1.0.convolutions.0.kernel": "layer2.0.conv1.weight",
        "groups.1.0.convolutions.1.kernel": "layer2.0.conv2.weight",
        "groups.1.0.shortcut.kernel": "layer2.0.downsample.0.weight",
        "groups.3.2.convolutions.2.kernel": "layer4.2.conv3.weight",
    }
    expected = {
        **block,
        **{ours: np.einsum("oihw->hwio", state[theirs]) for ours, theirs in kernels.items()},
        "stem.var": state["bn1.running_var"],
        "classifier.kernel": state["fc.weight"].T,
        "classifier.bias": state["fc.bias"],
    }
    for key, array in expected.items():
        np.testing.assert_array_equal(arrays[key], array, err_msg=key)
    assert arrays["groups.1.0.convolutions.1.kernel"].shape == (3, 3, 256, 256)


def test_checkpoints_in_float16_and_with_parameters_and_without_counters(tmp_path):
    """The published Wide-ResNet-50-2 is in float16; files of PyTorch 0.1 have no counters."""
    network = random_network("resnet-18").half()
    state = {
        key: tensor
        for key, tensor in network.state_dict(keep_vars=True).items()
        if not key.endswith("num_batches_tracked")
    }
    assert isinstance(state["conv1.weight"], torch.nn.Parameter)
    arrays = load_file(convert("resnet-18", state, tmp_path))
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    expected = to_flax(arrays_of(network), "resnet-18")
    assert arrays.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(arrays[key], array, err_msg=key)


SPOILED = {
    "file.pth: key 'layer1.2.conv1.weight' is unused: resnet-18 has no such tensor; "
    "is it a checkpoint of resnet-18?": {"layer1.2.conv1.weight": np.ones((64, 64, 3, 3))},
    "file.pth: key 'layer1.0.downsample.0.weight' is unused": {
        "layer1.0.downsample.0.weight": np.ones((64, 64, 1, 1))
    },
    "file.pth: key 'layer2.0.conv3.weight' is unused": {"layer2.0.conv3.weight": np.ones(1)},
    "file.pth: key 'layer5.0.conv1.weight' is unused": {"layer5.0.conv1.weight": np.ones(1)},
    "file.pth: key 'module.fc.bias' is unused": {"module.fc.bias": np.ones(1000)},
    "file.pth: no key for 'groups.1.0.shortcut.var', which resnet-18 needs; "
    "is it a checkpoint of resnet-18?": {"layer2.0.downsample.1.running_var": None},
    "file.pth: no key for 'classifier.bias' and 1 more, which resnet-18 needs": {
        "bn1.weight": None,
        "fc.bias": None,
    },
    "file.pth: key 'fc.weight' has shape (10, 512), which does not give 'classifier.kernel' "
    "its shape (512, 1000); is it a checkpoint of another network?": {
        "fc.weight": np.ones((10, 512))
    },
    "file.pth: key 'conv1.weight' has shape (64, 3, 3, 3), which does not give 'stem.kernel' "
    "its shape (7, 7, 3, 64)": {"conv1.weight": np.ones((64, 3, 3, 3))},
    "file.pth: key 'bn1.weight' is int64, not floating-point": {"bn1.weight": np.ones(64, int)},
    "file.pth: key 'layer4.1.bn2.bias' has values that are not finite": {
        "layer4.1.bn2.bias": np.full(512, np.inf)
    },
}


@pytest.mark.parametrize("message", SPOILED, ids=range(len(SPOILED)))
def test_a_state_dict_that_does_not_fit_is_refused(state, message):
    spoiled = {
        key: value for key, value in {**state, **SPOILED[message]}.items() if value is not None
    }
    with pytest.raises(InputError) as caught:
        to_flax(spoiled, "resnet-18", source="file.pth")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_hash_is_refused(tmp_path, state):
    checkpoint = tmp_path / "own.pth"
    torch.save({key: torch.from_numpy(array) for key, array in state.items()}, checkpoint)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    with pytest.raises(InputError) as caught:
        conversion.convert("resnet-18", checkpoint=checkpoint, out=tmp_path)
    assert str(caught.value) == (
        f"{checkpoint}: its SHA-256 is {digest}, but that of the published checkpoint of resnet-18 "
        "is f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec; download "
        "https://download.pytorch.org/models/resnet18-f37072fd.pth again, or by hand and run "
        "`python -m conversion resnet-18 --checkpoint=FILE`"
    )
    assert list(tmp_path.iterdir()) == [checkpoint]
