"""Folders in buckets (gs://, s3:// and what else fsspec knows) by a copy on this machine.

Everything else reads and writes local files: `Bucket.fetch` brings the copy up to date, and
`mirror` writes changes back while they are made. The copies are in the user's cache folder. An
index in each says which version of an object each file was when they last met, so that only what
has changed travels, and it is known on which side.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
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
        if not parts or _is_strange(path):
            raise InputError(f"{address} is no plain name of a folder or file: choose another one")
        self.copy = user_cache_path("adtr_jax").joinpath("buckets", kind, *parts)

    def fetch(self, *, empty: bool = False) -> Path:
        """Makes the copy what the bucket holds, and returns it.

        Files that have never been in the bucket are left alone.

        Args:
            empty: whether the address may hold nothing.

        Raises:
            InputError: the address cannot be reached, or holds nothing; or no room is left.
        """
        found = self.listed()
        if not found and not empty:
            raise InputError(f"{self.address} holds nothing: give a folder or file that exists")
        single = list(found) == [""]
        folder = self.copy.parent if single else self.copy
        index = Index(folder, f".{self.copy.name}{_INDEX}" if single else _INDEX)
        if single:
            found = {self.copy.name: found[""]}
        for name in index.entries.keys() - found.keys():
            index.delete(name)
        wanted = [
            name
            for name, version in found.items()
            if not index.has(name, version) or not (folder / name).is_file()
        ]
        self.bring({name: found[name] for name in wanted}, index, single=single)
        return self.copy

    def bring(self, wanted: dict[str, Version], index: "Index", *, single: bool = False) -> None:
        """Replaces files of the copy by what the bucket holds; raises InputError as `fetch`.

        Args:
            wanted: their names and versions.
            index: of the copy.
            single: whether the address is that of an object.
        """
        folder = index.folder
        folder.mkdir(parents=True, exist_ok=True)
        with self._reached(), temporary.folder(folder, "fetch") as part:

            def bring(job: tuple[int, str]) -> None:
                i, name = job
                key = self._root if single else f"{self._root}/{name}"
                self._store.get_file(key, str(part / str(i)))
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (part / str(i)).replace(folder / name)
                index.entries[name] = Entry(wanted[name], stamp_of(folder / name))

            try:
                _all_at_once(bring, list(enumerate(wanted)), f"from {self.address}")
            finally:  # what has come need not come again
                index.write()

    def send(self, name: str) -> Version | None:
        """Writes a file of the copy to the bucket, as a whole, as stores do.

        Returns:
            The object's version; None: the file is gone meanwhile.

        Raises:
            InputError: the address cannot be reached or written to.
        """
        key = f"{self._root}/{name}"
        with self._reached():
            try:
                self._store.put_file(str(self.copy / name), key)
            except FileNotFoundError:
                if (self.copy / name).exists():  # it is the bucket that is not there
                    raise
                return None
            self._store.invalidate_cache()
            return _version(self._store.info(key))

    def delete(self, names: Iterable[str]) -> None:
        """Deletes objects, as far as they are there; raises InputError as `send`."""
        with self._reached():
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    self._store.rm_file(f"{self._root}/{name}")

    def listed(self) -> dict[str, Version]:
        """The objects by their names below the address; "" is one at the address itself.

        What marks a folder, is hidden, or would lead out of the copy's folder is left out.

        Raises:
            InputError: the address cannot be reached.
        """
        with self._reached():
            self._store.invalidate_cache()
            found = self._store.find(self._root, detail=True)
        objects = {}
        for key, info in found.items():
            name = "" if key == self._root else key.removeprefix(f"{self._root}/")
            if name != key and not key.endswith("/") and not _is_strange(name):
                objects[name] = _version(info)
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


class Index:
    """What the files of a copy were when they and the bucket last met, as far as that is known.

    Attributes:
        folder: of the copy.
        entries: by the files' names.
    """

    def __init__(self, folder: Path, name: str = _INDEX):
        self.folder, self._file = folder, folder / name
        self.entries: dict[str, Entry] = {}
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            held = json.loads(self._file.read_bytes())
            self.entries = {
                name: Entry((int(size), str(tag)), (int(changed), int(length)))
                for name, ((size, tag), (changed, length)) in held.items()
            }

    def has(self, name: str, version: Version) -> bool:
        """Whether this version of an object has been here."""
        return name in self.entries and self.entries[name].version == version

    def delete(self, name: str) -> None:
        """Deletes a file of the copy, and the folders that it leaves empty."""
        self.entries.pop(name, None)
        file = self.folder / name
        file.unlink(missing_ok=True)
        for parent in file.relative_to(self.folder).parents[:-1]:
            with contextlib.suppress(OSError):
                (self.folder / parent).rmdir()

    def write(self) -> None:
        """Writes the index; raises OSError."""
        write_atomically(self._file, json.dumps(self.entries))

    @property
    def is_there(self) -> bool:
        """Whether it has been written, and nobody has deleted it."""
        return self._file.is_file()


def address_of(path: Path) -> str | None:
    """Returns the address that a path was meant to be; None: it is a path of this machine."""
    found = _ADDRESS.fullmatch(path.as_posix())
    return f"{found[1]}://{found[2]}" if found else None


def stamp_of(file: Path) -> Stamp:
    """The file's stamp; raises FileNotFoundError."""
    found = file.stat()
    return found.st_mtime_ns, found.st_size


def stamps(folder: Path) -> dict[str, Stamp]:
    """All files in a folder by their stamps now, but for hidden ones, which stay here."""
    found = {}
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    path = Path(root, name)
                    found[path.relative_to(folder).as_posix()] = stamp_of(path)
    return found


def _version(info: dict[str, Any]) -> Version:
    tag = next((str(info[field]) for field in _TAGS if info.get(field)), "")
    return int(info.get("size") or 0), tag


def _is_strange(name: str) -> bool:
    """Whether a name is hidden, or would lead out of the folder that it is in: ".."."""
    return "\\" in name or any(part.startswith(".") for part in PurePosixPath(name).parts)


def _all_at_once(function: Callable[[Any], None], jobs: list[Any], label: str) -> None:
    """Calls a function of each job, some at a time."""
    from tqdm.auto import tqdm

    with (
        ThreadPoolExecutor(_AT_ONCE) as pool,
        tqdm(total=len(jobs), desc=label, unit="file", leave=False, disable=None) as progress,
    ):
        for _ in pool.map(function, jobs):
            progress.update()
