"""The pickles that CIFAR-10 and CIFAR-100 come in, read without running anything in them.

`pickle.load` runs whatever a file asks for, and even `pickle.Unpickler` with a strict `find_class`
can be crashed or made to fill the memory. So the instructions are only decoded, by
`pickletools.genops`, and a machine of our own interprets the few that a dictionary of lists,
strings and arrays needs. Names are looked up in a fixed table, nothing is imported, and no
instruction makes more than a reference: arrays are put together at the end, one at a time.

Instruction set: CPython's `pickletools`, protocols 2 to 5. The official files are of protocol 2 and
were written by Python 2; those saved again by Python 3 are read as well. Objects: NumPy's
`ndarray.__reduce__` and `__reduce_ex__`.
"""

import math
import pickletools
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped

from adtr_jax.errors import InputError

MAX_INSTRUCTIONS = 2_000_000  # CIFAR-100 takes about 200,000, saved again by Python 3 500,000
MAX_ELEMENTS = 2**30  # in one array
MAX_KEY = 100  # letters in a dictionary's key

_DAMAGE = (ValueError, TypeError, LookupError, ArithmeticError, AssertionError, RuntimeError)
_DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")


@dataclass(frozen=True)
class _Encoded:
    """Stands for bytes that Python 3 writes as text in protocol 2."""

    text: str


@dataclass
class _Dtype:
    """An array's element type; the byte order is "|" for none, "<" or ">"."""

    code: str
    order: str = "|"


@dataclass
class Array:
    """An array whose parts have been read and not yet been checked."""

    content: Any = b""
    dtype: Any = None
    shape: Any = ()
    order: Any = "C"

    def to_numpy(self) -> Shaped[np.ndarray, "..."]:
        """Return the array, which holds integers and cannot be written to.

        Raises:
            ValueError, TypeError: if the parts do not fit together.
        """
        if type(self.dtype) is not _Dtype or type(self.shape) is not tuple:
            raise TypeError("an array without type or shape")
        if not all(type(size) is int and 0 <= size <= MAX_ELEMENTS for size in self.shape):
            raise ValueError("an array of impossible shape")
        count = math.prod(max(size, 1) for size in self.shape)
        if count > MAX_ELEMENTS or len(self.shape) > 4 or self.order not in ("C", "F"):
            raise ValueError("an array of impossible shape")
        dtype = np.dtype(self.dtype.order + self.dtype.code)
        content = _bytes(self.content)
        if len(content) != math.prod(self.shape) * dtype.itemsize:
            raise ValueError("an array of another size than it claims")
        array = np.frombuffer(content, dtype).reshape(self.shape, order=self.order)
        array.flags.writeable = False
        return array


def unpickle(data: bytes, where: str) -> dict[str, Any]:
    """Interpret a pickle that holds one dictionary.

    Args:
        data: The pickle.
        where: The file's name, for errors.

    Returns:
        The dictionary, whose keys are text whether they were text or bytes. Its values are not
        checked: `integers` and `strings` do that.

    Raises:
        InputError: if the pickle is damaged, or asks for anything that such a dictionary does not
            need.
    """
    try:
        value = _Machine(where).run(data)
        if type(value) is not dict:
            raise TypeError(f"it holds a {_kind(value)}, not a dictionary")
    except _DAMAGE as error:
        raise damaged(where, error) from None
    return value


def integers(batch: dict[str, Any], key: str, where: str) -> Shaped[np.ndarray, "..."]:
    """Return an entry that is an array, or a list of integers, as an array.

    Raises:
        InputError: if it is missing or something else.
    """
    value = _entry(batch, key, where)
    try:
        if type(value) is Array:
            return value.to_numpy()
        if type(value) is not list or not all(type(item) is int for item in value):
            raise TypeError(f"{key} is no list of integers")
        return np.array(value, np.int64)
    except _DAMAGE as error:
        raise damaged(where, error) from None


def strings(batch: dict[str, Any], key: str, where: str) -> list[str]:
    """Return an entry that is a list of text or bytes, as text.

    Raises:
        InputError: if it is missing or something else.
    """
    value = _entry(batch, key, where)
    try:
        if type(value) is not list:
            raise TypeError(f"{key} is no list of names")
        return [_text(item) for item in value]
    except _DAMAGE as error:
        raise damaged(where, error) from None


