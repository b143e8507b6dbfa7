"""From a model to its int8 export, with a threshold of its own."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from adtr_jax.api.model import Model
from adtr_jax.data.good_images import GoodImages
from adtr_jax.data.inputs import decoded
from adtr_jax.data.labelled import read_anomalies
from adtr_jax.errors import InputError
from adtr_jax.evaluation.metrics import auroc
from adtr_jax.export import int8, onnx_runtime
from adtr_jax.export.exported import ExportedDetector
from adtr_jax.export.exported import load as load_export
from adtr_jax.export.proof import Difference
from adtr_jax.files import temporary


class Scores(NamedTuple):
    """What one of the two files says of the images.

    Attributes:
        good: raw image scores of the good images that were not trained on.
        defects: of the defects.
    """

    good: Float[np.ndarray, " n"]
    defects: Float[np.ndarray, " m"]

    @property
    def auroc(self) -> float:
        """The area under the ROC curve of the images; there must be defects."""
        labels = np.repeat([False, True], [len(self.good), len(self.defects)])
        return auroc(np.concatenate(self), labels)


class Int8(NamedTuple):
    """What an int8 export costs.

    Attributes:
        proof: how far the float32 export is from the model, from which it is made.
        ranges: how many images, that were trained on, gave the ranges of activations.
        float32: scores before.
        int8: scores after, of the same images.
    """

    proof: Difference
    ranges: int
    float32: Scores
    int8: Scores

    @property
    def change(self) -> float:
        """The largest change of a good image's score, relative to it."""
        return float(np.max(np.abs(self.int8.good / self.float32.good - 1)))


def export(model: Model, path: Path, photos: Path, defects: Path | None = None) -> Int8:
    """Writes a model as ONNX in int8.

    The ranges of activations are those of images that were trained on, and the threshold comes from
    the int8 scores of images that were not, for its promise asks that nothing be fitted on them.

    Args:
        model: as `fit` makes it.
        path: ends with `.onnx`.
        photos: the folder of good images that it was fitted on.
        defects: a folder of defects, as `fit` takes it, to measure what int8 costs.

    Raises:
        InputError: as `Model.export`; images that cannot be read; `photos` without images of both
            sorts; scores that are not finite. No file is written then.
    """
    seen, held = _good(model, photos)
    bad = None if defects is None else _defects(model, defects)
    with temporary.folder(path.parent, path.stem) as folder:
        before, after = folder / "float32.onnx", folder / path.name
        proof = model.export(before)
        int8.quantise(before, seen, after)
        plain = load_export(before).detector
        quantised = ExportedDetector(model.settings, onnx_runtime.open_file(after)[1])
        maps, scores = quantised.score(held)
        none = np.empty(0, np.float32)
        found = Scores(scores, none if bad is None else quantised.score(bad)[1])
        if not all(np.isfinite(values).all() for values in (maps, *found)):
            raise InputError(f"{path} is not written: int8 gives scores that are not finite")
        calibrated = dataclasses.replace(model, detector=quantised).calibrated(maps, scores)
        int8.set_metadata(after, calibrated.metadata(model.trained))
        load_export(after)
        reference = Scores(plain.score(held)[1], none if bad is None else plain.score(bad)[1])
        after.replace(path)
    return Int8(proof, len(seen), reference, found)


def _good(
    model: Model, photos: Path
) -> tuple[UInt8[np.ndarray, "n s s 3"], UInt8[np.ndarray, "m s s 3"]]:
    """The good images that the model was trained on, `int8.IMAGES` at most, and the others."""
    known = set(model.about.get("trained_on", ()))
    if not known:
        raise InputError(
            "the model does not say what it was trained on, so its threshold cannot be made anew "
            "for int8: make it with adtr-jax fit"
        )
    settings = model.settings
    good = GoodImages.read(photos, settings.image_size, settings.crop, settings.bits)
    trained = np.array([digest in known for digest in good.digests])
    if not trained.any():
        raise InputError(
            f"--int8={photos} holds no image that the model was trained on: give the folder that "
            "it was fitted on"
        )
    if trained.all():
        raise InputError(
            f"the model was trained on all of the images in --int8={photos}, so none is left for "
            "the threshold: add good ones that it has not seen"
        )
    seen = np.flatnonzero(trained)
    spread = np.linspace(0, len(seen) - 1, min(len(seen), int8.IMAGES)).astype(int)
    return np.asarray(good.pixels[seen[spread]]), np.asarray(good.pixels[~trained])


def _defects(model: Model, folder: Path) -> UInt8[np.ndarray, "n s s 3"]:
    files = [Path(str(sample.image)) for sample in read_anomalies(folder)]
    pixels = []
    settings = model.settings
    for image in decoded(files, settings.image_size, settings.crop, bits=settings.bits):
        if image.pixels is None:
            raise InputError(f"{image.error}")
        pixels.append(image.pixels)
    return np.stack(pixels)
