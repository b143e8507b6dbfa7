"""Images for the benchmarks. Imports neither JAX nor PyTorch."""

from pathlib import Path

import numpy as np
from PIL import Image


def random_images(count: int, side: int) -> np.ndarray:
    """Returns patches with a little noise, RGB `[n s s 3]` in 0..255, the same on every call."""
    rng = np.random.default_rng(0)
    patches = rng.integers(40, 216, (count, side // 8 + 1, side // 8 + 1, 3), np.uint8)
    whole = patches.repeat(8, axis=1).repeat(8, axis=2)[:, :side, :side]
    return whole + rng.integers(0, 8, whole.shape, np.uint8)


def write_images(folder: Path, count: int, side: int) -> list[Path]:
    """Writes PNG files of `side` x `side` pixels."""
    files = [folder / f"{index:03}.png" for index in range(count)]
    for file, image in zip(files, random_images(count, side), strict=True):
        Image.fromarray(image).save(file)
    return files
