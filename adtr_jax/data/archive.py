"""Archives of data sets: downloaded once, checked and unpacked in the user's cache folder."""

import hashlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from adtr_jax.errors import InputError
from adtr_jax.files import temporary
from adtr_jax.files.download import downloaded
from adtr_jax.files.lock import locked


@dataclass(frozen=True)
class Archive:
    """The file to download: URL, size in bytes, and SHA-256 in hexadecimal."""

    url: str
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    @property
    def gigabytes(self) -> str:
        """The size in words."""
        return f"{self.size / 1e9:.1f} GB"


def unpacked(archive: Archive, title: str, homepage: str) -> Path:
    """Returns the folder of what is in an archive, which is downloaded if it is not there yet.

    A download that breaks off, or is interrupted, goes on the next time.

    Args:
        archive: `.tar`, compressed or not, or `.zip`.
        title: the data set's name, for messages.
        homepage: where it is to be had by hand.

    Raises:
        InputError: there is no room for it, it cannot be downloaded, is another file than expected,
            or another command is about it.
    """
    folder = user_cache_path("adtr_jax") / "data" / archive.file_name.partition(".")[0]
    content = folder / "content"
    if content.is_dir():  # renamed into place when it is complete
        return content
    by_hand = f"get it from {homepage} by hand, unpack it and give the folder with --data"
    with locked(folder, option="--data"):
        if content.is_dir():
            return content
        free = shutil.disk_usage(folder).free
        if free < 2 * archive.size:
            raise InputError(
                f"{title} takes {2 * archive.size / 1e9:.1f} GB in {folder} until it is unpacked, "
                f"and {free / 1e9:.1f} GB are free: make room, or {by_hand}"
            )
        print(f"{title}: downloading {archive.gigabytes} into {folder}", file=sys.stderr)
        part = folder / archive.file_name
        with downloaded(archive.url, part, limit=archive.size, remedy=by_hand) as path:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found == archive.sha256:
                with temporary.folder(folder, "unpacking") as made:
                    is_tar = not archive.file_name.endswith(".zip")
                    shutil.unpack_archive(path, made / "content", filter="data" if is_tar else None)
                    (made / "content").rename(content)
        if found != archive.sha256:  # deleted by now: another one is downloaded the next time
            raise InputError(
                f"{archive.url} is not the expected file (SHA-256 {found[:8]}... in place of "
                f"{archive.sha256[:8]}...): {by_hand}"
            )
    return content
