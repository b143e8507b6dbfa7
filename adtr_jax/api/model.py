"""A trained model with its threshold: images in, predictions out.

JAX is imported only with a detector that needs it: an exported one runs without.
"""

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from adtr_jax.api.prediction import Prediction, Scale
from adtr_jax.api.products import Product, describe_products, read_products
from adtr_jax.calibration.calibration import Calibration
from adtr_jax.calibration.decision import Decision, ThresholdKind
from adtr_jax.calibration.recogniser import Recogniser
from adtr_jax.calibration.regions import find_regions
from adtr_jax.config import Settings
from adtr_jax.data.inputs import AHEAD, Decoded, Picture, decoded, expand
from adtr_jax.detectors.header import Header
from adtr_jax.errors import InputError
from adtr_jax.export import exported, format_of
from adtr_jax.export.exported import ExportedDetector
from adtr_jax.files import run_folder

if TYPE_CHECKING:
    from adtr_jax.detectors.detector import Detector
    from adtr_jax.export.proof import Difference

# Of the scale's colours, the share below the threshold of pixels: what is above is bright.
BELOW_THRESHOLD = 0.6
CHUNK = 16  # images that are scored at a time, at least


@dataclass(frozen=True, eq=False)
class Model:
    """A trained detector, and what its scores mean; or that of several products, each with its own.

    It never changes. Get one by `adtr_jax.fit` or `adtr_jax.load`.

    Attributes:
        detector: computes score maps and raw image scores; `trained` is the one with parameters.
        calibration: the scores of normal images that were not trained on; None: there are none,
            and so no threshold, or there are several products.
        scale: the raw scores of the first and the last colour of pictures.
        false_alarms: the share of good images that may be called anomalous.
        kind: of the threshold: `conformal`, which promises that share, or `estimated`.
        about: what else the file says: how it was calibrated, on what it was trained.
        licence: of the backbone's weights.
        digest: SHA-256 of all that was learned, where the model was loaded from a file.
        products: the models of each product, by name, which share the detector; empty: of one.
        recogniser: says which product an image shows, where there are several.
        product: the name of the only product, of one of `products`; "": it has none.
    """

    detector: "Detector | ExportedDetector"
    calibration: Calibration | None
    scale: Scale
    false_alarms: float = 0.01
    kind: ThresholdKind = "conformal"
    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    licence: str = ""
    digest: str = ""
    products: Mapping[str, "Model"] = dataclasses.field(default_factory=dict)
    recogniser: Recogniser | None = None
    product: str = ""

    @property
    def settings(self) -> Settings:
        """How the model was trained, and how it scores."""
        return self.detector.settings

    @property
    def trained(self) -> "Detector":
        """The detector with its parameters.

        Raises:
            InputError: the model was loaded from an export, which has none.
        """
        if isinstance(self.detector, ExportedDetector):
            raise InputError(
                "an export only predicts: give the model that it was made of, as adtr-jax fit "
                "wrote it"
            )
        return self.detector

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of the good images, the most frequent first; [] if not known."""
        return [(width, height) for width, height in self.about.get("sizes", ())]

    @cached_property
    def decision(self) -> Decision | None:
        """The threshold, and what it promises; None without calibration.

        Raises:
            InputError: a false-alarm rate out of range.
        """
        if self.calibration is None:
            return None
        return self.calibration.decision(self.false_alarms, self.kind)

    def of(self, product: str | None) -> "Model":
        """Returns the model of one product.

        Args:
            product: its name; None: there is only one.

        Raises:
            InputError: there is none of that name; or there are several, and none was named.
        """
        known = ", ".join(self.products)
        if product is None:
            if self.products:
                raise InputError(
                    f"the model knows several products: name one with --product, of {known}"
                )
            return self
        if product not in self.products:
            knows = f"knows {known}" if known else "is of one product: leave --product out"
            raise InputError(f"--product={product}: the model {knows}")
        return self.products[product]

    def with_false_alarms(self, rate: float, kind: ThresholdKind | None = None) -> "Model":
        """Returns the model with another threshold; nothing is trained.

        Args:
            rate: the share of good images that may be called anomalous, in (0, 1).
            kind: `conformal` or `estimated`; None: as it is.

        Raises:
            InputError: a rate out of range, or a model without calibration.
        """
        if self.products:
            each = {n: m.with_false_alarms(rate, kind) for n, m in self.products.items()}
            return dataclasses.replace(
                self, false_alarms=rate, kind=kind or self.kind, products=each
            )
        if self.calibration is None:
            raise InputError(
                "the model is not calibrated, so it has no threshold to change: fit it with "
                "adtr_jax.fit, which holds good images out"
            )
        changed = dataclasses.replace(self, false_alarms=rate, kind=kind or self.kind)
        _ = changed.decision
        return changed

    def calibrated(
        self, maps: Float[np.ndarray, "n s s"], scores: Float[np.ndarray, "n"]
    ) -> "Model":
        """Returns the model with a threshold and a scale of pictures made anew.

        Args:
            maps: score maps, by this detector, of good images that were not trained on.
            scores: their raw image scores.

        Raises:
            InputError: no images, scores that are not finite, or a false-alarm rate out of range.
        """
        peaks = maps.max(axis=(1, 2))
        calibration = Calibration(scores.astype(np.float64), peaks.astype(np.float64))
        decision = calibration.decision(self.false_alarms, self.kind)
        low = float(np.quantile(maps, 0.01))
        span = max(decision.pixel_threshold - low, 1e-6 * max(abs(low), 1.0)) / BELOW_THRESHOLD
        return dataclasses.replace(self, calibration=calibration, scale=(low, low + span))

    def predict(self, images: Picture | Iterable[Picture]) -> "Prediction | Iterator[Prediction]":
        """Scores one image, or many.

        Args:
            images: an image's path, the bytes of its file, a PIL image, or RGB values
                `[h w 3]`, uint8 or uint16; or a folder, or a list or iterator of images, which may
                be of different sizes.

        Returns:
            A prediction; for many images an iterator of them, in order, which decodes ahead and
            holds few images at a time. There an image that cannot be read has an `error` and no
            score.

        Raises:
            InputError: the single image cannot be read, the folder holds none.
        """
        if isinstance(images, Image.Image | np.ndarray | bytes):
            return self._one(images)
        if isinstance(images, str | Path):
            if Path(images).expanduser().is_dir():
                return self.predict_decoded(
                    self._decoded(expand([str(Path(images).expanduser())], sys.stdin))
                )
            return self._one(Path(images).expanduser())
        return self.predict_decoded(self._decoded(images))

    def predict_decoded(self, images: Iterable[Decoded]) -> Iterator[Prediction]:
        """Scores images that are decoded already, a chunk at a time."""
        images = iter(images)
        size = max(CHUNK, self.detector.batch)
        while chunk := list(_chunk(images, size)):
            good = [image for image in chunk if image.pixels is not None]
            results: Iterator[tuple[Model, Any, float]] = iter(())
            if good:
                pixels = np.stack([image.pixels for image in good if image.pixels is not None])
                results = self._scored(pixels)
            for image in chunk:
                if image.pixels is None:
                    yield self._failed(image)
                else:
                    model, score_map, raw = next(results)
                    yield model._made(image, score_map, raw)

    def _scored(
        self, pixels: UInt8[np.ndarray, "b s s 3"]
    ) -> "Iterator[tuple[Model, Float[np.ndarray, 's s'], float]]":
        """By image its product's model, the score map and the raw score."""
        if self.recogniser is None:
            maps, scores = self.detector.score(pixels)
            return zip(repeat(self), maps, map(float, scores))
        maps, scores, embeddings = self.trained.score_and_embed(pixels)
        names = (self.recogniser.names[i] for i in self.recogniser.nearest(embeddings))
        return zip((self.products[name] for name in names), maps, map(float, scores), strict=True)

    def save(self, path: str | Path) -> None:
        """Atomically writes the model to one file, which is all that `load` needs.

        Raises:
            InputError: as `trained`.
        """
        from adtr_jax.detectors import model_file

        model_file.save(self.trained, Path(path), **self._described())

    def export(self, path: str | Path) -> "Difference":
        """Writes the model to a file that runs without JAX, and proves that it computes the same.

        Args:
            path: ends with `.onnx`, or `.stablehlo` for what `jax.export` serialises.

        Returns:
            The largest relative difference of its score maps and scores, at most 1e-4.

        Raises:
            InputError: as `trained` and `of`; another name; a library that is not installed; a
                larger difference. No file is written then.
        """
        from adtr_jax.export import write

        text = self.of(None).metadata(self.trained)
        return write.write(self.trained, text, Path(path).expanduser())

    def metadata(self, trained: "Detector") -> dict[str, str]:
        """What an export of the model says about itself.

        Args:
            trained: the detector whose export it is.
        """
        from adtr_jax.detectors import model_file
        from adtr_jax.export import metadata

        described = self._described()
        header = model_file.describe(trained, **described)
        return metadata.describe(header, described["calibration"], self.decision)

    def _described(self) -> dict[str, Any]:
        """All of a model's file but the detector."""
        extra = {
            "scale": list(self.scale),
            "false_alarms": self.false_alarms,
            "kind": self.kind,
            "about": self.about,
        }
        arrays: dict[str, np.ndarray] = {}
        if self.recogniser is not None:
            own = [each._as_product() for each in self.products.values()]
            arrays, extra["products"] = describe_products(own, self.recogniser)
        elif self.calibration is not None:
            arrays = self.calibration.arrays()
        return {
            "complete": True,
            "licence": self.licence,
            "calibration": arrays,
            "extra": extra,
        }

    def _as_product(self) -> Product:
        """What is its own, of one of `products`."""
        assert self.calibration is not None
        return Product(self.product, self.calibration, self.scale, self.about["sizes"])

    def _one(self, image: Picture) -> Prediction:
        found = next(self.predict_decoded(self._decoded([image])))
        if found.error is not None:
            raise InputError(found.error)
        return found

    def _decoded(self, images: Iterable[Picture]) -> Iterator[Decoded]:
        """Decodes ahead."""
        settings = self.settings
        return decoded(images, settings.image_size, settings.crop, bits=settings.bits)

    def _failed(self, image: Decoded) -> Prediction:
        return Prediction.failed(str(image.path), image.error or "", self.scale)

    def _made(self, image: Decoded, score_map: Float[np.ndarray, "s s"], raw: float) -> Prediction:
        """The prediction of one image, from its score map and raw score."""
        assert image.image is not None
        crop, found = self.settings.crop, self.decision
        common: dict[str, Any] = {
            "path": str(image.path or ""),
            "raw_score": raw,
            "score_map": score_map,
            "image": image.image,
            "crop": crop,
            "scale": self.scale,
            "product": self.product,
        }
        if found is None or self.calibration is None:
            return Prediction(
                anomalous=None, score=None, p_value=None, threshold=None, regions=(), **common
            )
        regions = find_regions(score_map, found.pixel_threshold, *image.image.size, crop)
        return Prediction(
            anomalous=found.is_anomalous(raw),
            score=self.calibration.readable(raw, found.threshold),
            p_value=self.calibration.p_value(raw),
            threshold=found.threshold,
            regions=regions,
            **common,
        )


