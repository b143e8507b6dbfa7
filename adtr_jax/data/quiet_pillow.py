"""Pillow without its noise: what is wrong with a file is said once, with the file's name."""

import ctypes
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from PIL import Image

# Pillow's log and libtiff's handlers write to stderr what is wrong with a file, without its name.
# What is wrong enough for the image not to be decoded is an exception, too.
logging.getLogger("PIL").addHandler(logging.NullHandler())
with suppress(AttributeError, OSError):  # where libtiff is linked into Pillow it cannot be reached
    for _handler in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        getattr(ctypes.CDLL(Image.core.__file__), _handler)(None)


class Quiet:
    """Without Pillow's warnings and its limit on pixels, while any thread is in such a block.

    Both are settings of the whole process, which the first to enter changes and the last restores.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._restore: Callable[[], None] = lambda: None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._change()
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._restore()

    def _change(self) -> None:
        stack = ExitStack()
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"PIL\.")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None

        def restore() -> None:
            Image.MAX_IMAGE_PIXELS = limit
            stack.close()

        self._restore = restore


quiet = Quiet()
