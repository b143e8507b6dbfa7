"""The pickle inside a PyTorch file: which tensor lies where. Nothing in it is executed.

Why not `pickle.Unpickler` with a strict `find_class`: that runs no foreign code, but a hostile file
still kills it. Measured with CPython 3.11: a tuple nested two million deep as a dictionary key
overflows the C stack (segmentation fault), nine bytes make it reserve 4 GB (LONG_BINPUT), and 158
bytes keep it busy for 18 s (a key built of shared tuples, hashed 2^30 times). So the instructions
are only decoded, by `pickletools.genops`, and a machine of our own interprets the few that a state
dict needs. It can make dictionaries, lists, tuples, strings, numbers and the two classes below, and
it looks up names in a fixed table instead of importing them.

Instruction set: CPython's `pickletools`. Objects: `torch.save`, `torch._utils._rebuild_tensor_v2`.
"""

import math
import pickletools
import struct
import types
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from adtr_jax.errors import InputError

MAX_INSTRUCTIONS = 200_000  # EfficientNet-B7's state dict, the largest, takes 44,538
MAX_ELEMENTS = 2**40  # in one tensor; keeps NumPy's 64-bit sizes far from overflow
MAX_DIMENSIONS = 64  # NumPy's and PyTorch's own limit

Opcode = Callable[["_Machine", Any], None]

# What genops, zipfile, struct, NumPy and the machine below raise on bytes that make no sense.
_DAMAGE = (
    *(ValueError, TypeError, LookupError, ArithmeticError, AssertionError, struct.error),
    *(EOFError, OSError, RuntimeError, zipfile.BadZipFile),
)


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


def shown(text: str, length: int = 100) -> str:
    """`text` from an untrusted file, on one line and cut to `length` characters."""
    escaped = ascii(text[:length])[1:-1]
    return escaped if len(escaped) <= length else escaped[: length - 3] + "..."


def unpickle(stream: BinaryIO, where: str) -> tuple[Any, dict[str, Storage]]:
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
        raise InputError(f"{where}: holds a {_kind(value)}, not a state dict; {advice}")
    for key, item in value.items():
        if type(key) is not str or type(item) is not TensorView:
            name = shown(key if type(key) is str else _kind(key))
            raise InputError(f"{where}: entry '{name}' is a {_kind(item)}, not a tensor; {advice}")
    return value


def _kind(value: Any) -> str:
    return type(value).__name__


class _Machine:
    """The pickle machine: a stack, the stacks below the open marks, and the memo."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self, stream: BinaryIO) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if opcode.name == "STOP":
                (value,) = self.stack
                return value
            if opcode.name not in _INSTRUCTIONS:
                self.refuse(f"uses the pickle instruction {opcode.name}")
            if count >= MAX_INSTRUCTIONS:
                self.refuse(f"has more than {MAX_INSTRUCTIONS:,} pickle instructions")
            _INSTRUCTIONS[opcode.name](self, argument)
        raise ValueError("the pickle has no end")

    def refuse(self, what: str) -> None:
        raise InputError(
            f"{self.where}: {what}, which no state dict needs; nothing was run: "
            "get the file from its publisher"
        )

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop_to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def tuple_of(self, count: int) -> None:
        items = [self.stack.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def set_items(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(pairs) % 2:
            raise TypeError("items without a dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Hashing strings and integers is safe; hashing what a file nests is not.
            if type(key) not in (str, int):
                raise TypeError(f"a dictionary key is a {_kind(key)}")
            if key in target:
                raise ValueError(f"two entries are called {shown(str(key))}")
            target[key] = value

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError("items without a list")
        self.stack[-1].extend(items)

    def look_up(self, name: str) -> None:
        if name not in _NAMES:
            self.refuse(f"asks for '{shown(name.replace(' ', '.', 1))}'")
        self.push(_NAMES[name])

    def look_up_stacked(self, _: Any) -> None:
        module, name = self.stack[-2:]
        del self.stack[-2:]
        if type(module) is not str or type(name) is not str:
            raise TypeError("a name that is no text")
        self.look_up(f"{module} {name}")

    def call(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        # Every function that can be on the stack is one of ours, from _NAMES.
        if not isinstance(function, types.FunctionType) or type(arguments) is not tuple:
            raise TypeError(f"a call of a {_kind(function)}")
        self.push(function(*arguments))

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        # torch.save attaches only _metadata, the modules' versions, to a state dict; it is dropped.
        if type(self.stack[-1]) is not dict or type(state) is not dict:
            raise TypeError(f"a state for a {_kind(self.stack[-1])}")

    def persistent(self, _: Any) -> None:
        kind, dtype, key, _location, numel, *view = self.stack.pop()
        if kind != "storage" or not isinstance(dtype, np.dtype) or type(key) is not str:
            raise TypeError("a reference to something that is no storage")
        if not _is_count(numel) or view not in ([], [None]):
            raise ValueError(f"storage {shown(key)} has no valid size")
        storage = Storage(key, dtype, numel)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {shown(key)} has two types or sizes")
        self.push(storage)


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

# Everything a file may name; "module name" as pickletools writes it.
_NAMES: dict[str, Any] = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_parameter": _rebuild_parameter,
    **{f"torch {name}Storage": np.dtype(dtype) for name, dtype in _DTYPES.items()},
}

_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
_STRINGS = ("BINUNICODE", "SHORT_BINUNICODE")

_INSTRUCTIONS: dict[str, Opcode] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    **{name: lambda machine, value: machine.push(value) for name in (*_NUMBERS, *_STRINGS)},
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "MARK": _Machine.mark,
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "APPEND": lambda machine, _: machine.extend([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_to_mark()),
    "BINPUT": lambda machine, index: machine.memo.update({index: machine.stack[-1]}),
    "LONG_BINPUT": lambda machine, index: machine.memo.update({index: machine.stack[-1]}),
    "MEMOIZE": lambda machine, _: machine.memo.update({len(machine.memo): machine.stack[-1]}),
    "BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "GLOBAL": _Machine.look_up,
    "STACK_GLOBAL": _Machine.look_up_stacked,
    "BINPERSID": _Machine.persistent,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}