def _chunk(images: Iterator[Decoded], count: int) -> Iterator[Decoded]:
    """Takes the next images: so many, or fewer where they are large."""
    held = 0
    for image in islice(images, count):
        yield image
        held += image.nbytes
        if held >= AHEAD:
            return


def load(path: str | Path, weights: str | Path | None = None) -> Model:
    """Loads a model from its file, from an export, or from the folder of an experiment's run.

    Args:
        path: a file that `Model.save` or `adtr-jax fit` wrote; one that `Model.export` or
            `adtr-jax export` did, of which `.onnx` needs no JAX; or a run's folder or model file.
        weights: the folder of converted backbone weights, for a run's; default: the usual one.

    Raises:
        InputError: the file is not there, is damaged, of another kind or of a newer version; or
            the backbone's weights are not there, or others than the model was trained on.
    """
    path = Path(path).expanduser()
    if format_of(path) is not None and not path.is_dir():
        return _model(path, *exported.load(path))
    from adtr_jax.detectors import model_file
    from adtr_jax.devices.compile_cache import keep_compiled_programs

    keep_compiled_programs()
    file = path / run_folder.MODEL if path.is_dir() else path
    header = model_file.read_header(file)
    folder = None
    if not header.complete:
        from conversion import weights_folder

        folder = weights_folder() if weights is None else Path(weights)
    return _model(file, *model_file.load(file, folder))


def _model(
    path: Path,
    header: Header,
    detector: Union["Detector", ExportedDetector],
    calibration: dict[str, np.ndarray],
) -> Model:
    """The model of what a file holds."""
    extra = header.extra
    arrays = {name: array.astype(np.float64) for name, array in calibration.items()}
    several = extra.get("products")  # a list
    model = Model(
        detector=detector,
        calibration=Calibration(**arrays) if arrays and several is None else None,
        scale=tuple(extra.get("scale", (0.0, 1.0))),
        false_alarms=extra.get("false_alarms", 0.01),
        kind=extra.get("kind", "conformal"),
        about=extra.get("about", {}),
        licence=header.licence,
        digest=header.sha256,
    )
    if several is None:
        return model
    return _with_products(model, *read_products(several, arrays, path))


def _with_products(model: Model, several: list[Product], recogniser: Recogniser) -> Model:
    """The model of what its file says without its products, with them."""
    models = {
        each.name: dataclasses.replace(
            model,
            calibration=each.calibration,
            scale=each.scale,
            about=model.about | {"sizes": each.sizes},
            product=each.name,
        )
        for each in several
    }
    return dataclasses.replace(model, products=models, recogniser=recogniser)