def damaged(where: str, error: Exception) -> InputError:
    """The error about a file that cannot be read."""
    reason = ascii(str(error)[:MAX_KEY])[1:-1]
    return InputError(f"{where} is truncated or damaged ({reason}): get the data set again")


def _entry(batch: dict[str, Any], key: str, where: str) -> Any:
    if key not in batch:
        raise InputError(f"{where} has no entry {key}: get the data set again")
    return batch[key]


def _kind(value: Any) -> str:
    return type(value).__name__


def _text(value: Any) -> str:
    """Return text, or bytes as text, of at most `MAX_KEY` letters."""
    text = value.text if isinstance(value, _Encoded) else value
    if not isinstance(text, str | bytes) or len(text) > MAX_KEY:
        raise TypeError(f"a name is a {_kind(value)}, or too long")
    return text if isinstance(text, str) else text.decode("latin-1")


def _bytes(value: Any) -> bytes | bytearray:
    """Return the bytes that an array is made of; Python 2's are decoded as text by genops."""
    content = value.text if isinstance(value, _Encoded) else value
    if isinstance(content, str):
        return content.encode("latin-1")
    if not isinstance(content, bytes | bytearray):
        raise TypeError(f"an array is made of a {_kind(value)}")
    return content


class _Machine:
    """The pickle machine: a stack, the stacks below the open marks, and the memo."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
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
            f"{self.where} {what}, which images and labels do not need; nothing was run: "
            "get the data set from its publisher"
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
            name = _text(key)  # hashing anything that a file nests could take for ever
            if name in target:
                raise ValueError(f"two entries are called {name}")
            target[name] = value

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError("items without a list")
        self.stack[-1].extend(items)

    def look_up(self, name: str) -> None:
        if name not in _NAMES:
            self.refuse(f"asks for '{ascii(name[:MAX_KEY].replace(' ', '.', 1))[1:-1]}'")
        self.push(_NAMES[name])

    def look_up_stacked(self, _: Any) -> None:
        name, module = _text(self.stack.pop()), _text(self.stack.pop())
        self.look_up(f"{module} {name}")

    def call(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        # Every function that can be on the stack is one of ours, from _NAMES.
        if not isinstance(function, types.FunctionType) or type(arguments) is not tuple:
            raise TypeError(f"a call of a {_kind(function)}")
        self.push(function(*arguments))

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is Array:
            _version, target.shape, target.dtype, fortran, target.content = state
            if type(fortran) not in (bool, int):
                raise TypeError("an array of unknown order")
            target.order = "F" if fortran else "C"
        elif type(target) is _Dtype and type(state) is tuple and state[1] in ("|", "<", ">"):
            target.order = state[1]
        else:
            raise TypeError(f"a state for a {_kind(target)}")


def _reconstruct(_type: Any, _shape: Any, _code: Any) -> Array:
    """Stands for NumPy's _reconstruct: an array whose state follows."""
    return Array()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """Stands for NumPy's _frombuffer, of protocol 5."""
    return Array(content, dtype, shape, order)


def _dtype(code: Any, _align: Any, _copy: Any) -> _Dtype:
    if code not in _DTYPES:
        raise ValueError("an array of something else than integers")
    return _Dtype(code)


def _encode(text: Any, encoding: Any) -> _Encoded:
    """Stands for _codecs.encode, by which Python 3 writes bytes in protocol 2."""
    if type(text) is not str or encoding != "latin1":
        raise TypeError("bytes in an unknown encoding")
    return _Encoded(text)


# Everything a file may name; "module name" as pickletools writes it. NumPy 2 moved its modules.
_NAMES: dict[str, Any] = {
    "numpy ndarray": None,
    "numpy dtype": _dtype,
    "_codecs encode": _encode,
    **{f"numpy.{core}.multiarray _reconstruct": _reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.numeric _frombuffer": _from_buffer for core in ("core", "_core")},
}

_PLAIN = (
    *("BININT", "BININT1", "BININT2", "LONG1"),
    *("SHORT_BINSTRING", "BINSTRING", "BINUNICODE", "SHORT_BINUNICODE"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)

_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    **{name: lambda machine, value: machine.push(value) for name in _PLAIN},
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
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}
