"""CIFAR-10 and CIFAR-100 as their authors publish them for Python, packed or unpacked.

    cifar-10-python.tar.gz    cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}
    cifar-100-python.tar.gz   cifar-100-python/{train,test,meta}

Of CIFAR-100's labels the fine ones are used. The files are pickles, which `batch_pickle` reads
without executing them; the archive is read as a stream and never unpacked to disk.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009;
https://www.cs.toronto.edu/~kriz/cifar.html
"""

import re
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import GzipFile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import UInt8

from adtr_jax.data import batch_pickle
from adtr_jax.data.image_set import SPLITS, ImageSet, PixelImage, Split, by_class, check_labels
from adtr_jax.data.samples import File
from adtr_jax.errors import InputError

SIDE = 32
MAX_BYTES = 2**28  # in one file; CIFAR-100's training images, the largest, have 155 MB
MAX_ARCHIVE_BYTES = 2**29  # unpacked; both have 186 MB
MAX_NAME = 2**16  # bytes that a tar file spends on one file's name and attributes

_PIXELS = 3 * SIDE * SIDE
# Members that hold the name or the attributes of the next one, or of all.
_NAMES = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_CLASS = re.compile(r"\w[\w .-]*")


@dataclass(frozen=True)
class Format:
    """The names of a data set's files, and of the entries that are read."""

    batches: dict[Split, tuple[str, ...]]
    meta: str
    labels: str
    classes: str

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.batches["train"], *self.batches["test"], self.meta)


CIFAR10 = Format(
    {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
    meta="batches.meta",
    labels="labels",
    classes="label_names",
)
CIFAR100 = Format(
    {"train": ("train",), "test": ("test",)},
    meta="meta",
    labels="fine_labels",
    classes="fine_label_names",
)
_FORMATS = (CIFAR10, CIFAR100)


def is_batches(folder: Path) -> bool:
    """Return whether the folder holds files of one of the two data sets."""
    return any((folder / name).is_file() for each in _FORMATS for name in each.files)


def read_folder(folder: Path) -> ImageSet:
    """Read the batches in a folder.

    Raises:
        InputError: if a file is missing, damaged, or requires anything but images and labels.
    """
    present = {name for each in _FORMATS for name in each.files if (folder / name).is_file()}

    def load(name: str) -> dict[str, Any]:
        path = folder / name
        try:
            with path.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        except OSError as error:
            raise InputError(
                f"cannot read {path}: {error.strerror}; check its permissions"
            ) from error
        return _unpickle(data, str(path))

    return _image_set(folder, present, load)


def read_archive(path: Path) -> ImageSet:
    """Read the batches in a compressed tar file, in which they lie in one folder or in none.

    Raises:
        InputError: as in `read_folder`, and if the archive is damaged or too large.
    """
    wanted = {name for each in _FORMATS for name in each.files}
    batches: dict[str, dict[str, Any]] = {}
    with _reporting_damage(path), GzipFile(path) as unpacked:
        stream = _Limited(unpacked, path)
        options: dict[str, Any] = {"fileobj": stream, "mode": "r|", "tarinfo": _Member}
        with tarfile.open(**options) as tar:
            for member in tar:
                parts = PurePosixPath(member.name).parts
                if not member.isreg() or len(parts) > 2 or not wanted.intersection(parts[-1:]):
                    continue
                content = tar.extractfile(member)
                assert content is not None  # it is None only for folders and the like
                data = content.read(MAX_BYTES + 1)
                batches[parts[-1]] = _unpickle(data, f"{path}/{member.name}")
        while stream.read(2**20):
            pass  # the checksum is at the very end
    return _image_set(path, tuple(batches), batches.pop)


class _Member(tarfile.TarInfo):
    """A member of a tar file, whose name and attributes tarfile reads into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        """As of the base class; raises HeaderError if they take more than `MAX_NAME`."""
        member = super().frombuf(buf, encoding, errors)
        if member.size > MAX_NAME and member.type in _NAMES:
            raise tarfile.ReadError(f"a name or attributes of {member.size:,} bytes")
        return member


class _Limited:
    """A stream that raises InputError after `MAX_ARCHIVE_BYTES`."""

    def __init__(self, stream: GzipFile, path: Path) -> None:
        self._stream = stream
        self._path = path
        self._left = MAX_ARCHIVE_BYTES

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, or fewer at the end of the stream."""
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise InputError(
                f"{self._path} holds more than {MAX_ARCHIVE_BYTES:,} bytes, which no official "
                "archive does: get the data set again"
            )
        return data


@contextmanager
def _reporting_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError, RecursionError) as error:
        raise batch_pickle.damaged(str(path), error) from error


def _unpickle(data: bytes, where: str) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise InputError(f"{where} is larger than {MAX_BYTES:,} bytes: get the data set again")
    return batch_pickle.unpickle(data, where)


def _image_set(
    source: Path, present: Collection[str], load: Callable[[str], dict[str, Any]]
) -> ImageSet:
    """Return the images of the format whose files are present, loaded one by one."""
    form = next((each for each in _FORMATS if set(each.files) & set(present)), None)
    if form is None:
        raise InputError(
            f"{source} holds none of the official batches: give cifar-10-python.tar.gz or "
            "cifar-100-python.tar.gz, or the folder in it"
        )
    missing = [name for name in form.files if name not in present]
    if missing:
        raise InputError(f"{source}/{missing[0]} is missing: unpack the official archive again")
    meta = source / form.meta
    classes = batch_pickle.strings(load(form.meta), form.classes, str(meta))
    if len(set(classes)) < len(classes) or not all(map(_CLASS.fullmatch, classes)):
        raise InputError(f"{meta} has names that are no names of classes: get the data set again")
    files: dict[tuple[Split, str], tuple[File, ...]] = {}
    for split in SPLITS:
        pairs: list[tuple[File, int]] = []
        for batch in form.batches[split]:
            pairs += _images(load(batch), form.labels, len(classes), source / batch)
        files |= {(split, each): group for each, group in by_class(pairs, classes).items()}
    return ImageSet(str(source), tuple(classes), files)


def _images(
    batch: dict[str, Any], labels_entry: str, classes: int, file: Path
) -> list[tuple[File, int]]:
    """Return a batch's images and labels; each row has the red values, then green, then blue."""
    data = batch_pickle.integers(batch, "data", str(file))
    labels = batch_pickle.integers(batch, labels_entry, str(file))
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _PIXELS:
        raise InputError(
            f"{file} has data of type {data.dtype} and shape {data.shape} instead of 8-bit images "
            f"in rows of {_PIXELS} values: get the data set again"
        )
    check_labels(labels, len(data), classes, file)
    pixels: UInt8[np.ndarray, "n 32 32 3"] = data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    images = [PixelImage(each, f"{file}[{index}]") for index, each in enumerate(pixels)]
    return list(zip(images, labels.tolist(), strict=True))
