"""Reads the pickles of CIFAR-10 and CIFAR-100 without executing them.

Instructions only create references; arrays are built at the end, one at a time. The official files
use protocol 2 and were written by Python 2; files saved again by Python 3 are also read. Objects:
NumPy's `ndarray.__reduce__` and `__reduce_ex__`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np
from jaxtyping import Shaped

from adtr_jax.errors import InputError
from adtr_jax.files.pickle_machine import DAMAGE, INSTRUCTIONS, PickleMachine, kind, pushing, shown

MAX_ELEMENTS = 2**28  # in one array
MAX_KEY = 100  # characters in a dictionary's key

_DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")


@dataclass(frozen=True)
class _Encoded:
    """Bytes, which Python 3 writes as text in protocol 2."""

    text: str


@dataclass
class _Dtype:
    """An array's element type; the byte order is "|" (none), "<" or ">"."""

    code: str
    order: str = "|"


@dataclass
class Array:
    """The unchecked parts of an array."""

    content: Any = b""
    dtype: Any = None
    shape: Any = ()
    order: Any = "C"

    def to_numpy(self) -> Shaped[np.ndarray, "..."]:
        """Return a read-only array of integers; raises ValueError or TypeError on bad parts."""
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
    """Interpret a pickle of one dictionary.

    Args:
        where: The file's name, for error messages.

    Returns:
        The dictionary; keys are text, whether they were text or bytes. Its values are not checked:
        `integers` and `strings` do that.

    Raises:
        InputError: if the pickle is damaged, or requires anything that such a dictionary does not
            need.
    """
    try:
        value = _Machine(where).run(data)
        if type(value) is not dict:
            raise TypeError(f"it holds a {kind(value)}, not a dictionary")
    except DAMAGE as error:
        raise damaged(where, error) from None
    return value


def integers(batch: dict[str, Any], key: str, where: str) -> Shaped[np.ndarray, "..."]:
    """Return entry `key`, an array or a list of integers; raises InputError if it is not."""
    value = _entry(batch, key, where)
    try:
        if type(value) is Array:
            return value.to_numpy()
        if type(value) is not list or not all(type(item) is int for item in value):
            raise TypeError(f"{key} is no list of integers")
        return np.array(value, np.int64)
    except DAMAGE as error:
        raise damaged(where, error) from None


def strings(batch: dict[str, Any], key: str, where: str) -> list[str]:
    """Return entry `key`, a list of text or bytes, as text; raises InputError if it is not."""
    value = _entry(batch, key, where)
    try:
        if type(value) is not list:
            raise TypeError(f"{key} is no list of names")
        return [_text(item) for item in value]
    except DAMAGE as error:
        raise damaged(where, error) from None


def damaged(where: str, error: Exception) -> InputError:
    return InputError(f"{where} is truncated or damaged ({shown(str(error))}): get it again")


def _entry(batch: dict[str, Any], key: str, where: str) -> Any:
    if key not in batch:
        raise InputError(f"{where} has no entry {key}: get the data set again")
    return batch[key]


def _text(value: Any) -> str:
    """Return text, or bytes as text, of at most `MAX_KEY` characters."""
    text = value.text if isinstance(value, _Encoded) else value
    if not isinstance(text, str | bytes) or len(text) > MAX_KEY:
        raise TypeError(f"a name is a {kind(value)}, or too long")
    return text if isinstance(text, str) else text.decode("latin-1")


def _bytes(value: Any) -> bytes | bytearray:
    """Return an array's bytes, which genops decodes to text if Python 2 wrote them."""
    content = value.text if isinstance(value, _Encoded) else value
    if isinstance(content, str):
        return content.encode("latin-1")
    if not isinstance(content, bytes | bytearray):
        raise TypeError(f"an array is made of a {kind(value)}")
    return content


def _reconstruct(_type: Any, _shape: Any, _code: Any) -> Array:
    """Replaces NumPy's `_reconstruct`: an array whose state follows."""
    return Array()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """Replaces NumPy's `_frombuffer`, of protocol 5."""
    return Array(content, dtype, shape, order)


def _dtype(code: Any, _align: Any, _copy: Any) -> _Dtype:
    if code not in _DTYPES:
        raise ValueError("an array of something else than integers")
    return _Dtype(code)


def _encode(text: Any, encoding: Any) -> _Encoded:
    """Replaces `_codecs.encode`, with which Python 3 writes bytes in protocol 2."""
    if type(text) is not str or encoding != "latin1":
        raise TypeError("bytes in an unknown encoding")
    return _Encoded(text)


class _Machine(PickleMachine):
    names: ClassVar[Mapping[str, Any]] = {
        "numpy ndarray": None,
        "numpy dtype": _dtype,
        "_codecs encode": _encode,
        # NumPy 2 moved its modules.
        **{f"numpy.{core}.multiarray _reconstruct": _reconstruct for core in ("core", "_core")},
        **{f"numpy.{core}.numeric _frombuffer": _from_buffer for core in ("core", "_core")},
    }
    instructions = INSTRUCTIONS | pushing(
        *("SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8")
    )
    max_instructions = 2_000_000  # CIFAR-100 takes about 200,000; saved by Python 3, 500,000
    max_bytes = (
        2**28
    )  # CIFAR-100 takes 155 MB; saved by Python 3 with protocol 2, half as much more

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def refuse(self, what: str) -> NoReturn:
        raise InputError(
            f"{self.where} {what}, which images and labels do not need; nothing was run: "
            "get the data set from its publisher"
        )

    def key(self, value: Any) -> str:
        return _text(value)

    def build(self, target: Any, state: Any) -> None:
        if type(target) is Array:
            _version, target.shape, target.dtype, fortran, target.content = state
            if type(fortran) not in (bool, int):
                raise TypeError("an array of unknown order")
            target.order = "F" if fortran else "C"
        elif type(target) is _Dtype and type(state) is tuple and state[1] in ("|", "<", ">"):
            target.order = state[1]
        else:
            raise TypeError(f"a state for a {kind(target)}")
