"""Images and masks of files as arrays that are decoded when they are asked for.

What is held are the files' names, so there may be more images than fit into memory. Each file is
first decoded by `digests`, before anything is trained: that is the check that it is sound. What is
decoded later must be the same, or it is an error.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped
from tqdm.auto import tqdm

from adtr_jax.errors import InputError

PART = 64  # rows that are decoded together


@dataclass(frozen=True, eq=False)
class LazyArray:
    """An array of one row a file, as far as it is needed here.

    A number as index decodes a row; a slice, or an array of numbers or booleans, is of another
    lazy array; `np.asarray` decodes all rows.

    Attributes:
        items: the files, or what holds them; `str` names them.
        read: decodes some of the items.
        row: the shape of a row.
        dtype: of the values.
        noun: what a row is.
        expected: the rows' digests; None: they are not known yet.
    """

    items: Sequence[Any]
    read: Callable[[Sequence[Any]], np.ndarray]
    row: tuple[int, ...]
    dtype: np.dtype
    noun: str
    expected: tuple[str, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.items), *self.row

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        chosen = np.arange(len(self))[index]
        if chosen.ndim == 0:
            return np.asarray(self[[int(chosen)]])[0]
        items = [self.items[i] for i in chosen]
        known = self.expected and tuple(self.expected[i] for i in chosen)
        return dataclasses.replace(self, items=items, expected=known)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Decodes all rows.

        Raises:
            InputError: a file that cannot be read, or is not what it was.
        """
        if copy is False:
            raise ValueError("the rows are decoded anew each time")
        rows = np.empty(self.shape, self.dtype)
        for start in range(0, len(self), PART):
            items = self.items[start : start + PART]
            rows[start : start + PART] = self.read(items)
            for item, row, known in zip(items, rows[start:], self._expected(start), strict=False):
                if known is not None and digest(row) != known:
                    raise InputError(
                        f"{item}: the {self.noun} has changed since it was checked: leave the "
                        "files alone until the command has ended, and start it again"
                    )
        return rows if dtype is None else rows.astype(dtype, copy=False)

    def _expected(self, start: int) -> Sequence[str | None]:
        if self.expected is None:
            return [None] * (len(self) - start)
        return self.expected[start:]


Rows = Shaped[np.ndarray | LazyArray, "n ..."]


def digest(row: Shaped[np.ndarray, "..."]) -> str:
    """Names an image by what a model sees of it: 16 hexadecimal digits."""
    content = np.ascontiguousarray(row).reshape(-1).view(np.uint8)
    return hashlib.sha256(content.data).hexdigest()[:16]


def digests(rows: Rows) -> tuple[str, ...]:
    """Returns the digest of each row; decodes the rows of files of which it is not known.

    Raises:
        InputError: a file that cannot be read.
    """
    if isinstance(rows, LazyArray) and rows.expected is not None:
        return rows.expected
    if not isinstance(rows, LazyArray):
        return tuple(map(digest, rows))
    few = len(rows) <= PART or None  # None: where no one looks at it
    words = {"desc": f"Reading {rows.noun}s", "unit": rows.noun}
    with tqdm(total=len(rows), leave=False, disable=few, **words) as progress:
        found: list[str] = []
        for start in range(0, len(rows), PART):
            found += map(digest, np.asarray(rows[start : start + PART]))
            progress.update(len(found) - progress.n)
    return tuple(found)
