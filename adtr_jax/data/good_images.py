"""Good images to train on, as they come: a flat folder, a folder in MVTec layout, or a list."""

import functools
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from adtr_jax.config import Bits
from adtr_jax.data import bit_depth
from adtr_jax.data.inputs import Decoded, Picture, decoded, depths, images_below
from adtr_jax.data.layout import Listing, require_spelling
from adtr_jax.data.lazy import LazyArray, digest
from adtr_jax.data.samples import GOOD
from adtr_jax.data.walk import walk
from adtr_jax.errors import InputError


@dataclass(frozen=True, eq=False)
class GoodImages:
    """Different good images, as the model sees them.

    Attributes:
        pixels: `[n s s 3]`, RGB in 0..255; those of files are decoded when they are used.
        digests: of each image's pixels, 16 hexadecimal digits.
        repeated: how many images were left out because they are the same as another one.
        sizes: width and height of the files in pixels, the most frequent first.
    """

    pixels: UInt8[LazyArray, "n s s 3"]
    digests: tuple[str, ...]
    repeated: int
    sizes: tuple[tuple[int, int], ...]

    @classmethod
    def read(
        cls,
        images: "str | Path | Iterable[Picture]",
        size: int,
        crop: float,
        bits: Bits | None = None,
    ) -> "GoodImages":
        """Reads and checks all images before anything is trained.

        Args:
            images: a folder of images, or one in MVTec layout, of which train/good is read; or the
                images themselves.
            size: side s in pixels.
            crop: the share of each side that is kept.
            bits: how many bits of 16-bit images are used, as `bits` finds; None: they have 8.

        Raises:
            InputError: no folder, no images, or one that cannot be read.
        """
        found: dict[str, Path | UInt8[np.ndarray, "s s 3"]] = {}
        sizes: Counter[tuple[int, int]] = Counter()
        pictures = files(Path(images)) if isinstance(images, str | Path) else images
        for image in decoded(pictures, size, crop, bits=bits):
            if image.pixels is None or image.image is None:
                raise InputError(f"{image.error}")
            sizes[image.image.size] += 1
            found.setdefault(digest(image.pixels), image.path or image.pixels)
        if not found:
            raise InputError("there are no good images to train on: give a folder of them")
        known = tuple(size for size, _ in sizes.most_common())
        repeated = sizes.total() - len(found)
        read = functools.partial(_pixels, size=size, crop=crop, bits=bits)
        row, digests = (size, size, 3), tuple(found)
        pixels = LazyArray([*found.values()], read, row, np.dtype(np.uint8), "image", digests)
        return cls(pixels, digests, repeated, known)

    def held_out(self, share: float, seed: int, trained_on: Iterable[str] = ()) -> np.ndarray:
        """Chooses the images to calibrate on, by their content and the seed alone.

        Args:
            share: of all images, in (0, 1).
            seed: of the choice.
            trained_on: digests of images that may not be chosen.

        Returns:
            Whether each image is held out: at least one is, and at least one is not.

        Raises:
            InputError: fewer than two images, or none that may be chosen.
        """
        n, known = len(self.digests), set(trained_on)
        if n < 2:
            raise InputError(
                f"{n} good image is not enough: one is to train on, another to calibrate on; a "
                "hundred are a good number"
            )
        free = [i for i in range(n) if self.digests[i] not in known]
        if not free:
            raise InputError(
                "the model to go on from was trained on all of these good images, so none is left "
                "to calibrate on: add some that it has not seen"
            )
        order = sorted(free, key=lambda i: _order(seed, self.digests[i]))
        chosen = np.zeros(n, bool)
        chosen[order[: min(max(1, round(share * n)), n - 1)]] = True
        return chosen


def bits(images: "str | Path | Iterable[Picture]", given: Bits | None) -> Bits | None:
    """How many bits of 16-bit images are used (see `bit_depth`); None: they have 8.

    Args:
        images: as `GoodImages.read` takes them. If they can be had only once, `given` counts.
        given: what the user says, if anything.

    Raises:
        InputError: images that cannot be read, or of different depths.
    """
    pictures = files(Path(images)) if isinstance(images, str | Path) else images
    if not isinstance(pictures, Sequence):
        return given
    names = [p if isinstance(p, str | Path) else "an image in memory" for p in pictures]
    return bit_depth.common(depths(pictures, given), names, given)


def _pixels(
    items: Sequence[Path | UInt8[np.ndarray, "s s 3"]], size: int, crop: float, bits: Bits | None
) -> UInt8[np.ndarray, "n s s 3"]:
    """Decodes those images that are files."""
    files = decoded([item for item in items if isinstance(item, Path)], size, crop, bits=bits)
    pixels = []
    for item in items:
        image = next(files) if isinstance(item, Path) else Decoded(None, None, item, None)
        if image.pixels is None:
            raise InputError(f"{image.error}")
        pixels.append(image.pixels)
    return np.stack(pixels)


def _order(seed: int, digest: str) -> str:
    return hashlib.sha256(f"{seed} {digest}".encode()).hexdigest()


def files(folder: Path) -> list[Path]:
    """Lists the good images in a folder, or in the train/good of one in MVTec layout.

    Raises:
        InputError: it is no folder, or holds none.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}: give a folder of good images")
    require_spelling(Listing.of(walk(folder, depth=2), folder.as_posix()))
    inside = folder / "train" / GOOD
    if not inside.is_dir():
        categories = sorted(path.parent.parent for path in folder.glob(f"*/train/{GOOD}"))
        if categories:
            raise InputError(
                f"{folder} holds {len(categories)} categories in MVTec layout: give one of them, "
                f"such as {categories[0]}"
            )
        inside = folder
    files = list(images_below(inside))
    if not files:
        raise InputError(f"{inside} holds no images: put good ones there")
    return files
