"""IDX files, as of MNIST: compressed or not, and what is missing or damaged."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from adtr_jax.data import Sample, image_sources, load_images
from adtr_jax.errors import InputError

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def encoded(values: np.ndarray) -> bytes:
    header = struct.pack(f">{1 + values.ndim}I", 0x0800 | values.ndim, *values.shape)
    return header + values.tobytes()


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 20, 20), np.uint8)


@pytest.fixture
def source(tmp_path: Path, images: np.ndarray) -> Path:
    """Training images, compressed, and test images, not compressed; labels 0 to 2."""
    labels = np.array([0, 1, 2, 0, 1, 2], np.uint8)
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name, values in (("images-idx3", images), ("labels-idx1", labels)):
        (folder / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(encoded(values)))
        (folder / f"t10k-{name}-ubyte").write_bytes(encoded(values[:4]))
    return folder


def error_of(source: Path) -> str:
    with pytest.raises(InputError) as caught:
        image_sources.read(source)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(source.as_posix(), "SOURCE")


def test_pixels_are_as_in_the_file(source: Path, images: np.ndarray) -> None:
    read = image_sources.read(source)
    assert read.classes == ("0", "1", "2")
    assert {key: len(files) for key, files in read.files.items()} == {
        **{("train", name): 2 for name in "012"},
        **{("test", name): count for name, count in zip("012", (2, 1, 1), strict=True)},
    }
    assert str(read.of("train", "1")[1]) == f"{source}/train-images-idx3-ubyte.gz[4]"
    for label in range(3):
        for split, values in (("train", images), ("test", images[:4])):
            files = read.files[split, str(label)]
            loaded = load_images([Sample("", file, "") for file in files], 20)
            assert (loaded == values[label::3, :, :, None]).all()


def test_one_split_will_do(source: Path) -> None:
    for path in source.glob("t10k-*"):
        path.unlink()
    assert {split for split, _ in image_sources.read(source.parent).files} == {"train"}


@pytest.mark.parametrize("packed", [True, False])
def test_missing_labels(source: Path, packed: bool) -> None:
    name = "train-labels-idx1-ubyte.gz" if packed else "t10k-labels-idx1-ubyte"
    (source / name).unlink()
    assert error_of(source) == f"SOURCE/{name.removesuffix('.gz')}.gz is missing: add it"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "unpack requires a buffer of 16 bytes"),
        (struct.pack(">4I", 0x0D03, 1, 2, 2) + bytes(16), "it begins with 00000d03"),
        (struct.pack(">2I", 0x0801, 16) + bytes(16), "it begins with 00000801"),
        (struct.pack(">4I", 0x0803, 1, 2, 2) + bytes(3), "it should hold 4 values"),
        (struct.pack(">4I", 0x0803, 1, 2, 2) + bytes(5), "it should hold 4 values"),
        (struct.pack(">4I", 0x0803, 2**20, 2**12, 1), "it claims the shape [1048576, 4096, 1]"),
        (struct.pack(">4I", 0x0803, 1, 0, 2), "it claims the shape [1, 0, 2]"),
        (struct.pack(">4I", 0x0803, 2**21, 1, 1), "it claims the shape [2097152, 1, 1]"),
        (
            gzip.compress(struct.pack(">4I", 0x0803, 1, 300, 300) + bytes(90_000))[:-9],
            "Compressed file ended before",
        ),
        (b"\x1f\x8b\x08" + bytes(40), "Error -3 while decompressing"),
    ],
)
def test_damaged_files(source: Path, content: bytes, reason: str) -> None:
    (source / "t10k-images-idx3-ubyte").write_bytes(content)
    message = error_of(source)
    assert message.startswith("cannot read SOURCE/t10k-images-idx3-ubyte as an IDX file (")
    assert reason in message


def test_labels_that_do_not_fit(source: Path) -> None:
    (source / "t10k-labels-idx1-ubyte").write_bytes(encoded(np.zeros(3, np.uint8)))
    assert error_of(source) == (
        "SOURCE/t10k-labels-idx1-ubyte has 3 labels for 4 images: get the data set again"
    )


@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_fashion_mnist() -> None:
    images = image_sources.read(FASHION_MNIST)
    assert images.classes == tuple("0123456789")
    assert {len(images.of("train", name)) for name in images.classes} == {6000}
    assert {len(images.of("test", name)) for name in images.classes} == {1000}
    trousers = load_images([Sample("", file, "") for file in images.of("test", "1")], 28)
    assert 50 < trousers.mean() < 65
