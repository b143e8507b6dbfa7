"""The pickles that CIFAR-10 and CIFAR-100 come in, read without running anything in them.

No instruction makes more than a reference: arrays are put together at the end, one at a time. The
official files are of protocol 2 and were written by Python 2; those saved again by Python 3 are
read as well. Objects: NumPy's `ndarray.__reduce__` and `__reduce_ex__`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np
from jaxtyping import Shaped

from adtr_jax.errors import InputError
from adtr_jax.files.pickle_machine import DAMAGE, INSTRUCTIONS, PickleMachine, kind, pushing, shown

MAX_ELEMENTS = 2**30  # in one array
MAX_KEY = 100  # letters in a dictionary's key

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
            raise TypeError(f"it holds a {kind(value)}, not a dictionary")
    except DAMAGE as error:
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
    except DAMAGE as error:
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
    except DAMAGE as error:
        raise damaged(where, error) from None


def damaged(where: str, error: Exception) -> InputError:
    """The error about a file that cannot be read."""
    return InputError(f"{where} is truncated or damaged ({shown(str(error))}): get it again")


def _entry(batch: dict[str, Any], key: str, where: str) -> Any:
    if key not in batch:
        raise InputError(f"{where} has no entry {key}: get the data set again")
    return batch[key]


def _text(value: Any) -> str:
    """Return text, or bytes as text, of at most `MAX_KEY` letters."""
    text = value.text if isinstance(value, _Encoded) else value
    if not isinstance(text, str | bytes) or len(text) > MAX_KEY:
        raise TypeError(f"a name is a {kind(value)}, or too long")
    return text if isinstance(text, str) else text.decode("latin-1")


def _bytes(value: Any) -> bytes | bytearray:
    """Return the bytes that an array is made of; Python 2's are decoded as text by genops."""
    content = value.text if isinstance(value, _Encoded) else value
    if isinstance(content, str):
        return content.encode("latin-1")
    if not isinstance(content, bytes | bytearray):
        raise TypeError(f"an array is made of a {kind(value)}")
    return content


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


class _Machine(PickleMachine):
    """The machine for CIFAR's batches."""

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
