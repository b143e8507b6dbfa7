"""int8 by ONNX Runtime's static quantisation.

Weights are int8, of 7 bits and with a scale a channel; activations uint8, with a range that images
show. So are the products of matrices with weights and the convolutions, but for the first and the
depthwise ones, whose channels differ too much to share a range: on an EfficientNet-Lite2 they cost
3 points of AUROC. What follows the reconstruction, the differences and the score map, stays in
float32.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from adtr_jax.files import digest

IMAGES = 100  # to find ranges on, at most: more of them hardly widen one
_BATCH = 16
_OPERATIONS = ["Conv", "MatMul"]


def quantise(path: Path, pixels: UInt8[np.ndarray, "n s s 3"], out: Path) -> None:
    """Writes the int8 form of an ONNX export, without metadata.

    Args:
        path: the export.
        pixels: images from which the ranges of activations are taken.
        out: the file to write; another one is written beside it.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    folded = out.with_name(f"{out.stem}.folded.onnx")
    with _quiet():
        # Weights that the graph transposes or adds up first become constants.
        quant_pre_process(path, folded, skip_symbolic_shape=True)
        model = onnx.load(folded)
        del model.metadata_props[:]  # they hold the export's digest
        onnx.save(model, folded)
        quantization.quantize_static(
            folded,
            out,
            _reader(pixels),
            op_types_to_quantize=_OPERATIONS,
            nodes_to_exclude=_delicate(model),
            per_channel=True,
            reduce_range=True,  # 7 bits: no sum overflows on CPUs without VNNI, which saturate
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},  # attention's products have no weights
        )


def set_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Gives the int8 file its metadata, with an entry that says what it is."""
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {**metadata, "quantised": "int8"})
    onnx.save(model, path)
    digest.seal(path)


def _reader(pixels: UInt8[np.ndarray, "n s s 3"]) -> Any:
    """The images as ONNX Runtime takes them, batch by batch."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        batches = iter(range(0, len(pixels), _BATCH))

        def get_next(self) -> dict[str, np.ndarray] | None:
            start = next(self.batches, None)
            return None if start is None else {"pixels": pixels[start : start + _BATCH]}

    return Reader()


def _delicate(model: Any) -> list[str]:
    """The names of the convolutions that stay in float32.

    They are the first; and those with one input channel a group, which are the depthwise ones and
    what averages over the score map.
    """
    channels = {weights.name: weights.dims[1:2] for weights in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    return [
        node.name
        for i, node in enumerate(convolutions)
        if i == 0 or channels.get(node.input[1]) == [1]
    ]


@contextmanager
def _quiet() -> Iterator[None]:
    """It warns of what was done already, by the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
