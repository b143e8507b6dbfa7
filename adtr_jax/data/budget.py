"""Memory that threads share, so that together they stay within a limit."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """Bytes that threads share. One that asks for more than all of them waits until it is alone."""

    def __init__(self, total: int):
        self.total, self.held = total, 0
        self._changed = threading.Condition()

    @contextmanager
    def of(self, size: int) -> Iterator[None]:
        """Holds so many bytes, as soon as they are free."""
        with self._changed:
            self._changed.wait_for(lambda: not self.held or self.held + size <= self.total)
            self.held += size
        try:
            yield
        finally:
            with self._changed:
                self.held -= size
                self._changed.notify_all()
