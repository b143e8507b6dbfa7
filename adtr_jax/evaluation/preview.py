"""A small picture of an image in two layers: the image, and the score map in transparent colours.

They are what the HTML report shows. In two layers the reader can fade the colours, and both are
much smaller than an `overlay` at the image's own size. Importing this costs no more than Pillow.
"""

import io
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from adtr_jax.data.images import centre_crop
from adtr_jax.evaluation.inferno import INFERNO
from adtr_jax.files.atomic import write_unsynced
from adtr_jax.files.results_folder import PREVIEWS

SIDE = 640  # of the image, its longer one, in pixels
QUALITY = 82  # of the JPEG
MAP_SIDE = 96  # of the score map; enlarged again, it is as smooth as it was
LEVELS = 64  # of colour: fewer would be seen as bands, more would not be seen
_STEP = 256 // LEVELS


@dataclass(frozen=True)
class Preview:
    """The two layers, encoded.

    Attributes:
        image: a JPEG whose longer side is at most `SIDE`.
        colours: a square PNG of the score map, to be stretched over the whole image; transparent
            towards the start of the scale, and where the map does not reach.
    """

    image: bytes
    colours: bytes

    @classmethod
    def of(
        cls,
        image: Image.Image,
        score_map: Float[np.ndarray, "s s"],
        scale: tuple[float, float],
        crop: float = 1.0,
    ) -> "Preview":
        """Draws both layers.

        Args:
            image: of mode "RGB" or "L" and any size.
            score_map: higher is more anomalous.
            scale: the scores of the first and the last colour; what lies outside takes theirs.
            crop: the share of the image's sides that the map is of, around the centre.
        """
        return cls(encode(image, SIDE, QUALITY), _colours(score_map, scale, crop))

    def save(self, file: Path) -> None:
        """Writes FILE.jpg and FILE.png; their folder must exist."""
        for layer, data in zip(layers(file), (self.image, self.colours), strict=True):
            write_unsynced(layer, data)


def layers(file: Path) -> tuple[Path, Path]:
    """Where the image and the colours of a preview lie; its name may have dots."""
    return file.with_name(f"{file.name}.jpg"), file.with_name(f"{file.name}.png")


def encode(image: Image.Image, side: int, quality: int) -> bytes:
    """The image as a JPEG whose longer side is at most `side`, in pixels."""
    factor = side / max(image.size)
    if factor < 1:
        width, height = (max(round(factor * length), 1) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality, optimize=True)
    return data.getvalue()


def _colours(score_map: Float[np.ndarray, "s s"], scale: tuple[float, float], crop: float) -> bytes:
    whole, before = centre_crop(len(score_map), crop)
    low, high = scale
    shares = np.clip((score_map.astype(np.float32) - low) / (high - low), 0, 1)
    small = Image.fromarray(np.float32(LEVELS) * shares)
    ratio = min(MAP_SIDE / whole, 1)
    inner = max(round(ratio * len(score_map)), 1)
    small = small.resize((inner, inner), Image.Resampling.BILINEAR)
    levels = np.zeros((max(round(ratio * whole), 1),) * 2, np.uint8)
    first = round(ratio * before)
    inside = slice(first, first + inner)
    levels[inside, inside] = np.minimum(np.asarray(small), LEVELS - 1)
    picture = Image.fromarray(levels)
    picture.putpalette(INFERNO[_STEP // 2 :: _STEP].tobytes())
    # As in `overlay`: full in the upper half, and from there down to nothing.
    opaque = bytes(min(255 * 2 * i // LEVELS, 255) for i in range(LEVELS))
    data = io.BytesIO()
    picture.save(data, "PNG", transparency=opaque, compress_level=9)
    return data.getvalue()


Job = tuple[str, Callable[[], Image.Image], Float[np.ndarray, "s s"]]


def save_previews(
    directory: Path, jobs: Sequence[Job], scale: tuple[float, float], crop: float
) -> list[tuple[int, int]]:
    """Writes previews in threads to `directory/previews`, which is emptied first.

    Args:
        jobs: the name of the file without endings, a call that returns the image, and the score
            map, of each preview.
        scale, crop: as of `Preview.of`.

    Returns:
        The width and height of each image.
    """
    folder = directory / PREVIEWS
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def save(job: Job) -> tuple[int, int]:
        name, read, score_map = job
        image = read()
        Preview.of(image, score_map, scale, crop).save(folder / name)
        return image.size

    with ThreadPoolExecutor() as pool:
        return list(pool.map(save, jobs))
