"""Atomic file writes."""

import os
from pathlib import Path

from adtr_jax.files import temporary


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a file, which appears whole or not at all; creates its folder if necessary.

    Text is written as UTF-8; what is not valid Unicode in it, as a file name may hold, is escaped.

    Raises:
        OSError: the file cannot be written; an older one is untouched.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    with temporary.folder(path.parent, path.stem) as folder:
        part = folder / path.name
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def write_unsynced(path: Path, content: bytes) -> None:
    """Writes one of thousands of files that can be made again, so that nobody sees a part of it.

    Without waiting for the disc, as `write_atomically` does: after a power cut the file may be
    empty. A killed process leaves one hidden part behind (`remove_parts`). The folder must exist,
    and no two processes may write to it.

    Raises:
        OSError: the file cannot be written; an older one is untouched.
    """
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def remove_parts(folder: Path) -> None:
    """Removes what killed processes have left of `write_unsynced`; no other may write there now."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)
