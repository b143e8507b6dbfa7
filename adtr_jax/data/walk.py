"""What a folder holds, as the paths that `layout` works on."""

import os
from collections.abc import Iterator
from pathlib import Path

from adtr_jax.errors import InputError


def walk(folder: Path, depth: int, prefix: str = "") -> Iterator[str]:
    """Yield the paths below `folder`, relative to it; those of folders end with "/".

    Args:
        folder: Where to look; nothing is yielded if it is no folder.
        depth: How many levels to descend: a link to a folder above cannot loop.
        prefix: Is put before every path.

    Raises:
        InputError: if a folder cannot be listed.
    """
    if not folder.is_dir():
        return
    try:
        with os.scandir(folder) as entries:
            children = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError as error:
        raise InputError(
            f"cannot list {folder}: {error.strerror}; check the permissions"
        ) from error
    for name, is_folder in children:
        yield f"{prefix}{name}" + "/" * is_folder
        if is_folder and depth > 1 and not name.startswith("."):
            yield from walk(folder / name, depth - 1, f"{prefix}{name}/")
