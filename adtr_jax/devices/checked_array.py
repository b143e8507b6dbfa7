"""An array in a file whose content is compared with its digests where it is read.

A file of many gigabytes is never read merely to be checked: each block of rows is, once, before the
first of its rows is used.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt8

from adtr_jax.errors import InputError

BLOCK = 2**20  # bytes of a block, where a row is not larger


@dataclass(eq=False)
class CheckedArray:
    """The part of NumPy's interface that training needs: what it gives has been checked.

    Attributes:
        array: in the file, read-only.
        digests: of the blocks, by `block_digests`.
        file: where the array is.
    """

    array: Shaped[np.memmap, "n ..."]
    digests: UInt8[np.ndarray, "blocks 32"]
    file: Path
    _sound: Bool[np.ndarray, "blocks"] = field(init=False)

    def __post_init__(self) -> None:
        self._sound = np.zeros(len(self.digests), bool)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Returns rows, by a number, a slice or an array; no copy where NumPy makes none."""
        self._check(np.atleast_1d(self._numbers[index]))
        return self.array[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def take(
        self, indices: Int[np.ndarray, "k"], axis: int, out: np.ndarray, mode: Literal["clip"]
    ) -> np.ndarray:
        """As NumPy's; `numpy.take` calls it."""
        self._check(self._numbers[indices])
        return self.array.take(indices, axis, out, mode)

    @cached_property
    def _numbers(self) -> Int[np.ndarray, "n"]:
        return np.arange(len(self.array))

    def _check(self, rows: Int[np.ndarray, "k"]) -> None:
        """Compares the rows' blocks with their digests.

        Raises:
            InputError: one differs; the file is removed.
        """
        blocks = np.unique(rows // rows_per_block(self.array))
        for block in blocks[~self._sound[blocks]].tolist():
            found = _digest(self.array, block)
            if not np.array_equal(found, self.digests[block]):
                self.file.unlink(missing_ok=True)
                raise InputError(
                    f"{self.file} was damaged on the disc, and has been removed: the same command "
                    "computes these features again, and goes on"
                )
            self._sound[block] = True


def rows_per_block(array: Shaped[np.ndarray, "n ..."]) -> int:
    row = int(np.prod(array.shape[1:])) * array.dtype.itemsize
    return max(1, BLOCK // max(row, 1))


def block_digests(array: Shaped[np.ndarray, "n ..."]) -> UInt8[np.ndarray, "blocks 32"]:
    """Returns the SHA-256 of each block of rows."""
    return np.array([*_digests(array)], np.uint8).reshape(-1, 32)


def _digests(array: Shaped[np.ndarray, "n ..."]) -> Iterator[UInt8[np.ndarray, "32"]]:
    for block in range(-(-len(array) // rows_per_block(array))):
        yield _digest(array, block)


def _digest(array: Shaped[np.ndarray, "n ..."], block: int) -> UInt8[np.ndarray, "32"]:
    size = rows_per_block(array)
    content = array[block * size : (block + 1) * size].reshape(-1).view(np.uint8).data
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
