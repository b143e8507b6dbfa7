"""Temporary folders beside the files that are made in them, and what killed processes leave."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adtr_jax.files.lock import acquired

SUFFIX = ".adtr_jax.part"  # nobody else's, for they are removed
_LOCK = "lock"  # held by the process that the folder is of


@contextmanager
def folder(parent: Path | None, name: str) -> Iterator[Path]:
    """A temporary folder, which is removed at the end.

    A file that is made in it gets the permissions of the user's umask, and its place by a rename.
    First, what processes that are no longer alive have left in `parent` is removed.

    Args:
        parent: where it is made, as it is itself if need be; None: among the system's temporary
            files.
        name: begins its own name.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    while True:
        made = Path(tempfile.mkdtemp(SUFFIX, f".{name}-", parent))
        with acquired(made / _LOCK) as lock:
            # Another process that sweeps may have seen it before it was locked.
            if lock is False or not made.exists():
                continue
            try:
                yield made
            finally:
                shutil.rmtree(made, ignore_errors=True)
            return


def sweep(parent: Path) -> None:
    """Removes the temporary folders in `parent` whose processes are no longer alive."""
    for path in parent.glob(f".*{SUFFIX}"):
        if path.is_dir() and not path.is_symlink():
            with acquired(path / _LOCK) as lock:
                if lock:
                    shutil.rmtree(path, ignore_errors=True)
