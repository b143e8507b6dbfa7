"""The published networks of the EfficientNet family: how each scales the baseline B0."""

from typing import NamedTuple


class Scaling(NamedTuple):
    """Compound scaling of one network (Tan & Le 2019, Eq. 3)."""

    width: float
    """Factor on the channels."""
    depth: float
    """Factor on the blocks of a stage."""
    image_size: int
    """Native image side in pixels, which settles the padding."""
    lite: bool
    """No squeeze-and-excitation, ReLU6; stem, head and the depth of first and last stage fixed."""


# Figures: the TPU repository's efficientnet_builder.py and lite/efficientnet_lite_builder.py.
SCALINGS: dict[str, Scaling] = {
    "efficientnet-b0": Scaling(1.0, 1.0, 224, lite=False),
    "efficientnet-b1": Scaling(1.0, 1.1, 240, lite=False),
    "efficientnet-b2": Scaling(1.1, 1.2, 260, lite=False),
    "efficientnet-b3": Scaling(1.2, 1.4, 300, lite=False),
    "efficientnet-b4": Scaling(1.4, 1.8, 380, lite=False),
    "efficientnet-b5": Scaling(1.6, 2.2, 456, lite=False),
    "efficientnet-b6": Scaling(1.8, 2.6, 528, lite=False),
    "efficientnet-b7": Scaling(2.0, 3.1, 600, lite=False),
    "efficientnet-lite0": Scaling(1.0, 1.0, 224, lite=True),
    "efficientnet-lite1": Scaling(1.0, 1.1, 240, lite=True),
    "efficientnet-lite2": Scaling(1.1, 1.2, 260, lite=True),
    "efficientnet-lite3": Scaling(1.2, 1.4, 280, lite=True),
    "efficientnet-lite4": Scaling(1.4, 1.8, 300, lite=True),
}
