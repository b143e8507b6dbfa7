"""PyTorch's two file formats -> NumPy arrays, without PyTorch and without running anything.

* legacy (up to PyTorch 1.5): five pickles (magic number, format version, system, the state dict,
  the storages' keys), then each storage: its length as int64, its elements, little-endian;
* zip (since 1.6): stored, never compressed, `NAME/data.pkl` with the state dict, `NAME/data/KEY`
  with each storage and `NAME/byteorder`.

Formats: `torch.save` and `torch.load` in PyTorch's torch/serialization.py.
"""

import io
import math
import os
import struct
import zipfile
from pathlib import Path

import numpy as np

from adtr_jax.errors import InputError
from adtr_jax.files.pickle_machine import shown
from conversion.state_dict import (
    Storage,
    TensorView,
    reporting_damage,
    require_tensors,
    unpickle,
)

MAX_BYTES = 2**30  # EfficientNet-B7's checkpoint, the largest, has 0.25 GiB
MAX_RECORDS = 100_000  # in a zip file; EfficientNet-B7's has about 1,400

_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_ZIP_ENTRY = b"PK\x01\x02"


def read(path: Path) -> dict[str, np.ndarray]:
    """Reads a state dict saved by `torch.save`.

    Args:
        path: a file in PyTorch's legacy or zip format.

    Returns:
        The tensors by name, as read-only views of the file's bytes (so not always aligned or
        contiguous); bfloat16 tensors have the element type `ml_dtypes.bfloat16`.

    Raises:
        InputError: the file is missing, too large, truncated, damaged, no PyTorch file, no state
            dict, or its pickle asks for anything that a state dict does not need.
    """
    return decode(load(path), str(path))


def load(path: Path) -> bytes:
    """The bytes of a file of at most `MAX_BYTES`.

    Raises:
        InputError: there is no such file, it is too large or not readable.
    """
    if not path.is_file():
        what = "not a file" if path.exists() else "no such file"
        raise InputError(f"{path}: {what}; check the path")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{path}: larger than {MAX_BYTES:,} bytes; no checkpoint of a backbone is: "
                "check the path"
            )
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({os.strerror(error.errno or 0)}); check its permissions"
        ) from None


def decode(data: bytes, where: str) -> dict[str, np.ndarray]:
    """As `read`, from the file's bytes; `where` is the file's name in errors."""
    # The magic number is in the first of the five pickles, whatever its protocol.
    if _MAGIC.to_bytes(10, "little") in data[:32]:
        views, buffers = _decode_legacy(data, where)
    elif data.startswith(b"PK"):
        views, buffers = _decode_zip(data, where)
    else:
        what = f"begins with {data[:8]!r}" if data else "is empty"
        raise InputError(
            f"{where}: not a PyTorch file ({what}); pass the .pth file that its publisher offers"
        )
    return {name: _array(view, buffers[view.storage.key]) for name, view in views.items()}


Decoded = tuple[dict[str, TensorView], dict[str, np.ndarray]]


def _decode_legacy(data: bytes, where: str) -> Decoded:
    stream = io.BytesIO(data)
    magic, version, _system = (unpickle(stream, where)[0] for _ in range(3))
    with reporting_damage(where):
        if magic != _MAGIC or version != _LEGACY_VERSION:
            raise ValueError("its header is not PyTorch's")
    value, storages = unpickle(stream, where)
    keys, _ = unpickle(stream, where)
    views = require_tensors(value, where)
    with reporting_damage(where):
        if type(keys) is not list or not all(type(key) is str for key in keys):
            raise TypeError("the list of storages is none")
        if len(keys) != len(storages) or set(keys) != set(storages):
            raise ValueError("the list of storages does not fit the state dict")
        content = memoryview(data)  # its slices are no copies
        buffers = {}
        position = stream.tell()
        for key in keys:
            (numel,) = struct.unpack_from("<q", data, position)
            size = storages[key].numel * storages[key].dtype.itemsize
            if numel != storages[key].numel:
                raise ValueError(f"storage {shown(key)} has another size than the state dict says")
            position += 8
            buffers[key] = _buffer(storages[key], content[position : position + size])
            position += size
        if position != len(data):
            raise ValueError(f"{len(data) - position} bytes after the last storage")
    return views, buffers


def _decode_zip(data: bytes, where: str) -> Decoded:
    with reporting_damage(where):
        # Python needs half a kilobyte for each entry of a directory that may claim millions.
        if data.count(_ZIP_ENTRY) > MAX_RECORDS:
            raise ValueError(f"more than {MAX_RECORDS:,} records")
        archive = zipfile.ZipFile(io.BytesIO(data))
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise ValueError("two records have the same name")
        folders = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(folders) != 1:
            raise InputError(
                f"{where}: not a PyTorch file (a zip file without one data.pkl); "
                "pass the .pth file that its publisher offers"
            )
        (folder,) = folders
        pickled = io.BytesIO(_record(archive, f"{folder}data.pkl"))
    value, storages = unpickle(pickled, where)
    views = require_tensors(value, where)
    with reporting_damage(where):
        if pickled.read(1):
            raise ValueError("bytes after the state dict")
        if sum(s.numel * s.dtype.itemsize for s in storages.values()) > len(data):
            raise ValueError("its storages are larger than the file")
        order = b"little"
        if f"{folder}byteorder" in names:
            order = _record(archive, f"{folder}byteorder")
        if order not in (b"little", b"big"):
            raise ValueError("unknown byte order")
        buffers = {
            key: _buffer(storage, _record(archive, f"{folder}data/{key}"), order == b"big")
            for key, storage in storages.items()
        }
    return views, buffers


def _record(archive: zipfile.ZipFile, name: str) -> bytes:
    """One record; its checksum is verified by zipfile."""
    info = archive.getinfo(name)
    # Uncompressed, a record cannot be larger than the file: no room for a decompression bomb.
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"record {shown(name)} is compressed")
    return archive.read(info)


def _buffer(storage: Storage, content: bytes | memoryview, big_endian: bool = False) -> np.ndarray:
    if len(content) != storage.numel * storage.dtype.itemsize:
        raise ValueError(f"storage {shown(storage.key)} is cut short or too long")
    if big_endian:
        words = np.frombuffer(content, f">u{storage.dtype.itemsize}")
        return words.astype(f"<u{storage.dtype.itemsize}").view(storage.dtype)
    return np.frombuffer(content, storage.dtype)


def _array(view: TensorView, buffer: np.ndarray) -> np.ndarray:
    """The view as an array; `state_dict` has checked that it stays inside the buffer."""
    if math.prod(view.shape) == 0:
        return np.empty(view.shape, buffer.dtype)
    strides = [
        step * buffer.itemsize if size > 1 else 0
        for size, step in zip(view.shape, view.strides, strict=True)
    ]
    return np.lib.stride_tricks.as_strided(
        buffer[view.offset :], view.shape, strides, writeable=False
    )
