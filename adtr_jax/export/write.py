"""From a trained detector to a file that is proved equal to it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adtr_jax.detectors.detector import Detector
from adtr_jax.errors import InputError
from adtr_jax.export import SUFFIXES, format_of, onnx_writer, stablehlo
from adtr_jax.export.proof import LARGEST, Difference, difference
from adtr_jax.files import temporary


def write(detector: Detector, metadata: Mapping[str, str], path: Path) -> Difference:
    """Writes the detector in the format that the file's name says, and proves it.

    The file appears only once it has been loaded again and compared.

    Args:
        detector: a trained one.
        metadata: from `metadata.describe`.
        path: ends with one of `SUFFIXES`.

    Returns:
        How far the file is from the detector, at most `proof.LARGEST`.

    Raises:
        InputError: another suffix, a detector that computes in bfloat16, a library that is not
            installed, or a file that differs from the detector; an older file is untouched.
    """
    kind = format_of(path)
    if kind is None:
        known = " or ".join(SUFFIXES.values())
        raise InputError(f"{path} is no name of an export: end it with {known}")
    if detector.settings.dtype != "float32":
        raise InputError(
            f"the model computes in {detector.settings.dtype}, which every program rounds in its "
            "own way, so that no export equals it: train it with --dtype=float32"
        )

    def function(pixels: Any) -> tuple[Any, ...]:
        return detector.maps_and_scores(detector.backbone, detector.params, detector.rest, pixels)

    with temporary.folder(path.parent, path.stem) as folder:
        part = folder / path.name
        size = detector.settings.image_size
        if kind == "onnx":
            onnx_writer.write(function, size, metadata, part)
        else:
            stablehlo.write(function, size, metadata, part)
        found = difference(detector, part)
        if not found.is_small:
            raise InputError(
                f"{path} is not written: its score maps differ by {found.maps:.2g} and its scores "
                f"by {found.scores:.2g} of their size from the model's, more than {LARGEST:g}"
            )
        part.replace(path)
    return found
