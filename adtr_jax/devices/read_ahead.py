"""Reads the next item in a thread, while the caller is busy with the one before."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")


def read_ahead(read: Callable[[Item], Read], items: Sequence[Item]) -> Iterator[tuple[Item, Read]]:
    """Yields each item with what `read` returns of it; at most one is read ahead."""
    if len(items) <= 1:  # nothing to be ahead of: no thread is begun
        yield from ((item, read(item)) for item in items)
        return
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(read, items[0])
        for item, following in zip(items, [*items[1:], None], strict=True):
            value = waiting.result()
            if following is not None:
                waiting = reader.submit(read, following)
            yield item, value
