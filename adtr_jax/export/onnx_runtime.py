"""Runs ONNX, by ONNX Runtime, on the CPU. Imports no JAX."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from adtr_jax.errors import InputError, one_line
from adtr_jax.files import digest

Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def open_file(path: Path) -> tuple[dict[str, str], Run]:
    """Opens an export: its metadata, and the function pixels `[b s s 3]` -> score maps, scores.

    It computes with `OMP_NUM_THREADS` threads, which Ray and others that run several processes on a
    machine set; on all cores where nobody says.

    Raises:
        InputError: ONNX Runtime is not installed, or cannot read the file, or it is damaged.
    """
    try:
        import onnxruntime
    except ImportError:
        raise InputError(
            f"{path} needs onnxruntime: install it with pip install 'adtr_jax[onnx]'"
        ) from None
    _require_intact(path)
    options = onnxruntime.SessionOptions()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    options.intra_op_num_threads = int(threads) if threads.isdecimal() else 0
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its exceptions have no type of their own in common
        reason = one_line(error)[:200]
        raise InputError(f"{path} cannot be read by onnxruntime: {reason}") from None

    def run(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps, scores = session.run(["score_map", "score"], {"pixels": pixels})
        return maps, scores

    return dict(session.get_modelmeta().custom_metadata_map), run


def _require_intact(path: Path) -> None:
    """Raises InputError if the file holds its digest, in the header among the metadata, in vain."""
    content = path.read_bytes()
    found = re.search(rb'"file_sha256": "([^"]*)"', content)
    if found and not digest.is_intact(content, found[1].decode("ascii", "replace")):
        raise InputError(
            f"{path} is damaged: it does not hold what was written; export the model again with "
            "adtr-jax export"
        )
