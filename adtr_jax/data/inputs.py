"""What is to be predicted: from words on the command line to decoded images, a few at a time.

Nothing here holds more than the paths that have been seen and a few images, however many there are.
"""

import functools
import io
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8, UInt16
from PIL import Image

from adtr_jax.config import Bits
from adtr_jax.data import bit_depth
from adtr_jax.data.decode import decoding, eight_bit
from adtr_jax.data.image_file import open_image
from adtr_jax.data.images import resized
from adtr_jax.data.layout import IMAGE_SUFFIXES, SYSTEM_FOLDERS
from adtr_jax.data.samples import File
from adtr_jax.data.walk import walk
from adtr_jax.errors import InputError
from adtr_jax.files import results_folder

STDIN = "-"
# Decoding is seldom what prediction waits for, and each thread may hold two images.
_MAX_WORKERS = 8
AHEAD = 2**30  # bytes of decoded images that wait to be taken, at most


# A file's path, a file's bytes, or the image itself.
Picture = (
    str | Path | bytes | Image.Image | UInt8[np.ndarray, "h w 3"] | UInt16[np.ndarray, "h w 3"]
)


class _Encoded(NamedTuple):
    """The bytes of an image file."""

    data: bytes

    def read_bytes(self) -> bytes:
        return self.data

    def __str__(self) -> str:
        return f"the image of {len(self.data)} bytes"


class Decoded(NamedTuple):
    """An image to predict, or why it cannot be read: either `error` is None, or the arrays are.

    Attributes:
        path: The file; None for an image in memory.
        image: Upright, mode "RGB" or "L", at its original size.
        pixels: What the model sees of it: `images.resized`, values 0 to 255.
        error: One line.
    """

    path: Path | None
    image: Image.Image | None
    pixels: UInt8[np.ndarray, "s s 3"] | None
    error: str | None

    @property
    def nbytes(self) -> int:
        """The memory that the image takes: Pillow has four bytes a pixel in colour."""
        if self.image is None:
            return 0
        return self.image.width * self.image.height * (1 if self.image.mode == "L" else 4)


def expand(words: Sequence[str], stdin: Iterable[str]) -> Iterator[Path]:
    """The files that words name, in their order, each once.

    All words are checked before this returns; folders and standard input are read as the iterator
    goes on.

    Args:
        words: Each a file, which is taken whatever its name; a folder, for which all images below
            it stand (`images_below`); or "-", for the lines of `stdin`: each a file or a folder,
            or a name of nothing, which is passed on, to become an error of that one image.
        stdin: Standard input, or other lines of text. What is not valid Unicode in it is read as
            the file system names files.

    Raises:
        InputError: at once, if a word is neither a file nor a folder, or a folder holds no images.
    """
    for word in words:
        if word == STDIN or os.path.isfile(word):
            continue
        if not os.path.isdir(word):
            raise InputError(
                f"{word or '(an empty name)'} is neither a file nor a folder: check it"
            )
        if next(images_below(Path(word)), None) is None:
            kinds = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
            raise InputError(f"{word} holds no images ({kinds}): give another folder, or files")
    return _expanded(words, stdin)


def images_below(folder: Path) -> Iterator[Path]:
    """The images in a folder and in those below it, sorted folder by folder.

    An image is a file whose name ends as an image's does (`layout.IMAGE_SUFFIXES`). Left out are
    what is hidden, the system's folders, and the pictures in a folder of predictions, which would
    be taken for new images where results are written among the images. Links are followed, but not
    round in a circle. A folder that cannot be listed stands for itself: reading it as an image
    says why.
    """
    return _images_below(folder, ())


def decoded(
    paths: Iterable[Picture],
    size: int,
    crop: float,
    workers: int | None = None,
    *,
    bits: Bits | None = None,
) -> Iterator[Decoded]:
    """Read images in threads, ahead of whoever takes them, in the order of the paths.

    At most `2 * workers` images and `AHEAD` bytes are held here at a time. To be so far ahead, as
    many paths are asked for before the first image is given: where paths arrive one by one
    (`watch`), call this for each of them.

    Args:
        paths: The files, or images in memory; one that cannot be read gives an item with its
            error.
        size: Side s in pixels of what the model sees.
        crop: The share of each side that is kept, as for `images.resized`.
        workers: The number of threads; None: one a processor, at most eight.
        bits: How many bits of 16-bit images are used (`bit_depth`); None: they have 8.

    Yields:
        One item a path. When the iterator is closed, no thread goes on after its present image.
    """
    workers = workers or min(os.cpu_count() or 1, _MAX_WORKERS)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    ahead: deque[Future[Decoded]] = deque()
    room = _Room(AHEAD)

    def take() -> Decoded:
        found = ahead.popleft().result()
        room.taken()
        return found

    try:
        for index, path in enumerate(paths):
            enter = functools.partial(room.enter, index)
            ahead.append(pool.submit(_decode, path, size, crop, bits, enter))
            if len(ahead) == 2 * workers:
                yield take()
        while ahead:
            yield take()
    finally:
        room.close()
        pool.shutdown(cancel_futures=True)


