"""Grey images in IDX files, such as MNIST and Fashion-MNIST.

    {train,t10k}-images-idx3-ubyte[.gz]     the images: a header, then 8-bit grey values by rows
    {train,t10k}-labels-idx1-ubyte[.gz]     their labels, 8 bits each

The files do not name the classes, so these are called "0", "1" and so on. Format: LeCun, Cortes and
Burges, "The MNIST database of handwritten digits".
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from adtr_jax.data.image_set import ImageSet, PixelImage, Split, by_class, check_labels
from adtr_jax.data.samples import File
from adtr_jax.errors import InputError

MAX_BYTES = 2**30  # in one file, unpacked; EMNIST's training images, the largest, have 0.5 GB
MAX_IMAGES = 2**20  # in one file; EMNIST has 0.7 million

_PREFIXES: dict[Split, str] = {"train": "train", "test": "t10k"}
_UNSIGNED_BYTES = 0x08
_GZIP = b"\x1f\x8b"


def is_idx(folder: Path) -> bool:
    """Return whether the folder holds IDX files of images."""
    return any(_find(folder, f"{prefix}-images", 3) for prefix in _PREFIXES.values())


def read(folder: Path) -> ImageSet:
    """Read the images of a folder that holds training images, test images or both.

    Raises:
        InputError: if labels are missing, or a file is damaged or of another format.
    """
    splits = [split for split in _PREFIXES if _find(folder, f"{_PREFIXES[split]}-images", 3)]
    images, labels = {}, {}
    for split in splits:
        prefix = _PREFIXES[split]
        images[split] = _read(_require(folder, f"{prefix}-images", 3), 3)
        labels[split] = _read(_require(folder, f"{prefix}-labels", 1), 1)
    count = 1 + max((int(each.max()) for each in labels.values() if each.size), default=0)
    classes = tuple(str(label) for label in range(count))
    files: dict[tuple[Split, str], tuple[File, ...]] = {}
    for split in splits:
        file = _require(folder, f"{_PREFIXES[split]}-labels", 1)
        check_labels(labels[split], len(images[split]), count, file)
        source = _require(folder, f"{_PREFIXES[split]}-images", 3)
        pixel_images = [
            PixelImage(pixels, f"{source}[{i}]") for i, pixels in enumerate(images[split])
        ]
        pairs = zip(pixel_images, labels[split].tolist(), strict=True)
        files |= {(split, name): group for name, group in by_class(pairs, classes).items()}
    return ImageSet(folder.as_posix(), classes, files)


def _find(folder: Path, stem: str, dimensions: int) -> Path | None:
    for ending in ("", ".gz"):
        path = folder / f"{stem}-idx{dimensions}-ubyte{ending}"
        if path.is_file():
            return path
    return None


def _require(folder: Path, stem: str, dimensions: int) -> Path:
    path = _find(folder, stem, dimensions)
    if path is None:
        raise InputError(f"{folder}/{stem}-idx{dimensions}-ubyte.gz is missing: add it")
    return path


def _read(path: Path, dimensions: int) -> UInt8[np.ndarray, "..."]:
    """Return the array in an IDX file, which may be gzipped."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP
        with gzip.open(path) if packed else path.open("rb") as stream:
            magic, *shape = struct.unpack(f">{1 + dimensions}I", stream.read(4 * (1 + dimensions)))
            if magic != _UNSIGNED_BYTES << 8 | dimensions:
                raise ValueError(f"it begins with {magic:08x}")
            size = math.prod(shape)
            if size > MAX_BYTES or shape[0] > MAX_IMAGES or 0 in shape[1:]:
                raise ValueError(f"it claims the shape {shape}")
            content = stream.read(size + 1)
            if len(content) != size:
                raise ValueError(f"it should hold {size:,} values")
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise InputError(
            f"cannot read {path} as an IDX file ({error}): get the data set again"
        ) from error
    return np.frombuffer(content, np.uint8).reshape(shape)
