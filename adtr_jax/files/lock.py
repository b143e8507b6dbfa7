"""Folders that one command uses at a time."""

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from adtr_jax.errors import InputError

LOCK, HOLDER = ".lock", ".lock.json"


@contextmanager
def locked(directory: Path, option: str = "--out") -> Iterator[None]:
    """Keeps other commands out of a folder, which is made if need be, and removed if left empty.

    The lock is the operating system's: it ends with the process, however that ends. Where the file
    system has none, as some network drives, nobody is kept out.

    Args:
        option: what chooses another folder, for messages.

    Raises:
        InputError: it is a file, or another command is using the folder; says which.
    """
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file: choose a folder with {option}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except NotADirectoryError:
        raise InputError(f"{directory} is in no folder: choose one with {option}") from None
    with acquired(directory / LOCK) as lock:
        if lock is False:
            raise InputError(
                f"another command{_holder(directory)} is using {directory}: wait for it or stop "
                f"it, or choose another folder with {option}"
            )
        holder = directory / HOLDER
        with contextlib.suppress(OSError):  # on a full disc the message says less
            now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
            holder.write_text(
                json.dumps({"pid": os.getpid(), "host": platform.node(), "since": now})
            )
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                holder.unlink()
                if [path.name for path in directory.iterdir()] == [LOCK]:
                    shutil.rmtree(directory)


def clear(directory: Path) -> None:
    """Deletes all in a folder that is locked but the lock."""
    for path in directory.iterdir():
        if path.name not in (LOCK, HOLDER):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


@contextmanager
def acquired(file: Path) -> Iterator[bool | None]:
    """Locks a file, which is made if need be, until the context is left or the process ends.

    Yields:
        True; or False, where another process holds it; or None, where there are no locks.
    """
    import filelock  # takes 30 ms

    lock: Any = filelock.FileLock(file)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        yield False
        return
    except (OSError, NotImplementedError):
        yield None
        return
    try:
        yield True
    finally:
        lock.release()


def _holder(directory: Path) -> str:
    """Who holds the lock, as far as it says."""
    try:
        held = json.loads((directory / HOLDER).read_text())
        return f" (pid {held['pid']} on {held['host']}, since {held['since']})"
    except (OSError, ValueError, LookupError, TypeError):
        return ", which does not say who it is,"
