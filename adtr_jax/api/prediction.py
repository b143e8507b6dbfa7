"""What is found about one image."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from adtr_jax.calibration.regions import Region
from adtr_jax.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

Scale = tuple[float, float]  # the raw scores of the first and the last colour


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model finds in one image.

    Attributes:
        path: the image's file, or "" for one that came as pixels.
        anomalous: the verdict; None: the model has no threshold, for it is not calibrated.
        score: 0 to 1, 0.5 at the threshold, rising with `raw_score`; None as above.
        p_value: the share of good images, from 1 / (n + 1) to 1, that look at least as unusual, by
            the n images the model is calibrated on; None as above.
        raw_score: the model's image score, of no fixed range; None where there is an error.
        threshold: the raw score from which on an image is anomalous; None as above.
        regions: where the score map is above the threshold of pixels, the most unusual first.
        score_map: `[s s]`, higher is more anomalous; of the image's centre, if the model crops.
        image: the image, upright, at its original size.
        crop: the share of its height and width that the score map covers.
        scale: the raw scores of the first and the last colour of pictures.
        error: why the image could not be read, in one line; all else is empty then.
        product: which one the model takes the image for, of several that it knows; "": of one.
    """

    path: str
    anomalous: bool | None
    score: float | None
    p_value: float | None
    raw_score: float | None
    threshold: float | None
    regions: tuple[Region, ...]
    score_map: Float[np.ndarray, "s s"] | None = field(repr=False)
    image: "Image.Image | None" = field(repr=False)
    crop: float = field(repr=False)
    scale: Scale = field(repr=False)
    error: str | None = None
    product: str = ""

    @classmethod
    def failed(cls, path: str, error: str, scale: Scale) -> "Prediction":
        """Returns what is known of an image that could not be read."""
        return cls(path, None, None, None, None, None, (), None, None, 1.0, scale, error)

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        if self.raw_score is None:
            return self.error or ""
        if self.anomalous is None or self.score is None or self.p_value is None:
            return f"no threshold   raw score {self.raw_score:.4g}"
        word = "anomalous" if self.anomalous else "normal"
        start = f"{self.product}: " if self.product else ""
        return f"{start}{word}   score {self.score:.2f}   p = {self.p_value:.3g}"

    def overlay(self, opacity: float = 0.65) -> "Image.Image":
        """Returns the score map in colours over the grey image, at the image's original size.

        Args:
            opacity: of the colours, 0 to 1.

        Raises:
            InputError: the image could not be read.
        """
        from adtr_jax.evaluation.overlay import overlay

        if self.image is None or self.score_map is None:
            raise InputError(f"there is no picture to make: {self.error}")

        return overlay(
            self.image,
            self.score_map,
            self.scale,
            crop=self.crop,
            regions=self.regions,
            caption=self.verdict,
            opacity=opacity,
        )
