"""Images, masks, and images whose EXIF blocks are damaged."""

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adtr_jax.data import Sample, bit_depth, load_images, load_masks
from benchmarks.fuzz import formats
from benchmarks.fuzz.mutations import generic
from benchmarks.fuzz.reader import Files, digest

SIDE = 24
KINDS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}  # that have EXIF as a block of its own
_ORIENTATION = 0x0112
_MAKE = 0x010F


def picture(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    smooth = np.add.outer(*(8 * np.arange(n) for n in shape[:2]))
    values = smooth.reshape(*smooth.shape, *(1,) * (len(shape) - 2)) + rng.integers(0, 20, shape)
    return (values % 256).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def images() -> dict[str, Files]:
    colour, grey = Image.fromarray(picture(40, 30, 3)), Image.fromarray(picture(40, 30))
    alpha = colour.convert("RGBA")
    alpha.putalpha(grey)
    made = {
        "rgb.png": encoded(colour, "PNG"),
        "grey.png": encoded(grey, "PNG"),
        "palette.png": encoded(colour.quantize(16), "PNG", transparency=3),
        "one.png": encoded(grey.convert("1"), "PNG"),
        "alpha.png": encoded(alpha, "PNG"),
        "deep.png": encoded(Image.fromarray(picture(40, 30).astype(np.uint16) * 257), "PNG"),
        "rgb.jpg": encoded(colour, "JPEG"),
        "progressive.jpg": encoded(colour, "JPEG", progressive=True),
        "cmyk.jpg": encoded(colour.convert("CMYK"), "JPEG"),
        "rgb.bmp": encoded(colour, "BMP"),
        "palette.bmp": encoded(grey, "BMP"),
        "rgb.tif": encoded(colour, "TIFF"),
        "lzw.tif": encoded(colour, "TIFF", compression="tiff_lzw"),
        "deflate.tif": encoded(grey, "TIFF", compression="tiff_adobe_deflate"),
        "fax.tif": encoded(grey.convert("1"), "TIFF", compression="group4"),
        "lossy.webp": encoded(colour, "WEBP"),
        "lossless.webp": encoded(alpha, "WEBP", lossless=True),
    }
    return {name: {name: content} for name, content in made.items()}


def read_images(folder: Path) -> str:
    (path,) = folder.iterdir()
    bits = bit_depth.common(bit_depth.depths([path], None), [path], None)
    return digest(load_images([Sample(path.name, path, None)], SIDE, bits=bits))


def masks() -> dict[str, Files]:
    marked = np.zeros((40, 30), np.uint8)
    marked[10:15, 5:25] = 255
    mask = Image.fromarray(marked)
    made = {
        "grey.png": encoded(mask, "PNG"),
        "one.png": encoded(mask.convert("1"), "PNG"),
        "palette.png": encoded(mask.convert("P"), "PNG"),
        "rgb.png": encoded(mask.convert("RGB"), "PNG"),
        "deep.png": encoded(Image.fromarray(marked.astype(np.uint16) * 257), "PNG"),
        "mask.bmp": encoded(mask, "BMP"),
        "mask.tif": encoded(mask, "TIFF", compression="tiff_lzw"),
    }
    image = encoded(Image.fromarray(picture(40, 30)), "BMP")
    return {name: {f"mask_{name}": content, "image.bmp": image} for name, content in made.items()}


def read_mask(folder: Path) -> str:
    (path,) = folder.glob("mask_*")
    sample = Sample("test/bent/000", folder / "image.bmp", "bent", path)
    return digest(load_masks([sample], SIDE))


def metadata() -> dict[str, Files]:
    """An image in each format and orientation, and without any; the names say how to wrap it."""
    colour = Image.fromarray(picture(40, 30, 3))
    made = {}
    for kind in KINDS:
        for orientation in range(9):
            exif = Image.Exif()
            if orientation:
                exif[_ORIENTATION] = orientation
            exif[_MAKE] = "a camera"
            name = f"{kind}:{orientation}"
            made[name] = {f"image.{kind}": _with_exif(colour, kind, exif.tobytes())}
    return made


def _with_exif(image: Image.Image, kind: str, exif: bytes) -> bytes:
    options = {"lossless": True} if kind == "webp" else {}
    return encoded(image, KINDS[kind], exif=exif, **options)


def damage_exif(kind: str, data: bytes, rng: random.Random) -> bytes:
    """The same image with its EXIF block damaged."""
    image = Image.open(io.BytesIO(data))
    image.load()
    exif = image.info["exif"].removeprefix(b"Exif\0\0")
    changed = rng.choice((formats.tiff, formats.tiff, generic))(exif, rng)
    return _with_exif(Image.fromarray(picture(40, 30, 3)), kind, b"Exif\0\0" + changed)
