"""Perlin-noise blends: another texture, visible in blobs.

Zavrtanik et al., "DRAEM: A Discriminatively Trained Reconstruction Embedding for Surface Anomaly
Detection", ICCV 2021. DRAEM takes its textures from the data set DTD, which would be another
download; here they come from another image of the set, cut into 8 x 8 tiles that are shuffled, with
strong changes of contrast (inverted half of the time), brightness, saturation and hue.
"""

import numpy as np
from jaxtyping import Float, UInt8

from adtr_jax.data.lazy import LazyArray
from adtr_jax.data.synthetic.pixels import recolour, to_uint8

LARGEST_POWER = 5  # lattice cells along each side of the image: 1, 2, 4, 8, 16 or 32
THRESHOLD = 0.5
TRANSPARENCY = (0.1, 0.8)
TILES = 8


def draw(
    rng: np.random.Generator,
    image: UInt8[np.ndarray, "s s 3"],
    earlier: UInt8[np.ndarray | LazyArray, "k s s 3"],
) -> UInt8[np.ndarray, "s s 3"]:
    """Blend a texture into the image where Perlin noise is above 0.5.

    There the result is `beta I + (1 - beta) A`, with the image I, the texture A and a transparency
    beta in [0.1, 0.8]. A is made of one of the earlier images; for the first image, of itself.
    """
    noise = random_noise(rng, len(image))
    other = rng.integers(max(len(earlier), 1))
    texture = _texture(rng, earlier[other] if len(earlier) else image)
    beta = rng.uniform(*TRANSPARENCY)
    blend = to_uint8(beta * image + (1 - beta) * texture)
    return np.where((noise > THRESHOLD)[..., None], blend, image)


def random_noise(rng: np.random.Generator, size: int) -> Float[np.ndarray, "{size} {size}"]:
    """Return Perlin noise in [-1, 1], its lattice randomly scaled per axis, rotated and shifted."""
    scale = 2 ** rng.integers(LARGEST_POWER + 1, size=2)
    angle = rng.uniform(-np.pi / 2, np.pi / 2)
    offset = rng.uniform(0, 1, 2)
    # The rotated image is at most sqrt(2) of its side wide: no gradient is used twice.
    directions = rng.uniform(0, 2 * np.pi, 2 * scale + 2)
    gradients = np.stack([np.cos(directions), np.sin(directions)], axis=-1)
    pixels = (np.arange(size) + 0.5) / size - 0.5
    y, x = pixels[:, None], pixels[None, :]
    return perlin_noise(
        (np.cos(angle) * y + np.sin(angle) * x) * scale[0] + offset[0],
        (np.cos(angle) * x - np.sin(angle) * y) * scale[1] + offset[1],
        gradients,
    )


def perlin_noise(
    y: Float[np.ndarray, "h w"], x: Float[np.ndarray, "h w"], gradients: Float[np.ndarray, "p q 2"]
) -> Float[np.ndarray, "h w"]:
    """Return Perlin's gradient noise (2002, quintic fade) in [-1, 1], 0 at integer y and x.

    Args:
        y, x: Coordinates of the points.
        gradients: Unit vectors at the lattice points, repeated beyond p x q.
    """
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    total = np.zeros_like(y)
    for row, column in ((top + i, left + j) for i in (0, 1) for j in (0, 1)):
        v, u = y - row, x - column
        slope = gradients[row % gradients.shape[0], column % gradients.shape[1]]
        height = slope[..., 0] * v + slope[..., 1] * u
        total += _fade(1 - np.abs(v)) * _fade(1 - np.abs(u)) * height
    return np.sqrt(2) * total  # unit gradients reach sqrt(1/2)


def _fade(t: np.ndarray) -> np.ndarray:
    """Return 6 t^5 - 15 t^4 + 10 t^3: from 0 to 1, slope and curvature 0 at both ends."""
    return t * t * t * (t * (6 * t - 15) + 10)


def _texture(
    rng: np.random.Generator, image: UInt8[np.ndarray, "s s 3"]
) -> UInt8[np.ndarray, "s s 3"]:
    return recolour(
        _shuffle_tiles(rng, image),
        turn=rng.uniform(0, 1),
        saturation=rng.uniform(0.5, 1.5),
        contrast=rng.uniform(0.5, 1.5) * rng.choice((-1, 1)),
        brightness=rng.uniform(-96, 96),
    )


def _shuffle_tiles(
    rng: np.random.Generator, image: UInt8[np.ndarray, "s s 3"]
) -> UInt8[np.ndarray, "s s 3"]:
    """Permute the image's 8 x 8 tiles; if 8 does not divide s, it is padded by reflection."""
    size = len(image)
    side = -(-size // TILES)
    padding = (0, side * TILES - size)
    padded = np.pad(image, (padding, padding, (0, 0)), mode="reflect")
    tiles = padded.reshape(TILES, side, TILES, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    grid = rng.permutation(tiles).reshape(TILES, TILES, side, side, 3)
    return grid.swapaxes(1, 2).reshape(padded.shape)[:size, :size]
