"""Makes the small data set behind the README's picture: a brick wall, and gravel and grass on it.

    pip install scikit-image
    python docs/brick_wall.py runs/textures
    python -m experiments.mvtec --category=brick_wall --data=runs/textures --preset=fast \
        --backbone=efficientnet-lite2 --image_size=128 --out=runs/brick_wall

The picture of the report is of `adtr-jax fit` on the same data and `evaluate --false_alarms=0.05`.
The three photographs (CC0) come with scikit-image. Crops of the wall's upper part are the normal
training images; crops of its lower part are the test images, normal as they are, or with a spot of
another material blended in. MVTec-AD's layout, 128 px.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage import data

SIDE, SPLIT = 128, 320
TRAIN, TEST = 160, 24


def crop(photograph: np.ndarray, top: int, bottom: int, rng: np.random.Generator) -> np.ndarray:
    """A random square whose rows lie in `top`..`bottom`."""
    y = rng.integers(top, bottom - SIDE + 1)
    x = rng.integers(photograph.shape[1] - SIDE + 1)
    return photograph[y : y + SIDE, x : x + SIDE]


def spot(rng: np.random.Generator) -> np.ndarray:
    """A blob of about 10 to 40 pixels across somewhere in the image, 0 outside, 1 inside."""
    centre = rng.uniform(0.2 * SIDE, 0.8 * SIDE, 2)
    radius = rng.uniform(6, 20)
    y, x = np.mgrid[:SIDE, :SIDE] - centre[:, None, None]
    noise = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 6)
    return gaussian_filter((np.hypot(y, x) < radius * (1 + 8 * noise)).astype(float), 1)


def save(folder: Path, name: str, pixels: np.ndarray) -> None:
    """Writes one grey PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(folder / name)


def main(root: Path) -> None:
    """Writes all images and masks."""
    rng = np.random.default_rng(0)
    wall, materials = data.brick(), {"gravel": data.gravel(), "grass": data.grass()}
    base = root / "brick_wall"
    for i in range(TRAIN):
        save(base / "train/good", f"{i:03}.png", crop(wall, 0, SPLIT, rng))
    for i in range(TEST):
        save(base / "test/good", f"{i:03}.png", crop(wall, SPLIT, 512, rng))
        for name, photograph in materials.items():
            alpha = spot(rng)
            foreign = crop(photograph, 0, 512, rng)
            image = (1 - alpha) * crop(wall, SPLIT, 512, rng) + alpha * foreign
            save(base / "test" / name, f"{i:03}.png", image)
            save(base / "ground_truth" / name, f"{i:03}_mask.png", 255 * (alpha > 0.5))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
