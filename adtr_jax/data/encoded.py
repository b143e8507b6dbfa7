"""The bytes of an image's file, within the limit on an image's pixels."""

import os
import stat
from pathlib import Path

from adtr_jax.data.samples import File
from adtr_jax.errors import InputError

MEGAPIXELS = 150.0  # of one image; the largest industrial and medium-format cameras have as many
LIMIT = "ADTR_JAX_MEGAPIXELS"  # the environment variable that sets another limit


def read_bytes(file: File) -> bytes:
    """The bytes of a file.

    Raises:
        InputError: it cannot be read, or is a pipe or device, which may never end; or it is larger
            than any image within the limit on pixels.
    """
    if isinstance(file, Path):
        require_regular(file)
    try:
        return file.read_bytes()
    except OSError as error:
        raise unreadable(file, error) from error


def limit_on_pixels() -> float:
    """The pixels that an image may have.

    Raises:
        InputError: the environment variable is no positive number.
    """
    text = os.environ.get(LIMIT, "")
    try:
        limit = float(text) if text else MEGAPIXELS
    except ValueError:
        limit = 0
    if not limit > 0:
        raise InputError(f"{LIMIT}={text} is no number of megapixels above 0: correct it")
    return 1e6 * limit


def require_regular(path: Path) -> None:
    """Raises InputError where `read_bytes` would, as far as it can be told without reading."""
    try:
        found = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        # Reading a pipe would wait for ever, and reading a device need not end.
        raise InputError(f"{path} is neither a file nor a folder: leave it out")
    if found.st_size > 8 * limit_on_pixels():
        raise InputError(
            f"{path} has {found.st_size:,} bytes, more than any image of {megapixels()} has: cut "
            f"it or scale it down, or set {LIMIT} to more"
        )


def unreadable(file: File, error: OSError) -> InputError:
    """The error about a file that the system does not let one read."""
    return InputError(f"cannot read {file}: {error.strerror or error}")


def megapixels() -> str:
    """The limit on pixels in words."""
    return f"{limit_on_pixels() / 1e6:g} megapixels"
