"""The pickle inside a PyTorch file: which tensor lies where. Nothing in it is executed.

The file can make dictionaries, lists, tuples, strings, numbers and the two classes below. Objects:
`torch.save`, `torch._utils._rebuild_tensor_v2`.
"""

import io
import math
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import ml_dtypes
import numpy as np

from adtr_jax.errors import InputError
from adtr_jax.files.pickle_machine import DAMAGE, INSTRUCTIONS, PickleMachine, kind, pushing, shown

MAX_ELEMENTS = 2**40  # in one tensor; keeps NumPy's 64-bit sizes far from overflow
MAX_DIMENSIONS = 64  # NumPy's and PyTorch's own limit

# And what zipfile, struct and the operating system raise on such bytes.
_DAMAGE = (*DAMAGE, struct.error, EOFError, OSError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Storage:
    """A flat array in the file: its name there, element type and number of elements."""

    key: str
    dtype: np.dtype
    numel: int


@dataclass(frozen=True)
class TensorView:
    """A tensor as a strided view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@contextmanager
def reporting_damage(where: str) -> Iterator[None]:
    """Turns what decoders raise on damaged bytes into an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(
            f"{where}: truncated or damaged ({shown(str(error))}); get the file again"
        ) from None


def unpickle(stream: io.BytesIO, where: str) -> tuple[Any, dict[str, Storage]]:
    """Interprets one pickle.

    Args:
        stream: stands at the pickle's first byte; is left behind its last one.
        where: the file's name, for errors.

    Returns:
        The object, made of dict, list, tuple, str, int, float, bool, None and TensorView; and all
        storages that it refers to, by key.

    Raises:
        InputError: the pickle is damaged, or asks for anything that a state dict does not need.
    """
    machine = _Machine(where)
    with reporting_damage(where):
        return machine.run(stream), machine.storages


def require_tensors(value: Any, where: str) -> dict[str, TensorView]:
    """Checks that an unpickled `value` is a state dict: names -> tensors.

    Raises:
        InputError: it is something else.
    """
    advice = "save model.state_dict() alone"
    if type(value) is not dict:
        raise InputError(f"{where}: holds a {kind(value)}, not a state dict; {advice}")
    for key, item in value.items():
        if type(key) is not str or type(item) is not TensorView:
            name = shown(key if type(key) is str else kind(key))
            raise InputError(f"{where}: entry '{name}' is a {kind(item)}, not a tensor; {advice}")
    return value


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_ELEMENTS


def _rebuild_tensor(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    _requires_grad: Any,
    _backward_hooks: Any,
    _metadata: Any = None,
) -> TensorView:
    """Stands for torch._utils._rebuild_tensor_v2; checks that the view stays inside its storage."""
    if type(storage) is not Storage or type(shape) is not tuple or type(strides) is not tuple:
        raise TypeError("a tensor without storage or shape")
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        raise ValueError("a tensor whose shape and strides do not fit")
    if not all(map(_is_count, (offset, *shape, *strides))):
        raise ValueError("a tensor with an impossible shape, stride or offset")
    if math.prod(max(size, 1) for size in shape) > MAX_ELEMENTS:
        raise ValueError("a tensor with an impossible number of elements")
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.numel:
        raise ValueError(f"a tensor that reaches beyond its storage {shown(storage.key)}")
    return TensorView(storage, offset, shape, strides)


def _rebuild_parameter(data: Any, _requires_grad: Any, _backward_hooks: Any) -> TensorView:
    if type(data) is not TensorView:
        raise TypeError("a parameter without a tensor")
    return data


def _ordered_dict() -> dict[Any, Any]:
    return {}  # a dict keeps its order


_DTYPES: dict[str, Any] = {
    "Float": np.float32,
    "Double": np.float64,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
}


class _Machine(PickleMachine):
    """The machine for state dicts; it notes their storages."""

    names: ClassVar[Mapping[str, Any]] = {
        "collections OrderedDict": _ordered_dict,
        "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
        "torch._utils _rebuild_parameter": _rebuild_parameter,
        **{f"torch {name}Storage": np.dtype(dtype) for name, dtype in _DTYPES.items()},
    }
    instructions = (
        INSTRUCTIONS
        | pushing("BINFLOAT")
        | {"BINPERSID": lambda machine, _: machine.refer_to_storage()}
    )
    max_instructions = 200_000  # EfficientNet-B7's state dict, the largest, takes 44,538
    max_bytes = 2**24

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.storages: dict[str, Storage] = {}

    def refuse(self, what: str) -> NoReturn:
        raise InputError(
            f"{self.where}: {what}, which no state dict needs; nothing was run: "
            "get the file from its publisher"
        )

    def key(self, value: Any) -> str | int:
        if type(value) not in (str, int):
            raise TypeError(f"a dictionary key is a {kind(value)}")
        return value

    def build(self, target: Any, state: Any) -> None:
        # torch.save attaches only _metadata, the modules' versions, to a state dict; it is dropped.
        if type(target) is not dict or type(state) is not dict:
            raise TypeError(f"a state for a {kind(target)}")

    def refer_to_storage(self) -> None:
        """BINPERSID: replaces a reference on the stack by the storage."""
        tag, dtype, key, _location, numel, *view = self.stack.pop()
        if tag != "storage" or not isinstance(dtype, np.dtype) or type(key) is not str:
            raise TypeError("a reference to something that is no storage")
        if not _is_count(numel) or view not in ([], [None]):
            raise ValueError(f"storage {shown(key)} has no valid size")
        storage = Storage(key, dtype, numel)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {shown(key)} has two types or sizes")
        self.push(storage)
