"""Makes the README's picture of the synthetic anomalies: one of each kind on a brick wall.

    pip install scikit-image
    python docs/anomalies.py docs/anomalies.png

The photograph (CC0) comes with scikit-image.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from adtr_jax.data.synthetic import KINDS, synthesise

CAPTIONS = {"confetti": "confetti", "cutpaste": "CutPaste", "perlin": "Perlin noise"}
SEEDS = {"confetti": 10, "cutpaste": 8, "perlin": 1}  # draws that show well what a kind does
SIDE, GAP, LEFT, TOP = 256, 6, 30, 30


def wall() -> np.ndarray:
    """A square of the photograph, upright, [1 s s 3]."""
    upright = np.rot90(data.brick())[:SIDE, :SIDE]
    return np.repeat(upright[None, ..., None], 3, axis=-1)


def label(text: str, width: int, height: int) -> Image.Image:
    """Text in the middle of a white rectangle."""
    picture = Image.new("RGB", (width, height), "white")
    font = ImageFont.load_default(15)
    ImageDraw.Draw(picture).text((width / 2, height / 2), text, "black", font, anchor="mm")
    return picture


def main(path: Path) -> None:
    """A column a kind: its name, the image, the mask."""
    step = SIDE + GAP
    sheet = Image.new("RGB", (LEFT + step * len(KINDS) - GAP, TOP + 2 * step - GAP), "white")
    for row, caption in enumerate(("image", "mask")):
        upwards = label(caption, SIDE, LEFT).transpose(Image.Transpose.ROTATE_90)
        sheet.paste(upwards, (0, TOP + row * step))
    for column, kind in enumerate(KINDS):
        images, masks = synthesise(kind, wall(), SEEDS[kind])
        left = LEFT + column * step
        sheet.paste(label(CAPTIONS[kind], SIDE, TOP), (left, 0))
        sheet.paste(Image.fromarray(images[0]), (left, TOP))
        sheet.paste(Image.fromarray(masks[0]), (left, TOP + step))
    sheet.save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
