"""Folders in buckets (gs://, s3:// and what else fsspec knows) by a copy on this machine.

Everything else reads and writes local files: `Bucket.fetch` brings the copy up to date, and
`mirrored` writes changes back while they are made. The copies are in the user's cache folder; an
index in each says which version of which object it holds, so that only what has changed travels.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from adtr_jax.errors import InputError, one_line
from adtr_jax.files import temporary
from adtr_jax.files.atomic import write_atomically

# Two letters at least, for C:/ is a folder; Path makes one slash of two.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
_INDEX = ".bucket.json"
_AT_ONCE = 16  # objects that travel at the same time
_TAGS = ("etag", "ETag", "md5Hash", "generation", "mtime", "LastModified", "created")


Version = tuple[int, str]  # an object's size, and what its store says that changes with its content
Stamp = tuple[int, int]  # the time of change of a file of the copy, in ns, and its size


class Entry(NamedTuple):
    """Which version of an object a file of the copy was, at which stamp."""

    version: Version
    stamp: Stamp


class Bucket:
    """A folder or a single object in a store, and its copy.

    Attributes:
        address: as the user writes it.
        copy: the copy's folder, or its file.
    """

    def __init__(self, address: str):
        """Finds the store; reads nothing.

        Raises:
            InputError: no library for it is installed, or its settings are bad.
        """
        from platformdirs import user_cache_path

        self.address = address
        kind, _, path = address.partition("://")
        import fsspec  # takes 50 ms

        try:
            self._store, self._root = fsspec.core.url_to_fs(address)
        except ImportError as error:
            raise InputError(
                f"{address}: {one_line(error)}; pip install 'adtr_jax[buckets]' has what gs:// and "
                "s3:// need"
            ) from None
        except Exception as error:  # each store raises its own
            raise InputError(f"{address} is no address: {one_line(error)[:300]}") from None
        parts = PurePosixPath(path).parts
        if not parts or is_hidden(PurePosixPath(path)):
            raise InputError(f"{address} is no plain name of a folder or file: choose another one")
        self.copy = user_cache_path("adtr_jax").joinpath("buckets", kind, *parts)

    def fetch(self, *, empty: bool = False) -> Path:
        """Brings the copy up to date, and returns it.

        What was changed in the bucket since is replaced, what was deleted there is deleted, and
        what has never been there is left alone, as is what has changed here only.

        Args:
            empty: whether there may be nothing at the address yet.

        Raises:
            InputError: the address cannot be reached, or holds nothing; or no room is left.
        """
        found = self._listed()
        if not found and not empty:
            raise InputError(f"{self.address} holds nothing: give a folder or file that exists")
        single = list(found) == [""]
        folder = self.copy.parent if single else self.copy
        if single:
            found = {self.copy.name: found[""]}
        folder.mkdir(parents=True, exist_ok=True)
        index = self._index(folder, single)
        for name in index.keys() - found.keys():
            (folder / name).unlink(missing_ok=True)
            del index[name]
        wanted = [
            name
            for name, version in found.items()
            if name not in index or index[name].version != version or not (folder / name).is_file()
        ]
        with self._reached(), temporary.folder(folder, "fetch") as part:

            def bring(job: tuple[int, str]) -> None:
                i, name = job
                key = self._root if single else f"{self._root}/{name}"
                self._store.get_file(key, str(part / str(i)))
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (part / str(i)).replace(folder / name)
                index[name] = Entry(found[name], stamp_of(folder / name))

            _all_at_once(bring, list(enumerate(wanted)), f"from {self.address}")
        self._write_index(index, folder, single)
        return self.copy

    def written(self) -> dict[str, Stamp]:
        """The files of the copy that the bucket held when they last met, by their stamps then."""
        return {name: entry.stamp for name, entry in self._index(self.copy, False).items()}

    def send(self, names: list[str]) -> None:
        """Writes files of the copy to the bucket, in this order.

        Each object is replaced as a whole, as stores do.

        Raises:
            InputError: the address cannot be reached or written to.
        """
        with self._reached():
            for name in names:
                if (self.copy / name).exists():  # else it was deleted meanwhile
                    self._store.put_file(str(self.copy / name), f"{self._root}/{name}")

    def delete(self, names: list[str]) -> None:
        """Deletes objects; raises InputError as `send`."""
        with self._reached():
            for name in names:
                if self._store.exists(f"{self._root}/{name}"):
                    self._store.rm_file(f"{self._root}/{name}")

    def note(self, stamps: dict[str, Stamp]) -> None:
        """Notes that the bucket holds the copy as it was at these stamps.

        Raises:
            InputError: as `send`.
        """
        found = self._listed()
        index = {name: Entry(found[name], stamp) for name, stamp in stamps.items() if name in found}
        self._write_index(index, self.copy, single=False)

    def _listed(self) -> dict[str, Version]:
        """The objects by their names below the address; "" is one at the address itself."""
        with self._reached():
            self._store.invalidate_cache()
            found = self._store.find(self._root, detail=True)
        objects = {}
        for key, info in found.items():
            name = key[len(self._root) :].lstrip("/")
            # What marks a folder, is not ours, or would lead out of the copy's folder: "..".
            if key.endswith("/") or is_hidden(PurePosixPath(name)):
                continue
            tag = next((str(info[field]) for field in _TAGS if info.get(field)), "")
            objects[name] = (int(info.get("size") or 0), tag)
        return objects

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Turns what a store raises into one line."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # each store raises its own
            reason = one_line(error)[:300]
            raise InputError(f"{self.address} cannot be reached or used: {reason}") from error

    def _index_name(self, single: bool) -> str:
        return f".{self.copy.name}{_INDEX}" if single else _INDEX

    def _index(self, folder: Path, single: bool) -> dict[str, Entry]:
        """What the copy holds, as far as that is known."""
        try:
            held = json.loads((folder / self._index_name(single)).read_bytes())
            return {
                name: Entry((int(size), str(tag)), (int(changed), int(length)))
                for name, ((size, tag), (changed, length)) in held.items()
            }
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _write_index(self, index: dict[str, Entry], folder: Path, single: bool) -> None:
        write_atomically(folder / self._index_name(single), json.dumps(index))


def address_of(path: Path) -> str | None:
    """Returns the address that a path was meant to be; None: it is a path of this machine."""
    found = _ADDRESS.fullmatch(path.as_posix())
    return f"{found[1]}://{found[2]}" if found else None


def stamp_of(file: Path) -> Stamp:
    """The file's stamp; raises FileNotFoundError."""
    found = file.stat()
    return found.st_mtime_ns, found.st_size


def is_hidden(name: PurePosixPath | Path) -> bool:
    """Whether a name below the address is of what is never in the bucket."""
    return any(part.startswith(".") for part in name.parts)


def _all_at_once(function: Any, jobs: list[Any], label: str) -> None:
    """Calls a function of each job, some at a time."""
    from tqdm.auto import tqdm

    with (
        ThreadPoolExecutor(_AT_ONCE) as pool,
        tqdm(total=len(jobs), desc=label, unit="file", leave=False, disable=None) as progress,
    ):
        for _ in pool.map(function, jobs):
            progress.update()
