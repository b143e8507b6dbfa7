"""Ctrl-C and SIGTERM: what they stop, and when. Imports little, for commands begin with it.

In a command, a thread answers them. The usual exception in the main thread would come only when
what that is computing ends, print a page, and be lost where it is in a callback, as JAX's at a
garbage collection. So the process just ends, which loses nothing: it may be killed at any time.
"""

import os
import signal
import socket
import sys
import threading
from types import FrameType, TracebackType

STATUS = 130  # the exit status after Ctrl-C, as shells have it

_line: str | None = None  # what a command says at its end; None: this is no command of ours
_pair: tuple[socket.socket, socket.socket] | None = None  # from the system's handler to the thread
_deferral: "Deferral | None" = None


def take_over(line: str) -> None:
    """Lets Ctrl-C end this process at once from now on, with `line` on stderr and `STATUS`.

    Where it is ignored, as in a script's background, it stays so.
    """
    global _line, _pair
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    _line, _pair = line, socket.socketpair()
    _pair[1].setblocking(False)
    signal.set_wakeup_fd(_pair[1].fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, _handle)
    # What came before it listens waits in the pair.
    threading.Thread(target=_listen, args=_pair[:1], daemon=True).start()


class Deferral:
    """While it is entered, the first Ctrl-C or SIGTERM only asks; the next one ends as ever.

    Outside our commands, "as ever" is a KeyboardInterrupt.
    """

    def __init__(self, notice: str):
        """`notice` is a line to say when it asks, or ""."""
        self._notice, self._asked, self._heard = notice, False, False
        self._previous: dict[int, object] = {}

    @property
    def asked(self) -> bool:
        """Whether the process is to stop. Who reads that has to see to it."""
        self._heard = self._asked
        return self._asked

    def __enter__(self) -> "Deferral":
        global _deferral  # noqa: PLW0603
        _deferral = self
        if threading.current_thread() is threading.main_thread():
            self._previous = {
                number: signal.signal(number, _handle) for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        global _deferral  # noqa: PLW0603
        _deferral = None
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if error is None and self._asked and not self._heard:
            _end()

    def ask(self) -> bool:
        """Asks; returns whether that is new."""
        if self._asked:
            return False
        self._asked = True
        if self._notice:
            _say(self._notice)
        return True


def _listen(signals: socket.socket) -> None:
    while True:
        for _ in signals.recv(1):
            _answer()


def _handle(number: int, frame: FrameType | None) -> None:
    if _line is None:  # else the thread knows already
        _answer()


def _answer() -> None:
    deferral = _deferral
    if deferral is None or not deferral.ask():
        _end()


def _end() -> None:
    if _line is None:
        raise KeyboardInterrupt
    _say(_line)
    os._exit(STATUS)


def _say(line: str) -> None:
    """Not by print: the main thread may be in the middle of another one."""
    start = "\n" if sys.stderr is not None and sys.stderr.isatty() else ""  # below a progress bar
    os.write(2, f"{start}{line}\n".encode(errors="replace"))
