"""What opening an image file refuses, ignores and holds: limits, metadata, noise."""

import io
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from image_files import png, png_chunk, tiff
from PIL import Image
from PIL.ExifTags import Base as ExifTag

from adtr_jax.data import image_file
from adtr_jax.data.budget import Budget
from adtr_jax.data.decode import decode_image
from adtr_jax.data.encoded import LIMIT
from adtr_jax.data.image_file import open_image, upright_size
from adtr_jax.errors import InputError

EXIF = {
    "none at all": b"MM garbage that is no EXIF block",
    "cut off": b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01",
    "a byte": (1, 1, b"\x06\0\0\0"),
    "a fraction": (5, 1, b"\0\0\0\x1a"),
    "text": (2, 2, b"6\0\0\0"),
    "too large": (3, 1, b"\0\x63\0\0"),
}


def exif(kind: str) -> bytes:
    """An EXIF block whose orientation makes no sense, or that is none."""
    what = EXIF[kind]
    if isinstance(what, bytes):
        return what
    form, count, value = what
    entry = struct.pack(">HHI", ExifTag.Orientation, form, count) + value
    return b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + bytes(4) + struct.pack(">II", 6, 0)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("kind", EXIF)
def test_metadata_that_make_no_sense_are_ignored(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (9, 5), (200, 100, 50)).save(path, exif=exif(kind), quality=100)
    image = np.asarray(decode_image(path)).astype(int)
    assert image.shape == (5, 9, 3)
    assert np.abs(image - (200, 100, 50)).max() <= 3
    assert upright_size(path) == (9, 5)


@pytest.mark.parametrize("form", ["short", "text", "fraction"])
def test_tiff_orientation(tmp_path: Path, form: str) -> None:
    """6 as a number turns the image; as text or as a fraction it is ignored."""
    path, stored = tmp_path / "a.tif", Image.new("L", (9, 5))
    stored.save(path)
    data = bytearray(path.read_bytes())
    (begin,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, begin)
    entries = bytes(data[begin + 2 : begin + 2 + 12 * count])
    kind, value = {"short": (3, 6), "text": (2, 0x36), "fraction": (5, 0)}[form]
    entry = struct.pack("<HHII", ExifTag.Orientation, kind, 1, value)
    data[4:8] = struct.pack("<I", len(data))
    data += struct.pack("<H", count + 1) + entries + entry + bytes(4)
    path.write_bytes(data)
    assert decode_image(path).size == upright_size(path) == ((5, 9) if form == "short" else (9, 5))


