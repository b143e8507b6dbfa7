"""Small files in the formats of CIFAR-10 and CIFAR-100, written as Python 2 or Python 3 does."""

import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from adtr_jax.data import cifar

Pickle = Callable[[dict[bytes, Any]], bytes]

# Of the 100 fine classes, as many as the tests need; in CIFAR-100 they are in alphabetical order.
CIFAR100_CLASSES = ("apple", "aquarium_fish", "pickup_truck", "wolf")


def python2(value: Any) -> bytes:
    """Pickle a value as Python 2 did with protocol 2: its text is bytes, and it names old modules.

    As in the official files; for dictionaries, lists, integers, text and arrays of bytes.
    """
    return b"\x80\x02" + _python2(value) + b"."


def python3(protocol: int) -> Pickle:
    """Return what pickles with one of Python 3's protocols."""
    return lambda value: pickle.dumps(value, protocol=protocol)


def _python2(value: Any) -> bytes:
    if isinstance(value, dict):
        items = b"".join(_python2(key) + _python2(item) for key, item in value.items())
        return b"}q\x01(" + items + b"u"
    if isinstance(value, list):
        return b"]r\x00\x01\x00\x00(" + b"".join(map(_python2, value)) + b"e"
    if isinstance(value, int):
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)
    if isinstance(value, bytes) and len(value) < 256:
        return b"U" + bytes([len(value)]) + value
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    shape = _python2(value.shape[0]) + _python2(value.shape[1]) + b"\x86"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + 2 * b"J\xff\xff\xff\xff"
    return b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + (
        shape + dtype + b"K\x00tb\x89" + _python2(value.tobytes()) + b"tb"
    )


def batch(images: np.ndarray, labels: list[int], entry: bytes = b"labels") -> dict[bytes, Any]:
    """Return a batch of [n 32 32 3] images as the official files hold it."""
    rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
    names = [b"picture_%d.png" % index for index in range(len(images))]
    return {b"batch_label": b"batch 1 of 5", entry: labels, b"data": rows, b"filenames": names}


def cifar10(pickled: Pickle = python2) -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    """Return files by name, and the training and test images in their order.

    20 training images a batch and 30 test images; the label of image i is i % 10.
    """
    rng = np.random.default_rng(0)
    train = rng.integers(0, 256, (100, 32, 32, 3), np.uint8)
    test = rng.integers(0, 256, (30, 32, 32, 3), np.uint8)
    files = {
        f"data_batch_{1 + i}": pickled(batch(train[20 * i : 20 * i + 20], list(range(10)) * 2))
        for i in range(5)
    }
    files["test_batch"] = pickled(batch(test, list(range(10)) * 3))
    names = [name.encode() for name in cifar.CLASSES]
    meta = {b"num_cases_per_batch": 10000, b"label_names": names, b"num_vis": 3072}
    return files | {"batches.meta": pickled(meta)}, train, test


def cifar100(pickled: Pickle = python2) -> tuple[dict[str, bytes], np.ndarray]:
    """Return files by name, and the 12 training images; the fine label of image i is i % 4."""
    images = np.random.default_rng(1).integers(0, 256, (12, 32, 32, 3), np.uint8)
    fine = batch(images, [0, 1, 2, 3] * 3, b"fine_labels") | {b"coarse_labels": [0] * 12}
    meta = {
        b"fine_label_names": [name.encode() for name in CIFAR100_CLASSES],
        b"coarse_label_names": [b"everything"],
    }
    return {"train": pickled(fine), "test": pickled(fine), "meta": pickled(meta)}, images


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files into a new folder."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def pack(path: Path, files: dict[str, bytes], folder: str) -> Path:
    """Write a tar.gz that holds the files in a folder."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path
