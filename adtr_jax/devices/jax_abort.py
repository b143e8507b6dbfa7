"""One line in place of the abort with which JAX's distributed client ends a process.

When another process dies, or does not come, the client writes a page of addresses to stderr and
calls abort(); no Python exception is raised. It is C++, and the one callback that it offers cannot
be a Python function (jaxlib 0.10 fails to convert the callback's argument, and aborts all the
same). So what C++ writes goes through a pipe, and abort() has to wait until it has been read.
"""

import ctypes
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable

_CHUNK = 2**16
_PRELUDE = re.compile(rb"coordination_service|JAX distributed service")
_FATAL = re.compile(
    rb"JAX distributed service detected fatal errors.*?absl::Status: (.*?)(\*\*\*|\Z)", re.DOTALL
)


def intercept(end: Callable[[str], None]) -> None:
    """Calls `end` when JAX's distributed client is about to abort, in place of what it writes.

    Python's own stderr stays what it is, a terminal included; all else that is written to file
    descriptor 2 arrives there too, a moment later.

    Args:
        end: ends the process; gets the reason that the client gives. It runs in a thread.
    """
    stderr = os.dup(2)
    if sys.stderr.fileno() == 2:
        sys.stderr.flush()
        encoding, errors = sys.stderr.encoding, sys.stderr.errors
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=encoding, errors=errors)
    pipe, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    threading.Thread(target=_forward, args=(pipe, stderr, end), daemon=True).start()
    _delay_aborts()


def _delay_aborts() -> None:
    """Makes abort() wait for six seconds.

    libc's sleep() is the signal's handler, which is called with the signal's number, 6. It needs
    neither memory nor Python's lock, so every other abort ends as it always does, only later.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))


def _forward(pipe: int, stderr: int, end: Callable[[str], None]) -> None:
    """Copies what comes through the pipe, except for the client's last words."""
    while text := os.read(pipe, _CHUNK):
        if _PRELUDE.search(text):
            while select.select([pipe], [], [], 1)[0]:  # they come in several pieces
                text += os.read(pipe, _CHUNK)
            if last := _FATAL.search(text):
                end(last[1].decode(errors="replace"))
        os.write(stderr, text)