def depths(pictures: Sequence[Picture], bits: Bits | None = None) -> Int[np.ndarray, " n"]:
    """`bit_depth.depth` of each picture; raises InputError for the first that cannot be read."""

    def depth(picture: Picture) -> int:
        file = _file(picture)
        if file is not None:
            return bit_depth.depth(file, bits)
        values = np.asarray(picture)
        if values.dtype != np.uint16:
            return bit_depth.EIGHT
        return bits or bit_depth.holding(int(values.max(initial=0)))

    with ThreadPoolExecutor() as pool:
        return np.array(list(pool.map(depth, pictures)), int)


def _expanded(words: Sequence[str], stdin: Iterable[str]) -> Iterator[Path]:
    seen: set[str] = set()
    for word in words:
        for path in _lines(stdin) if word == STDIN else _files(word):
            absolute = os.path.abspath(path)
            if absolute not in seen:
                seen.add(absolute)
                yield path


def _lines(stdin: Iterable[str]) -> Iterator[Path]:
    if isinstance(stdin, io.TextIOWrapper) and stdin.errors != "surrogateescape":
        stdin.reconfigure(errors="surrogateescape")  # as `os` names files
    for line in stdin:
        name = line.rstrip("\r\n")
        if name:
            yield from _files(name)


def _files(word: str) -> Iterator[Path]:
    return images_below(Path(word)) if os.path.isdir(word) else iter((Path(word),))


def _images_below(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        names = list(walk(folder, depth=1))
    except (InputError, OSError):
        yield folder
        return
    for name in names:
        if name.startswith("."):
            continue
        if not name.endswith("/"):
            if name.lower().endswith(IMAGE_SUFFIXES):
                yield folder / name
        elif not _is_left_out(name.rstrip("/"), names):
            yield from _images_below(folder / name, (*above, real))


def _is_left_out(name: str, siblings: Sequence[str]) -> bool:
    if name in (results_folder.OVERLAYS, results_folder.PREVIEWS):
        return results_folder.JSONL in siblings
    return name in SYSTEM_FOLDERS


class _Room:
    """The bytes that images may take which wait to be taken, in the order of their numbers.

    The one that is waited for always enters; else it might wait for those behind it.
    """

    def __init__(self, total: int):
        self._total, self._first, self._closed = total, 0, False
        self._sizes: dict[int, int] = {}
        self._changed = threading.Condition()

    def enter(self, index: int, size: int) -> None:
        """Waits until there is room."""

        def fits() -> bool:
            return sum(self._sizes.values()) + size <= self._total

        with self._changed:
            self._changed.wait_for(lambda: self._closed or index == self._first or fits())
            self._sizes[index] = size

    def taken(self) -> None:
        """The first has been taken."""
        with self._changed:
            self._sizes.pop(self._first, None)
            self._first += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Lets all enter."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _decode(
    picture: Picture, size: int, crop: float, bits: Bits | None, enter: Callable[[int], None]
) -> Decoded:
    path = Path(picture).expanduser() if isinstance(picture, str | Path) else None
    try:
        file = _file(picture)
        if file is None:
            image = _in_memory(picture, bits)
            return Decoded(path, image, resized(image, size, crop), None)
        opened = open_image(file)
        width, height = opened.size
        enter(4 * width * height)
        with decoding(opened, bits) as image:
            return Decoded(path, image, resized(image, size, crop), None)
    except (InputError, OSError, ValueError, MemoryError) as error:
        reason = str(error) or f"{path or 'an image'} is too large for the memory: scale it down"
        return Decoded(path, None, None, " ".join(reason.split()))


def _file(picture: Picture) -> File | None:
    """The picture's file; None if it is an image in memory."""
    if isinstance(picture, str | Path):
        return Path(picture).expanduser()
    return _Encoded(picture) if isinstance(picture, bytes) else None


def _in_memory(picture: object, bits: Bits | None) -> Image.Image:
    name = "an image in memory"
    if isinstance(picture, Image.Image):
        bit_depth.require(bit_depth.is_16_bit(picture.mode), bits, name)
        return eight_bit(picture, bits, name)
    array = np.asarray(picture)
    if array.dtype not in (np.uint8, np.uint16) or array.shape[2:] != (3,) or not array.size:
        raise InputError(
            f"{name} is {array.dtype} of shape {array.shape}: give a PIL image, the bytes of a "
            "file, or uint8 or uint16 RGB values [h w 3]"
        )
    bit_depth.require(array.dtype == np.uint16, bits, name)
    return Image.fromarray(array if bits is None else bit_depth.eight_bits(array, bits, name))
