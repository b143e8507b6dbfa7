"""What an export says about itself: text by name, in either format.

`adtr_jax`, the model file's header, and `calibration` are all that is needed to load it. The other
entries say in plain numbers what somebody without this package needs (README, "Export").
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adtr_jax.calibration.decision import Decision
from adtr_jax.config import Settings
from adtr_jax.data.images import centre_crop
from adtr_jax.detectors.header import KEY, Header, header_in
from adtr_jax.errors import InputError

REMEDY = "export the model again with adtr-jax export"


def describe(
    header: Header, calibration: Mapping[str, np.ndarray], decision: Decision | None
) -> dict[str, str]:
    """The metadata of an export.

    Args:
        header: of the model.
        calibration: scores and peaks `[n]` of held-out normal images; empty: there is none.
        decision: the threshold; None: there is none.
    """
    settings = header.settings
    values: dict[str, Any] = {
        "calibration": {name: array.tolist() for name, array in calibration.items()},
        "preprocessing": preprocessing(settings),
    }
    if decision is not None:
        values["threshold"] = decision.threshold
        values["pixel_threshold"] = decision.pixel_threshold
        values["false_alarms"] = decision.false_alarms
    words = {
        "version": header.version,
        "method": settings.method,
        "backbone": settings.backbone,
        "licence": header.licence,
    }
    numbers = {name: json.dumps(value) for name, value in values.items()}
    return {KEY: header.to_json()} | words | numbers


def preprocessing(settings: Settings) -> dict[str, Any]:
    """What happens to an image, decoded and upright, before it is an input; lengths in pixels.

    It is resized to `resize`, width and height, whatever its shape, and `crop`, left, top, right
    and bottom, is kept of that. `images.resized` does both. Pillow's bilinear filter averages
    over the pixels that it shrinks ("antialias" elsewhere). Where `bits` is a number, images have
    16 bits a channel, and their values, 0 to 2^bits - 1, are scaled to 0 to 255 before.
    """
    size = settings.image_size
    whole, before = centre_crop(size, settings.crop)
    return {
        "resize": [whole, whole],
        "filter": "bilinear, antialiased as by Pillow",
        "crop": [before, before, before + size, before + size],
        "colour": "RGB",
        "layout": "NHWC",
        "dtype": "uint8",
        "bits": settings.bits,
    }


def read(metadata: Mapping[str, str], path: Path) -> tuple[Header, dict[str, np.ndarray]]:
    """The header and the calibration of an export.

    Raises:
        InputError: they are missing or damaged, or of a newer version.
    """
    header = header_in(metadata, path, REMEDY)
    try:
        found = json.loads(metadata["calibration"])
        arrays = {name: np.array(values, np.float32) for name, values in found.items()}
    except (ValueError, TypeError, LookupError, AttributeError):
        arrays = {}
        found = None
    names = {"scores", "peaks"} if header.calibrated else set()
    if (
        found is None
        or arrays.keys() != names
        or any(array.shape != (header.calibrated,) for array in arrays.values())
    ):
        raise InputError(f"{path} has a damaged calibration; {REMEDY}")
    return header, arrays
