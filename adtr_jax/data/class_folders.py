"""Images in folders named after their classes, on disk or in a zip file.

    {train,test}/CLASS/*

The two may have one enclosing folder. A zip file is never unpacked: its members are read one by
one, on demand.
"""

import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from adtr_jax.data.image_set import SPLITS, ImageSet, Split
from adtr_jax.data.layout import Listing
from adtr_jax.data.samples import File
from adtr_jax.data.walk import walk
from adtr_jax.errors import InputError, one_line

MAX_IMAGE_BYTES = 2**28

# What zipfile raises on malformed data, encryption and unknown compression.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, LookupError),
    *(RuntimeError, OSError),
)


class Archive:
    """A zip file that several threads may read."""

    def __init__(self, path: Path) -> None:
        """Read the directory; raises InputError if the file is unreadable or damaged."""
        self._path = path
        self._lock = threading.Lock()
        try:
            self._zip = zipfile.ZipFile(path)
        except _DAMAGE as error:
            raise self._damaged(str(path), error) from error

    def names(self) -> list[str]:
        """Return all names; raises InputError if two are equal or one is not printable."""
        names = self._zip.namelist()
        if len(set(names)) < len(names):
            raise InputError(f"{self._path} holds two members of the same name: pack it again")
        for name in names:
            if not name.isprintable():
                raise InputError(f"{self._path} holds a member called {name!a}: rename it")
        return names

    def member(self, name: str) -> "Member":
        """Return a member; raises InputError if it claims more than `MAX_IMAGE_BYTES`."""
        size = self._zip.getinfo(name).file_size
        if size > MAX_IMAGE_BYTES:
            raise InputError(
                f"{self._path}/{name} claims to have {size:,} bytes, more than the "
                f"{MAX_IMAGE_BYTES:,} that an image may have: remove it"
            )
        return Member(self, name)

    def read(self, name: str) -> bytes:
        """Return a member's bytes; zipfile verifies the checksum.

        Raises:
            InputError: if the member is damaged or encrypted, or the zip file can no longer be
                read.
        """
        try:
            with self._lock:
                return self._zip.read(name)
        except _DAMAGE as error:
            raise self._damaged(f"{self._path}/{name}", error) from error

    def _damaged(self, what: str, error: Exception) -> InputError:
        reason = one_line(error)
        return InputError(f"cannot read {what} ({reason}): get or pack the zip file again")

    def __str__(self) -> str:
        return str(self._path)


@dataclass(frozen=True)
class Member:
    """A file in a zip file."""

    archive: Archive
    name: str

    def read_bytes(self) -> bytes:
        """Return the file's bytes; raises InputError as `Archive.read` does."""
        return self.archive.read(self.name)

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"


def read_folder(folder: Path) -> ImageSet:
    """List the images of a folder that holds train, test or both.

    Raises:
        InputError: if a class's folder is empty, or holds anything but images.
    """
    names = [name for split in SPLITS for name in walk(folder / split, depth=2, prefix=f"{split}/")]
    return _image_set(names, folder.as_posix(), lambda name: folder / name)


def read_zip(path: Path) -> ImageSet:
    """List the images of a zip file that holds train, test or both, or one folder of them.

    Raises:
        InputError: as in `read_folder`, and if the file is damaged or of another layout.
    """
    archive = Archive(path)
    names = archive.names()
    tops = {name.split("/")[0] for name in names if "/" in name} - {"__MACOSX"}
    above = "" if len(tops) != 1 or tops & set(SPLITS) else f"{min(tops)}/"
    inside = tuple(f"{above}{split}/" for split in SPLITS)
    images = [name.removeprefix(above) for name in names if name.startswith(inside)]
    if not images:
        raise InputError(
            f"{path} holds no images in train/CLASS or test/CLASS: pack folders of that layout"
        )
    return _image_set(images, f"{path}/{above}".rstrip("/"), lambda n: archive.member(above + n))


def _image_set(names: Iterable[str], where: str, file: Callable[[str], File]) -> ImageSet:
    listing = Listing.of(names, where)
    files: dict[tuple[Split, str], tuple[File, ...]] = {}
    for split in SPLITS:
        for name in listing.types(split):
            folder = f"{split}/{name}"
            files[split, name] = tuple(
                file(f"{folder}/{image}") for image in listing.images(folder)
            )
    if not files:
        raise InputError(f"{where} holds no classes: put images into train/CLASS and test/CLASS")
    return ImageSet(where, tuple(sorted({name for _, name in files})), files)
