"""Writes ONNX, by jax2onnx."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adtr_jax.errors import InputError, one_line
from adtr_jax.files import digest
from adtr_jax.nn import cpu

OPSET = 18  # read by ONNX Runtime 1.18 and newer, and by most other engines
# Einsums that are a product of matrices, for which engines have their fast code.
_PRODUCTS = (b"abc,cd->abd", b"abcd,de->abce", b"bhqk,bhke->bhqe", b"bnm,bme->bne")


def write(
    function: Callable[[Any], tuple[Any, ...]], size: int, metadata: Mapping[str, str], path: Path
) -> None:
    """Writes a function of pixels as one ONNX file.

    Inputs: `pixels`, uint8 `[b s s 3]`. Outputs: `score_map`, float32 `[b s s]`, and `score`,
    float32 `[b]`. b is dynamic.

    Args:
        function: pixels -> score maps, scores.
        size: s.
        metadata: text by name.
        path: the file.

    Raises:
        InputError: jax2onnx is not installed, or cannot write this function.
    """
    try:
        import jax2onnx
        import onnx
    except ImportError as error:
        raise InputError(
            f"writing ONNX needs {error.name}: install it with pip install 'adtr_jax[export]'"
        ) from None
    # What is behind a switch between processors cannot be written, and what has been traced with
    # one stays so.
    with cpu.plain_forms(), jax.default_matmul_precision("highest"), _quiet():
        pixels = jax.ShapeDtypeStruct(("b", size, size, 3), np.uint8)
        try:
            model: Any = jax2onnx.to_onnx(
                function,
                [pixels],
                model_name="adtr_jax",
                opset=OPSET,
                input_names=["pixels"],
                output_names=["score_map", "score"],
            )
        except (NotImplementedError, TypeError, ValueError, KeyError) as error:
            reason = one_line(error)[:200]
            raise InputError(f"jax2onnx cannot write this model: {reason}") from error
    for node in model.graph.node:
        if node.op_type == "Einsum" and node.attribute[0].s in _PRODUCTS:
            node.op_type = "MatMul"
            del node.attribute[:]
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)
    digest.seal(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """jax2onnx warns of its own plugins and calls; the proof judges what it has written."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
