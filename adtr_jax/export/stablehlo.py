"""Writes and runs what `jax.export` serialises: StableHLO for CPUs, CUDA and TPUs in one.

The file is a zip archive of `metadata.json`, text by name, and `exported.bin`, which
`jax.export.deserialize` reads: `pixels [b s s 3] -> (score maps [b s s], scores [b])`. It ends with
its digest, as the archive's comment.
"""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from adtr_jax.errors import InputError, one_line
from adtr_jax.export.metadata import REMEDY
from adtr_jax.export.onnx_runtime import Run
from adtr_jax.files import digest

METADATA, EXPORTED = "metadata.json", "exported.bin"
PLATFORMS = ("cpu", "cuda", "tpu")


def write(
    function: Callable[[Any], tuple[Any, ...]], size: int, metadata: Mapping[str, str], path: Path
) -> None:
    """Writes a function of pixels, as `onnx_writer.write` does.

    Raises:
        InputError: flatbuffers, which JAX needs to write it, is not installed.
    """
    (b,) = export.symbolic_shape("b")
    pixels = jax.ShapeDtypeStruct((b, size, size, 3), np.uint8)
    with jax.default_matmul_precision("highest"):
        exported = export.export(jax.jit(function), platforms=PLATFORMS)(pixels)
    try:
        data = exported.serialize()
    except ImportError:
        raise _flatbuffers() from None
    with zipfile.ZipFile(path, "w") as archive:  # not compressed: weights do not shrink
        text = json.dumps(dict(metadata), indent=1)
        archive.writestr(METADATA, text.replace(digest.BLANK, ""))  # a zip checks its members
        archive.writestr(EXPORTED, bytes(data))
        archive.comment = digest.BLANK.encode()
    digest.seal(path)


def open_file(path: Path) -> tuple[dict[str, str], Run]:
    """Opens an export: its metadata, and the function pixels `[b s s 3]` -> score maps, scores.

    It is compiled for 1, 2, 4, 8 ... images, when first called with as many.

    Raises:
        InputError: the file is damaged, or JAX cannot read it.
    """
    content = path.read_bytes()
    if not digest.is_intact(content, content[-len(digest.BLANK) :].decode("ascii", "replace")):
        raise InputError(f"{path} is damaged, or an export of a version before 0.2; {REMEDY}")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            metadata = json.loads(archive.read(METADATA))
            data = archive.read(EXPORTED)
        call = jax.jit(export.deserialize(bytearray(data)).call)
    except ImportError:
        raise _flatbuffers() from None
    except (zipfile.BadZipFile, ValueError, LookupError) as error:
        reason = one_line(error)[:200]
        raise InputError(f"{path} is not a readable StableHLO export ({reason})") from None

    def run(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n = len(pixels)
        index = np.minimum(np.arange(1 << (n - 1).bit_length()), n - 1)
        maps, scores = call(pixels[index])
        return np.asarray(maps)[:n], np.asarray(scores)[:n]

    return metadata, run


def _flatbuffers() -> InputError:
    return InputError("StableHLO needs flatbuffers: install it with pip install 'adtr_jax[export]'")
