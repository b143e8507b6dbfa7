"""A run's folder that is written to a bucket while the run goes on."""

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from adtr_jax.errors import InputError
from adtr_jax.files.bucket import Bucket, Entry, Index, stamps
from adtr_jax.files.lock import locked
from adtr_jax.files.run_folder import CLAIM

SECONDS = 15.0  # between two looks at what has changed: what a preempted machine loses, at most


@contextmanager
def mirrored(address: str) -> Iterator[Path]:
    """The copy of a folder in a bucket, brought up to date; changes are written back.

    That is done all the time, and when the context is left. A file appears in the bucket whole or
    not at all, in the order of writing, so that what is there at any moment is a run to go on with.
    Hidden files stay here: locks, parts of files, cached features.

    Raises:
        InputError: the address cannot be reached, or another command uses the copy; or, at the end,
            what is here cannot be written there.
    """
    bucket = Bucket(address)
    with locked(bucket.copy):
        mirror = Mirror(bucket)
        mirror.pull()
        ended = threading.Event()
        thread = threading.Thread(target=_follow, args=(mirror, ended), name="mirror", daemon=True)
        thread.start()
        try:
            yield bucket.copy
        except BaseException:
            _end(thread, ended)
            try:
                mirror.push()
            except (InputError, OSError) as error:
                print(f"warning: {error}; {_here(bucket)}", file=sys.stderr)
            raise
        _end(thread, ended)
        try:
            mirror.push()
        except (InputError, OSError) as error:
            raise InputError(f"{error}; {_here(bucket)}") from None


def _here(bucket: Bucket) -> str:
    return f"what it lacks is in {bucket.copy}, and the same command tries again to write it"


def _end(thread: threading.Thread, ended: threading.Event) -> None:
    ended.set()
    thread.join()


def _follow(mirror: "Mirror", ended: threading.Event) -> None:
    """Writes what changes, until it is told that all has ended."""
    said = ""
    while not ended.wait(SECONDS):
        try:
            mirror.push()
        except (InputError, OSError) as error:
            if str(error) != said:
                print(f"warning: {error}; it is tried again", file=sys.stderr)
            said = str(error)


class Mirror:
    """The files of a copy, and the bucket's: what changes on one side is changed on the other.

    Where both have changed, the bucket's is taken: another machine has gone on.
    """

    def __init__(self, bucket: Bucket):
        self._bucket, self._index = bucket, Index(bucket.copy)

    def pull(self) -> None:
        """Takes what has changed in the bucket; raises InputError as `Bucket.fetch`."""
        found, index = self._bucket.listed(), self._index
        changed = {name: v for name, v in found.items() if not index.has(name, v)}
        for name in index.entries.keys() - found.keys():
            index.delete(name)
        held = {name: index.folder / name for name in changed if Path(name).name == CLAIM}
        before = {name: file.read_bytes() for name, file in held.items() if file.is_file()}
        self._bucket.bring(changed, index)
        # Where another machine has begun another run, what is here of the old is no part of it.
        renewed = [name for name, claim in before.items() if held[name].read_bytes() != claim]
        for name in stamps(index.folder):
            if name not in found and _is_in(name, _folders(renewed)):
                index.delete(name)

    def push(self) -> None:
        """Writes what has changed here; raises InputError or OSError if that is impossible."""
        index = self._index
        if not index.is_there:
            raise InputError(
                f"{index.folder} has been deleted or emptied while the command runs: nothing is "
                f"written to {self._bucket.address} any more"
            )
        now = stamps(index.folder)
        held = {name: entry.stamp for name, entry in index.entries.items()}
        changed = [name for name, stamp in now.items() if held.get(name) != stamp]
        gone = sorted(index.entries.keys() - now.keys())
        if not changed and not gone:
            return
        changed.sort(key=now.__getitem__)  # the oldest first
        # Nothing of the run that was there before may be taken for the new one's. Elsewhere a model
        # is there before the checkpoints that it replaces are deleted.
        renewed = _folders(name for name in changed if Path(name).name == CLAIM)
        stale = [n for n in (*gone, *changed) if n in index.entries and _is_in(n, renewed)]
        try:
            self._delete(stale)
            for name in changed:
                version = self._bucket.send(name)
                if version is not None:
                    index.entries[name] = Entry(version, now[name])
                    index.write()
            self._delete([name for name in gone if name in index.entries])
        finally:
            index.write()

    def _delete(self, names: list[str]) -> None:
        self._bucket.delete(names)
        for name in names:
            self._index.entries.pop(name, None)


def _folders(names: Iterable[str]) -> set[PurePosixPath]:
    return {PurePosixPath(name).parent for name in names}


def _is_in(name: str, folders: set[PurePosixPath]) -> bool:
    return not folders.isdisjoint(PurePosixPath(name).parents)
