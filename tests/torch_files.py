"""PyTorch files for the tests: saved by PyTorch, put together by hand, and damaged."""

import io
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from typing import Any

import pytest
import torch

from adtr_jax.errors import InputError
from conversion import torch_file

FORMATS = pytest.mark.parametrize("is_zip", [False, True], ids=["legacy", "zip"])


def saved(value: Any, *, is_zip: bool, protocol: int = 2) -> bytes:
    """The bytes that torch.save writes."""
    stream = io.BytesIO()
    torch.save(value, stream, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    return stream.getvalue()


class Store:
    """Pickled as a reference to storage `key` of `numel` floats."""

    def __init__(self, key: Any = "0", numel: Any = 6, kind: Any = torch.FloatStorage, view=()):
        self.id = ("storage", kind, key, "cpu", numel, *view)


class Call:
    """Pickled as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


def tensor(shape: Any = (2, 3), strides: Any = (3, 1), offset: Any = 0, **store: Any) -> Call:
    rebuild = torch._utils._rebuild_tensor_v2
    return Call(rebuild, Store(**store), offset, shape, strides, False, OrderedDict())


def pickled(value: Any) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return value.id if isinstance(value, Store) else None

    stream = io.BytesIO()
    Pickler(stream, 2).dump(value)
    return stream.getvalue()


def in_zip(data_pkl: bytes, records: dict[str, bytes] | None = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        archive.writestr("archive/data.pkl", data_pkl)
        archive.writestr("archive/version", b"3\n")
        for name, content in (records or {"data/0": bytes(24)}).items():
            archive.writestr(f"archive/{name}", content)
    return stream.getvalue()


def in_legacy(state: bytes, keys: Any = ("0",), storages: bytes | None = None) -> bytes:
    header = pickled(0x1950A86A20F9469CFC6C) + pickled(1001) + pickled({"little_endian": True})
    content = struct.pack("<q", 6) + bytes(24) if storages is None else storages
    return header + state + pickled(list(keys)) + content


def error(data: bytes) -> str:
    """The error for a file, which must be one line that begins with the file's name."""
    with pytest.raises(InputError) as caught:
        torch_file.decode(data, "bad.pth")
    message = str(caught.value)
    assert message.startswith("bad.pth: ")
    assert "\n" not in message and len(message) < 300
    return message


def mutated(data: bytes, chance: random.Random) -> bytes:
    """`data` with up to four bytes changed, or a piece cut out, doubled or moved."""
    changed = bytearray(data)
    begin, end = sorted(chance.randrange(len(data)) for _ in range(2))
    match chance.randrange(6):
        case 0:
            del changed[begin : min(end, begin + 16)]
        case 1:
            changed[begin:begin] = changed[begin : min(end, begin + 64)]
        case 2:
            width = min(8, len(data) - begin)
            changed[begin : begin + width] = chance.choice((b"\xff", b"\x7f", b"\0")) * width
        case _:
            for _ in range(chance.randrange(1, 5)):
                changed[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(changed)
