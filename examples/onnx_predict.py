"""Finds anomalies with an exported model; needs numpy, Pillow and onnxruntime alone.

    adtr-jax export bolt.adtr --out=bolt.onnx
    python onnx_predict.py bolt.onnx NEW_PHOTOS/*.png

Prints path, raw score and verdict of every image, separated by tabs.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(model: str, *paths: str) -> None:
    """Scores images one by one."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    prepared = json.loads(said["preprocessing"])
    threshold = json.loads(said.get("threshold", "null"))  # of a model without calibration: none
    for path in paths:
        image = ImageOps.exif_transpose(Image.open(path))
        if prepared["bits"] is not None:  # grey of 16 bits; in colour, Pillow has the upper 8 alone
            values = np.asarray(image) * 255.0 / (2 ** prepared["bits"] - 1)
            image = Image.fromarray(np.round(values).astype(np.uint8))
        image = image.convert("RGB")
        image = image.resize(prepared["resize"], Image.Resampling.BILINEAR)
        pixels = np.asarray(image.crop(prepared["crop"]))[None]  # uint8 [1 s s 3]
        # score_map, float32 [1 s s], shows where; above `pixel_threshold` it is anomalous.
        _score_map, (score,) = session.run(["score_map", "score"], {"pixels": pixels})
        anomalous = "?" if threshold is None else str(float(score) > threshold).lower()
        print(path, float(score), anomalous, sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])
