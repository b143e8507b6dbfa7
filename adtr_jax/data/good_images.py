"""Good images to train on, as they come: a flat folder, a folder in MVTec layout, or a list."""

import functools
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, UInt8

from adtr_jax.config import Bits
from adtr_jax.data import bit_depth
from adtr_jax.data.inputs import Decoded, Picture, decoded, depths, images_below
from adtr_jax.data.layout import Listing, require_spelling
from adtr_jax.data.lazy import LazyArray, digest
from adtr_jax.data.samples import GOOD
from adtr_jax.data.walk import walk
from adtr_jax.errors import InputError

# A folder of images, or one in MVTec layout, of which train/good is read; or the images themselves.
Source = str | Path | Iterable[Picture]


@dataclass(frozen=True, eq=False)
class GoodImages:
    """Different good images, as the model sees them.

    Attributes:
        pixels: `[n s s 3]`, RGB in 0..255; those of files are decoded when they are used.
        digests: of each image's pixels, 16 hexadecimal digits.
        repeated: how many images were left out because they are the same as another one.
        names: of the products; "" of the only one.
        products: which of `names` each image shows.
        sizes: by product, width and height of the files in pixels, the most frequent first.
    """

    pixels: UInt8[LazyArray, "n s s 3"]
    digests: tuple[str, ...]
    repeated: int
    names: tuple[str, ...]
    products: Int[np.ndarray, "n"]
    sizes: tuple[tuple[tuple[int, int], ...], ...]

    @classmethod
    def read(
        cls,
        images: Source | Mapping[str, Source],
        size: int,
        crop: float,
        bits: Bits | None = None,
    ) -> "GoodImages":
        """Reads and checks all images before anything is trained.

        Args:
            images: of one product, or by the names of several.
            size: side s in pixels.
            crop: the share of each side that is kept.
            bits: how many bits of 16-bit images are used, as `bits` finds; None: they have 8.

        Raises:
            InputError: no folder, no images, or one that cannot be read.
        """
        found: dict[str, tuple[Path | UInt8[np.ndarray, "s s 3"], int]] = {}
        by_name = _by_name(images)
        sizes: list[Counter[tuple[int, int]]] = [Counter() for _ in by_name]
        for product, source in enumerate(by_name.values()):
            for image in decoded(_pictures(source), size, crop, bits=bits):
                if image.pixels is None or image.image is None:
                    raise InputError(f"{image.error}")
                sizes[product][image.image.size] += 1
                found.setdefault(digest(image.pixels), (image.path or image.pixels, product))
        if not found:
            raise InputError("there are no good images to train on: give a folder of them")
        items, products = zip(*found.values(), strict=True)
        read = functools.partial(_pixels, size=size, crop=crop, bits=bits)
        row, digests = (size, size, 3), tuple(found)
        return cls(
            pixels=LazyArray([*items], read, row, np.dtype(np.uint8), "image", digests),
            digests=digests,
            repeated=sum(count.total() for count in sizes) - len(found),
            names=tuple(by_name),
            products=np.array(products),
            sizes=tuple(tuple(size for size, _ in count.most_common()) for count in sizes),
        )

    def held_out(self, share: float, seed: int, trained_on: Iterable[str] = ()) -> np.ndarray:
        """Chooses the images to calibrate on, by their content and the seed alone.

        Args:
            share: of each product's images, in (0, 1).
            seed: of the choice.
            trained_on: digests of images that may not be chosen.

        Returns:
            Whether each image is held out: of each product at least one is, and one is not.

        Raises:
            InputError: fewer than two images of a product, or none that may be chosen.
        """
        chosen, known = np.zeros(len(self.digests), bool), set(trained_on)
        for product, name in enumerate(self.names):
            label = f"{name}: " if name else ""
            own = np.flatnonzero(self.products == product)
            n = len(own)
            if n < 2:
                raise InputError(
                    f"{label}{n} good image is not enough: one is to train on, another to "
                    "calibrate on; a hundred are a good number"
                )
            free = [i for i in own if self.digests[i] not in known]
            if not free:
                raise InputError(
                    f"{label}the model to go on from was trained on all of these good images, so "
                    "none is left to calibrate on: add some that it has not seen"
                )
            order = sorted(free, key=lambda i: _order(seed, self.digests[i]))
            chosen[order[: min(max(1, round(share * n)), n - 1)]] = True
        return chosen

    def folds(self, count: int, seed: int) -> list[Bool[np.ndarray, "n"]]:
        """Deals the images of each product into folds.

        Args:
            count: of the folds.
            seed: of the order in which they are dealt.

        Returns:
            Of each fold, whether each image is in it.

        Raises:
            InputError: there are more folds than images of a product.
        """
        fold, rng = np.zeros(len(self.digests), int), np.random.default_rng(seed)
        for product, name in enumerate(self.names):
            own = np.flatnonzero(self.products == product)
            if count > len(own):
                which = f"of {name}" if name else "different images"
                raise InputError(f"--folds={count} of {len(own)} {which}: give at most {len(own)}")
            fold[own] = rng.permutation(len(own)) % count
        return [fold == i for i in range(count)]


def bits(images: Source | Mapping[str, Source], given: Bits | None) -> Bits | None:
    """How many bits of 16-bit images are used (see `bit_depth`); None: they have 8.

    Args:
        images: as `GoodImages.read` takes them. If they can be had only once, `given` counts.
        given: what the user says, if anything.

    Raises:
        InputError: images that cannot be read, or of different depths.
    """
    sources = [_pictures(source) for source in _by_name(images).values()]
    pictures: list[Picture] = []
    for some in sources:
        if not isinstance(some, Sequence):
            return given
        pictures += some
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


def _by_name(images: Source | Mapping[str, Source]) -> Mapping[str, Source]:
    """The products by name; "" is the only one's."""
    if not isinstance(images, Mapping):
        return {"": images}
    if len(images) < 2:
        raise InputError(
            f"one model of {len(images)} product: give two or more, or the images without a name"
        )
    return images


def _pictures(source: Source) -> Iterable[Picture]:
    return files(Path(source)) if isinstance(source, str | Path) else source


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
                f"such as {categories[0]}, or all of them to adtr-jax fit --unified"
            )
        inside = folder
    files = list(images_below(inside))
    if not files:
        raise InputError(f"{inside} holds no images: put good ones there")
    return files
