"""Images that arrive in a folder, one by one, each as soon as it is complete.

By plain polling, which works on network drives too, where the system reports no changes.
"""

import stat
import time
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import NamedTuple

from adtr_jax.data.image_file import open_image
from adtr_jax.data.inputs import images_below
from adtr_jax.errors import InputError

# After so many polls without a change nobody is writing to a file any more, readable or not.
_PATIENCE = 10


class _State(NamedTuple):
    """What a file was like at the last poll, and at how many polls before it was the same."""

    size: int
    modified: int
    unchanged: int


def watch(
    folder: Path,
    done: Container[str],
    poll: float = 1.0,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Path]:
    """Wait for images in a folder and in those below it, until it is stopped.

    A file is given once it has not changed between two polls and can be decoded to its end, or
    else once it has not changed for ten polls: whoever decodes it then will see what is wrong.
    Each path is given once, even if another file comes under the same name later. A file that
    vanishes is forgotten, and a folder that vanishes is waited for, as a network drive's may.

    Args:
        folder: Where to look, as `images_below` does; images that are there already count.
        done: Paths as text that are never given; it may grow meanwhile.
        poll: Seconds between two polls.
        stopped: Asked before every poll and every image; the iterator ends where it is True.

    Raises:
        InputError: at once, if there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder where images arrive")
    return _watch(folder, done, poll, stopped)


def _watch(
    folder: Path, done: Container[str], poll: float, stopped: Callable[[], bool]
) -> Iterator[Path]:
    given: set[str] = set()
    waiting: dict[Path, _State] = {}
    while not stopped():
        new = (p for p in images_below(folder) if str(p) not in given and str(p) not in done)
        before, waiting = waiting, {}
        for path in new:
            state = _look(path, before.get(path))
            if state is None:
                continue
            if state.unchanged >= _PATIENCE or (state.unchanged and _is_image(path)):
                given.add(str(path))
                yield path
                if stopped():
                    return
            else:
                waiting[path] = state
        time.sleep(poll)


def _look(path: Path, before: _State | None) -> _State | None:
    """What the file is like now; None if it has vanished, or is a pipe, which would block."""
    try:
        found = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    if before and (before.size, before.modified) == (found.st_size, found.st_mtime_ns):
        return before._replace(unchanged=before.unchanged + 1)
    return _State(found.st_size, found.st_mtime_ns, 0)


def _is_image(path: Path) -> bool:
    try:
        with open_image(path).decoded():
            return True
    except InputError:
        return False
