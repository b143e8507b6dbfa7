"""The paths in a folder, as `layout` takes them."""

import os
from collections.abc import Iterator
from pathlib import Path

from adtr_jax.errors import InputError


def walk(folder: Path, depth: int, prefix: str = "") -> Iterator[str]:
    """Yield the paths below `folder`, relative to it; those of folders end with "/".

    Args:
        folder: Nothing is yielded if it is not a folder.
        depth: Number of levels to descend, so that a link to a parent folder cannot loop.
        prefix: Prepended to every path.

    Raises:
        InputError: if a folder cannot be listed.
    """
    if not folder.is_dir():
        return
    try:
        with os.scandir(folder) as entries:
            children = sorted((entry.name, _is_folder(entry)) for entry in entries)
    except OSError as error:
        raise InputError(
            f"cannot list {folder}: {error.strerror}; check the permissions"
        ) from error
    for name, is_folder in children:
        yield f"{prefix}{name}" + "/" * is_folder
        if is_folder and depth > 1 and not name.startswith("."):
            yield from walk(folder / name, depth - 1, f"{prefix}{name}/")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it says so
        return False
