"""What the pictures are drawn on: figures whose places are pixels from the top left corner."""

import warnings
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import UInt8
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from adtr_jax.files.plain_name import drawable

COLOURS = matplotlib.colormaps["inferno"]
DPI = 100


def new_figure(width: int, height: int) -> Figure:
    """An empty figure of so many pixels."""
    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI)


def put_image(figure: Figure, image: UInt8[np.ndarray, "h w 3"], left: int, top: int) -> None:
    """Draws pixel for pixel; axes would resample the image."""
    bottom = round(figure.bbox.height) - top - image.shape[0]
    figure.figimage(image, left, bottom, origin="upper")


def put_text(
    figure: Figure,
    text: str,
    x: int,
    y: int,
    *,
    size: int,
    ha: str = "left",
    va: str = "bottom",
    rotation: int = 0,
    weight: str = "normal",
) -> None:
    """Writes text at a place; `size` is in points."""
    width, height = figure.bbox.width, figure.bbox.height
    # A file name may contain a dollar sign, which would start a formula.
    figure.text(
        x / width,
        1 - y / height,
        text,
        fontsize=size,
        ha=ha,
        va=va,
        rotation=rotation,
        weight=weight,
        parse_math=False,
    )


def put_colour_bar(
    figure: Figure, box: tuple[int, int, int, int], norm: Normalize, label: str
) -> None:
    """Draws the colours of the scores between `norm`'s ends, along the longer side of the box.

    Args:
        box: left, top, width, height; ticks and label stand to the right of it, or below.
        norm: the scores of the first and the last colour.
        label: what they are.
    """
    left, top, across, down = box
    width, height = figure.bbox.width, figure.bbox.height
    ax = figure.add_axes((left / width, 1 - (top + down) / height, across / width, down / height))
    direction = "vertical" if down > across else "horizontal"
    bar = figure.colorbar(
        ScalarMappable(norm, COLOURS), cax=ax, extend="both", orientation=direction
    )
    bar.ax.tick_params(labelsize=8)
    bar.set_label(label, fontsize=8)


def save(figure: Figure, path: Path) -> None:
    """Writes the figure as a PNG."""
    with warnings.catch_warnings():
        # A file name may contain a character that the font lacks; it is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path)


def cut(text: str, length: int) -> str:
    """The text in at most so many characters, all of which can be drawn."""
    text = drawable(text)
    return text if len(text) <= length else text[: length - 1] + "…"
