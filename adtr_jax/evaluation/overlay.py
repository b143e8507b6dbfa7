"""The picture of one prediction: where the score is high on the image, and the verdict in words.

At the image's own size, so that it can be laid beside the image or over it. Places are in pixels,
counted from the top left corner. Importing this costs no more than Pillow.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from adtr_jax.data.images import centre_crop
from adtr_jax.evaluation.inferno import INFERNO
from adtr_jax.evaluation.results import RegionLike

# Share of the colour in the upper half of the scale. Towards the scale's start it falls to nothing,
# for there the colours are nearly black, and the image below would be too dark to see.
OPACITY = 0.65
_FULL = 128
OUTLINE = (64, 224, 255)  # no colour of the scale's
_DARK = (16, 16, 20)
_SMALLEST_TEXT = 12  # pixels, below which words are hard to read
_LARGEST_LABEL = 1 / 8  # of the picture's area; where it would take more, it gets a strip below

_Box = tuple[int, int, int, int]


def overlay(
    image: Image.Image,
    score_map: Float[np.ndarray, "s s"],
    scale: tuple[float, float],
    crop: float = 1.0,
    regions: Sequence[RegionLike] = (),
    *,
    caption: str | None = None,
    opacity: float = OPACITY,
) -> Image.Image:
    """The score map in colours over the grey image, with its regions outlined.

    Args:
        image: The image at its original size w x h, mode "RGB" or "L".
        score_map: Of the image as `images.resized` makes it; higher is more anomalous. It is
            enlarged by bilinear interpolation.
        scale: The scores of the first and the last colour; what lies outside takes their colours.
        crop: The share of each side that the map is of, around the centre. The rest stays grey.
        regions: What is outlined, just outside of each box.
        caption: The verdict, in ASCII. It goes into a corner, where it covers least of the regions,
            and its letters grow with the image.
        opacity: The share of the colour in the upper half of the scale, 0 to 1; in the lower half
            it grows from 0 to that.

    Returns:
        "RGB" at w x h. Only where the caption would not fit, or would cover more than an eighth of
        the picture (30 letters: below about 200 x 200), it stands in a strip below, and the picture
        is higher by that and, if need be, wider; the image's pixels keep their places.

    Raises:
        ValueError: if the scale's end is not above its start.
    """
    if not scale[0] < scale[1]:
        raise ValueError(f"the scale ends at {scale[1]}, which is not above its start, {scale[0]}")
    picture = image.convert("L").convert("RGB")
    part, place = _placed(image.size, score_map.shape[0], crop)
    scores = Image.fromarray(np.asarray(score_map, np.float32)).resize(
        (place[2] - place[0], place[3] - place[1]), Image.Resampling.BILINEAR, part
    )
    colours = _index(scores, scale)
    shares = colours.point([round(255 * opacity * min(i / _FULL, 1)) for i in range(256)])
    colours.putpalette(INFERNO.tobytes())
    picture.paste(colours.convert("RGB"), place, shares)
    for region in regions:
        _outline(picture, region.box)
    return picture if caption is None else _captioned(picture, caption, regions)


def _index(scores: Image.Image, scale: tuple[float, float]) -> Image.Image:
    """Mode "F", a score in [low, high] -> mode "L", i = floor(256 (score - low) / (high - low)).

    By Pillow alone, without arrays of floats three times the size of a large image.
    """
    factor = 256 / (scale[1] - scale[0])
    return scores.point(lambda score: score * factor - scale[0] * factor).convert("L")


def _placed(
    size: tuple[int, int], side: int, crop: float
) -> tuple[tuple[float, float, float, float], _Box]:
    """Which part of the map the image's pixels show, and which pixels these are, as boxes.

    They are the pixels whose centres lie in the crop, at least one.
    """
    whole, before = centre_crop(side, crop)
    part, place = [], []
    for length in size:
        ratio = whole / length
        first = math.ceil(before / ratio - 0.5)
        last = max(math.ceil((before + side) / ratio - 0.5), first + 1)
        place.append((first, last))
        part.append((max(first * ratio - before, 0.0), min(last * ratio - before, float(side))))
    (left, right), (top, bottom) = part
    (x, x_end), (y, y_end) = place
    return (left, top, right, bottom), (x, y, x_end, y_end)


def _outline(picture: Image.Image, box: _Box) -> None:
    """A bright line around the box, with dark ones beside it where there is room."""
    width, height = picture.size
    line = max(round(math.sqrt(width * height) / 280), 1)
    edge = line // 2
    draw = ImageDraw.Draw(picture)
    for out, thickness, colour in ((line + edge, line + 2 * edge, _DARK), (line, line, OUTLINE)):
        left, top = (max(side - out, 0) for side in box[:2])
        right, bottom = min(box[2] + out, width) - 1, min(box[3] + out, height) - 1
        draw.rectangle((left, top, right, bottom), outline=colour, width=thickness)


def _captioned(picture: Image.Image, caption: str, regions: Sequence[RegionLike]) -> Image.Image:
    width, height = picture.size
    text = max(round(math.sqrt(width * height) * 0.032), _SMALLEST_TEXT)
    room = width - 2 * _margin(text)
    if _label_size(caption, text)[0] > room:
        text = max(text * room // _label_size(caption, text)[0], _SMALLEST_TEXT)
    label = _label_size(caption, text)
    if label[0] > room or label[0] * label[1] > _LARGEST_LABEL * width * height:
        wide = Image.new("RGB", (max(width, label[0]), height + label[1]), _DARK)
        wide.paste(picture, (0, 0))
        _write(wide, caption, text, (0, height))
        return wide
    x, y = _margin(text), _margin(text)
    corners = [(a, b) for b in (y, height - y - label[1]) for a in (x, width - x - label[0])]
    corner = min(corners, key=lambda c: sum(_common(c, label, region.box) for region in regions))
    backdrop = Image.new("L", (4 * label[0], 4 * label[1]))  # reduced again, for smooth corners
    box = (0, 0, backdrop.width - 1, backdrop.height - 1)
    ImageDraw.Draw(backdrop).rounded_rectangle(box, radius=2 * text, fill=205)
    picture.paste(_DARK, (*corner, corner[0] + label[0], corner[1] + label[1]), backdrop.reduce(4))
    _write(picture, caption, text, corner)
    return picture


def _margin(text: int) -> int:
    return round(0.5 * text)


def _label_size(caption: str, text: int) -> tuple[int, int]:
    """Width and height of the caption and its backdrop, for letters of so many pixels."""
    return math.ceil(_font(text).getlength(caption)) + 2 * round(0.6 * text), round(1.7 * text)


def _write(picture: Image.Image, caption: str, text: int, corner: tuple[int, int]) -> None:
    place = (corner[0] + round(0.6 * text), corner[1] + round(0.85 * text))
    ImageDraw.Draw(picture).text(place, caption, "white", _font(text), anchor="lm")


def _common(corner: tuple[int, int], label: tuple[int, int], box: _Box) -> int:
    """The pixels that a label in a corner has in common with a box."""
    width = min(corner[0] + label[0], box[2]) - max(corner[0], box[0])
    height = min(corner[1] + label[1], box[3]) - max(corner[1], box[1])
    return max(width, 0) * max(height, 0)


@lru_cache(maxsize=8)
def _font(text: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(text)
