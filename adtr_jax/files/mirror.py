"""A run's folder that is written to a bucket while the run goes on."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adtr_jax.errors import InputError
from adtr_jax.files.bucket import Bucket, Stamp, is_hidden, stamp_of
from adtr_jax.files.run_folder import CLAIM

SECONDS = 15.0  # between two looks at what has changed: what a preempted machine loses, at most


@contextmanager
def mirrored(address: str) -> Iterator[Path]:
    """The copy of a folder in a bucket, brought up to date; changes are written back.

    That is done all the time and at the end, however it ends. A file appears in the bucket whole or
    not at all, in the order of writing, so that what is there at any moment is a run to go on with.
    Hidden files stay here: locks, parts of files, cached features.

    Raises:
        InputError: the address cannot be reached; or, at the end, what is here cannot be written.
    """
    bucket = Bucket(address)
    folder = bucket.fetch(empty=True)
    folder.mkdir(parents=True, exist_ok=True)
    mirror = _Mirror(bucket, folder)
    ended = threading.Event()

    def follow() -> None:
        said = ""
        while not ended.wait(SECONDS):
            try:
                mirror.push()
            except InputError as error:
                if str(error) != said:
                    print(f"warning: {error}; it is tried again", file=sys.stderr)
                said = str(error)

    thread = threading.Thread(target=follow, name="mirror", daemon=True)
    thread.start()
    try:
        yield folder
    finally:
        ended.set()
        thread.join()
        try:
            mirror.push()
        except InputError as error:
            raise InputError(
                f"{error}; the results are in {folder}, and the same command tries again to write "
                "them"
            ) from None


class _Mirror:
    """What of a folder has been written to a bucket."""

    def __init__(self, bucket: Bucket, folder: Path):
        self._bucket, self._folder = bucket, folder
        self._written = bucket.written()  # the rest, a killed process may have left

    def push(self) -> None:
        """Writes what has changed since the last time; raises InputError if that is impossible."""
        stamps, written = self._stamps(), self._written
        changed = [name for name, stamp in stamps.items() if written.get(name) != stamp]
        deleted = sorted(written.keys() - stamps.keys())
        if not changed and not deleted:
            return
        changed.sort(key=stamps.__getitem__)  # the oldest first
        # Another run in this folder: nothing of the one before may be taken for its own. Else a
        # model is there before the checkpoints that it replaces are deleted.
        another = any(Path(name).name == CLAIM for name in changed)
        if another:
            self._bucket.delete(deleted)
        self._bucket.send(changed)
        if not another:
            self._bucket.delete(deleted)
        self._bucket.note(stamps)
        self._written = stamps

    def _stamps(self) -> dict[str, Stamp]:
        """All files by their stamps now."""
        stamps = {}
        for path in self._folder.rglob("*"):
            name = path.relative_to(self._folder)
            if not is_hidden(name) and path.is_file():
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    stamps[name.as_posix()] = stamp_of(path)
        return stamps
