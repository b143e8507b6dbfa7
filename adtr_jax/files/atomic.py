"""Atomic file writes."""

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a file, which appears whole or not at all; creates its folder if necessary.

    Raises:
        OSError: the file cannot be written; an older one is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    # In a temporary folder, so that the file gets the permissions of the user's umask.
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder:
        part = Path(folder) / path.name
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def write_unsynced(path: Path, content: bytes) -> None:
    """Writes one of thousands of files that can be made again, so that nobody sees a part of it.

    Without waiting for the disc, as `write_atomically` does: after a power cut the file may be
    empty. A killed process leaves one hidden part behind, which the next attempt replaces. The
    folder must exist, and no two processes may write the same file.

    Raises:
        OSError: the file cannot be written; an older one is untouched.
    """
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
