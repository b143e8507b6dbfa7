"""Arithmetic on pixel values, shared by the kinds of anomaly."""

import numpy as np
from jaxtyping import Float, UInt8


def to_uint8(pixels: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Round and clip to [0, 255]."""
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def recolour(
    pixels: UInt8[np.ndarray, "h w 3"],
    turn: float,
    saturation: float,
    contrast: float,
    brightness: float,
) -> UInt8[np.ndarray, "h w 3"]:
    """Change the colours; grey stays grey, so that colour gives no anomaly away on grey images.

    Args:
        turn: Turns of the hue circle, a rotation of RGB space about its grey axis; 1 changes
            nothing.
        saturation: Factor of the distance from that axis.
        contrast: Factor of the distance from the mean colour; negative values invert the image.
        brightness: Added to all values.
    """
    mean_of_channels = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)  # axis (1, 1, 1) / sqrt(3)
    angle = 2 * np.pi * turn
    rotation = np.cos(angle) * (np.eye(3) - mean_of_channels) + np.sin(angle) * cross
    colours = pixels @ (mean_of_channels + saturation * rotation).T
    mean = colours.mean((0, 1))
    return to_uint8(mean + contrast * (colours - mean) + brightness)
