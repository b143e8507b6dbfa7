"""Confetti: blurred rectangles, coloured or dark, added to the image.

After Liznerski et al., "Explainable Deep One-Class Classification", ICLR 2021, with the parameters
of the ADTR paper's MVTec-AD experiments.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from scipy.special import ndtr

from adtr_jax.data.lazy import LazyArray
from adtr_jax.data.synthetic.pixels import to_uint8

# Lengths are in pixels of an image of this side, densities in rectangles per pixel of it. Both
# scale with s: the number of rectangles and the fraction that they cover are the same at every s.
SIDE = 224
COLOURED, DARK = 1.8e-5 * SIDE**2, 1.2e-5 * SIDE**2  # 0.90 and 0.60 per image
SHORTEST, LONGEST = 8.0, 54.0
SIGMA = 5.0
MAX_ANGLE = np.pi / 4


@dataclass(frozen=True)
class Rectangle:
    """A rectangle of one colour; lengths in pixels, rows before columns.

    Attributes:
        centre: From the top left corner of the image.
        sides: Before the rotation.
        angle: In radians, from the rows' axis towards the columns' axis.
        colour: The values added: [0, 255] in each channel, or -255 in all for a dark one.
    """

    centre: Float[np.ndarray, "2"]
    sides: Float[np.ndarray, "2"]
    angle: float
    colour: Float[np.ndarray, "3"]


def draw(
    rng: np.random.Generator,
    image: UInt8[np.ndarray, "s s 3"],
    earlier: UInt8[np.ndarray | LazyArray, "k s s 3"],
) -> UInt8[np.ndarray, "s s 3"]:
    """Add blurred rectangles to the image and clip."""
    del earlier
    added = np.zeros(image.shape)
    for rectangle in draw_rectangles(rng, len(added)):
        window, coverage = blurred(rectangle, len(added))
        added[window] += coverage[..., None] * rectangle.colour
    return to_uint8(image + added)


def draw_rectangles(rng: np.random.Generator, size: int) -> list[Rectangle]:
    """Return at least one rectangle, in pixels of an image of side `size`.

    Their numbers are Poisson distributed (the limit of drawing at each pixel whether one is centred
    there) and drawn again while both are 0, as in 22 % of the draws: the means become 1.16 coloured
    and 0.77 dark rectangles.
    """
    coloured, dark = rng.poisson((COLOURED, DARK))
    while coloured + dark == 0:
        coloured, dark = rng.poisson((COLOURED, DARK))
    colours = [*rng.uniform(0, 255, (coloured, 3)), *np.full((dark, 3), -255.0)]
    return [
        Rectangle(
            centre=rng.uniform(0, size, 2),
            sides=rng.uniform(SHORTEST, LONGEST, 2) * size / SIDE,
            angle=rng.uniform(-MAX_ANGLE, MAX_ANGLE),
            colour=colour,
        )
        for colour in colours
    ]


def blurred(
    rectangle: Rectangle, size: int
) -> tuple[tuple[slice, slice], Float[np.ndarray, "h w"]]:
    """Return the fraction in [0, 1] of each pixel that a rectangle covers after the Gaussian blur.

    In closed form: a Gaussian is isotropic, so along the rectangle's own axes the blur is the
    product of two differences of the normal distribution function. Parts beyond the image's edge
    are blurred into it.

    Args:
        rectangle: In pixels of the image.
        size: Side s of the image.

    Returns:
        The rows and columns up to four sigma from the rectangle, and the fractions there.
    """
    sigma = SIGMA * size / SIDE
    reach = np.hypot(*rectangle.sides) / 2 + 4 * sigma
    first = np.maximum(np.floor(rectangle.centre - reach), 0).astype(int)
    last = np.minimum(np.ceil(rectangle.centre + reach), size).astype(int)
    window = (slice(first[0], last[0]), slice(first[1], last[1]))
    y = (np.arange(size)[window[0]] + 0.5 - rectangle.centre[0])[:, None]
    x = (np.arange(size)[window[1]] + 0.5 - rectangle.centre[1])[None, :]

    def along(distance: np.ndarray, side: float) -> np.ndarray:
        return ndtr((distance + side / 2) / sigma) - ndtr((distance - side / 2) / sigma)

    cosine, sine = np.cos(rectangle.angle), np.sin(rectangle.angle)
    shares = along(cosine * y + sine * x, rectangle.sides[0])
    shares *= along(cosine * x - sine * y, rectangle.sides[1])
    return window, shares
