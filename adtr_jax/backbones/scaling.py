"""The published networks: the parameters of each within its family."""

from typing import NamedTuple


class Scaling(NamedTuple):
    """Compound scaling of one EfficientNet over the baseline B0 (Tan & Le 2019, Eq. 3)."""

    width: float
    """Factor on the channels."""
    depth: float
    """Factor on the blocks of a stage."""
    image_size: int
    """Native image side in pixels, which settles the padding."""
    lite: bool
    """No squeeze-and-excitation, ReLU6; stem, head and the depth of first and last stage fixed."""


# From the TPU repository's efficientnet_builder.py and lite/efficientnet_lite_builder.py.
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


class Layout(NamedTuple):
    """The residual blocks of one ResNet."""

    blocks: tuple[int, int, int, int]
    """Blocks of each of the four layer groups."""
    bottleneck: int | None
    """Channels of the first group's 3x3 convolutions in bottleneck blocks, doubled from group to
    group; None for basic blocks."""


# He et al. 2016, Table 1; Zagoruyko & Komodakis 2016, WRN-50-2: ResNet-50 with a bottleneck of
# twice 64 channels.
LAYOUTS: dict[str, Layout] = {
    "resnet-18": Layout((2, 2, 2, 2), bottleneck=None),
    "resnet-34": Layout((3, 4, 6, 3), bottleneck=None),
    "wide-resnet-50-2": Layout((3, 4, 6, 3), bottleneck=128),
}