def test_a_palette_image_without_palette_is_corrupt(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", (2, 1, 8, 3), png_chunk(b"IDAT", zlib.compress(b"\0\0\1")))
    with pytest.raises(InputError, match=r"a\.png is corrupt \(.*palette.*\): replace it"):
        decode_image(path)


def test_an_image_beyond_the_limit_is_refused_undecoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "huge.png"
    Image.new("1", (12_300, 12_300)).save(path, transparency=0)
    assert path.stat().st_size < 20_000
    begin = time.perf_counter()
    with pytest.raises(InputError) as caught:
        decode_image(path)
    assert time.perf_counter() - begin < 0.2
    assert str(caught.value) == (
        f"{path} is too large (12300 x 12300 pixels, and the limit is 150 megapixels): cut it or "
        "scale it down, or set ADTR_JAX_MEGAPIXELS=152"
    )
    Image.new("L", (60, 50)).save(path)
    monkeypatch.setenv(LIMIT, "0.0029")
    with pytest.raises(InputError, match=r"60 x 50 pixels, and the limit is 0\.0029 megapixels"):
        decode_image(path)
    monkeypatch.setenv(LIMIT, "0.003")
    assert decode_image(path).size == (60, 50)
    monkeypatch.setenv(LIMIT, "many")
    with pytest.raises(InputError, match="ADTR_JAX_MEGAPIXELS=many is no number of megapixels"):
        decode_image(path)


def test_our_limit_stands_in_place_of_pillows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera's hundred megapixels are more than Pillow warns of; other uses keep its limit."""
    path = tmp_path / "a.png"
    Image.new("L", (60, 50)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert decode_image(path).size == (60, 50)
    assert Image.MAX_IMAGE_PIXELS == 1000
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)


@pytest.mark.parametrize("kind", ["png", "bmp", "jpg", "tif", "packed.tif"])
def test_a_file_that_claims_more_than_it_holds(tmp_path: Path, kind: str) -> None:
    """Refused by its header: libtiff would make room for a strip of 432 MB first."""
    path, side = tmp_path / f"a.{kind}", 12_000
    pixels = np.zeros((8, 8, 3), np.uint8)
    if kind == "png":
        png(path, (side, side, 8, 2), png_chunk(b"IDAT", zlib.compress(bytes(200))))
    elif kind.endswith("tif"):
        tiff(path, pixels, packed=kind == "packed.tif", side=side)
    else:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, {"bmp": "BMP", "jpg": "JPEG"}[kind])
        data = bytearray(buffer.getvalue())
        if kind == "bmp":
            data[18:26] = struct.pack("<ii", side, side)
        else:
            at = data.index(b"\xff\xc0") + 5
            data[at : at + 4] = struct.pack(">HH", side, side)
        path.write_bytes(data)
    with pytest.raises(InputError, match=r"corrupt \(it claims to be 12000 x 12000 pixels, which"):
        decode_image(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_an_honest_image_of_one_colour_is_no_false_claim(tmp_path: Path, kind: str) -> None:
    """The smallest that a format can be: compressed to the utmost."""
    options = {
        "PNG": {"compress_level": 9},
        "JPEG": {"quality": 1, "progressive": True},
        "TIFF": {"compression": "tiff_adobe_deflate"},
        "WEBP": {"quality": 0},
    }[kind]
    for mode in ("L", "RGB"):
        Image.new(mode, (1500, 1500)).save(tmp_path / "a", kind, **options)
        assert decode_image(tmp_path / "a").size == (1500, 1500)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc: the peak memory")
def test_four_bombs_do_not_decode_at_once(tmp_path: Path) -> None:
    """25 megapixels each, black and transparent: 3 KB, which took 0.4 GB each before."""
    path = tmp_path / "bomb.png"
    Image.new("1", (5000, 5000)).save(path, transparency=0)
    assert path.stat().st_size < 4000
    code = (
        "import sys; from pathlib import Path; from adtr_jax.data import *\n"
        "load_images([Sample('', Path(sys.argv[1]), 'good')] * 4, 32)\n"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert int(done.stdout) < 0.9e6  # KB


def test_a_decoded_image_holds_its_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (200, 100)).save(path)
    before = image_file._budget.held
    with open_image(path).decoded():
        assert 8 * 200 * 100 <= image_file._budget.held - before <= 16 * 200 * 100
    assert image_file._budget.held == before


def test_a_budget_is_shared_and_one_that_is_larger_waits_until_it_is_alone() -> None:
    budget, most, lock = Budget(100), [0], threading.Lock()

    def take(size: int) -> None:
        with budget.of(size):
            with lock:
                most[0] = max(most[0], budget.held)
            assert budget.held <= 100 or budget.held == size == 250
            time.sleep(0.002)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, [30, 40, 250, 30, 60, 100, 10] * 5))
    assert budget.held == 0
    assert most == [250]


def test_pipes_devices_and_links_to_themselves_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    for name in ("pipe", "device"):
        with pytest.raises(InputError, match=rf"{name}\.png is neither a file nor a folder: leave"):
            decode_image(tmp_path / f"{name}.png")
        with pytest.raises(InputError, match=rf"{name}\.png is neither a file nor a folder: leave"):
            upright_size(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match=r"cannot read .*self\.png: Too many levels of symbolic"):
        decode_image(tmp_path / "self.png")


def test_a_file_too_large_for_any_image_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "disc.png"
    with path.open("wb") as file:
        file.truncate(3 * 10**12)
    with pytest.raises(InputError, match=r"disc\.png has 3,000,000,000,000 bytes, more than any"):
        decode_image(path)


def test_too_little_memory_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (8, 8)).save(path)
    with (
        pytest.raises(InputError, match=r"a\.png is too large for the memory: scale it down"),
        open_image(path).decoded(),
    ):
        np.empty(2**60, np.uint8)


def test_nothing_is_written_to_stderr_without_the_files_name(tmp_path: Path) -> None:
    """Of libtiff, of Pillow's warnings and of its log, which all go there by themselves."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / "a.tif"
    Image.fromarray(noise).save(path, compression="tiff_adobe_deflate")
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2 :] = bytes(len(whole) - len(whole) // 2)
    (begin,) = struct.unpack_from("<I", path.read_bytes(), 4)
    whole[begin:] = path.read_bytes()[begin:]
    whole[200:400] = bytes(200)
    path.write_bytes(whole)
    Image.fromarray(noise).save(
        tmp_path / "b.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(40)
    )
    code = (
        "import sys; from pathlib import Path; from adtr_jax.data.decode import decode_image\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(decode_image(Path(name)).size)\n"
        "    except Exception as error: print(type(error).__name__)"
    )
    names = [str(path), str(tmp_path / "b.jpg")]
    done = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["InputError", "(64, 64)"]
    assert done.stderr == ""
