"""Detects and reads sources of images in classes.

* a folder, or a zip file, of {train,test}/CLASS/* (`class_folders`);
* the official CIFAR-10 or CIFAR-100 for Python: the tar.gz, or the folder in it (`python_batches`);
* a folder of IDX files, such as MNIST and Fashion-MNIST (`idx`).

All but the tar.gz may have one enclosing folder.
"""

import zipfile
from pathlib import Path

from adtr_jax.data import class_folders, idx, python_batches
from adtr_jax.data.image_set import SPLITS, ImageSet
from adtr_jax.data.walk import walk
from adtr_jax.errors import InputError

ACCEPTED = (
    "a folder or zip file of train/CLASS and test/CLASS, the official cifar-10-python.tar.gz or "
    "cifar-100-python.tar.gz or the folder in it, or a folder of IDX files"
)
_GZIP = b"\x1f\x8b"


def read(source: Path) -> ImageSet:
    """List the images of any source above; none is decoded.

    Raises:
        InputError: if `source` does not exist or is none of the above, or as its reader does.
    """
    source = source.expanduser()
    if not source.exists():
        raise InputError(f"{source} does not exist: give {ACCEPTED}")
    if not source.is_dir():
        return _read_file(source)
    below = [source / n for n in walk(source, depth=1) if n.endswith("/") and n[0] != "."]
    for folder in (source, *below) if len(below) == 1 else (source,):
        if python_batches.is_batches(folder):
            return python_batches.read_folder(folder)
        if idx.is_idx(folder):
            return idx.read(folder)
        if any((folder / split).is_dir() for split in SPLITS):
            return class_folders.read_folder(folder)
    raise InputError(f"{source} holds no classed images that can be read: give {ACCEPTED}")


def _read_file(source: Path) -> ImageSet:
    if not source.is_file():  # reading a pipe would wait for ever
        raise InputError(f"{source} is neither a file nor a folder: give {ACCEPTED}")
    try:
        with source.open("rb") as stream:
            begin = stream.read(len(_GZIP))
        if zipfile.is_zipfile(source):
            return class_folders.read_zip(source)
    except OSError as error:
        raise InputError(
            f"cannot read {source}: {error.strerror}; check its permissions"
        ) from error
    if begin == _GZIP:
        return python_batches.read_archive(source)
    raise InputError(f"{source} is no source of classed images: give {ACCEPTED}")
