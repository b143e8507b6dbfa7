"""Every kind of image file, decoded to known pixel values."""

import io
from pathlib import Path

import numpy as np
import pytest
from image_files import sixteen_bit_png
from PIL import Image
from PIL.ExifTags import Base as ExifTag

from adtr_jax.config import Bits
from adtr_jax.data.decode import decode_image
from adtr_jax.data.image_file import upright_size
from adtr_jax.data.mask_file import decode_mask
from adtr_jax.errors import InputError

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)


def save(path: Path, image: Image.Image) -> Path:
    image.save(path)
    return path


def pixels(path: Path, bits: Bits | None = None) -> list:
    """The decoded image as nested lists, in RGB."""
    return np.asarray(decode_image(path, bits).convert("RGB")).tolist()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff"])
def test_lossless_files_keep_their_colours(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(np.array([[RED, GREEN, BLUE]], np.uint8))
    assert pixels(save(tmp_path / f"a.{suffix}", image)) == [[[*RED], [*GREEN], [*BLUE]]]


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_lossy_files_keep_their_colours_nearly(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", Image.new("RGB", (33, 17), (200, 100, 50)))
    decoded = np.asarray(decode_image(path)).astype(int)
    assert decoded.shape == (17, 33, 3)
    assert np.abs(decoded - (200, 100, 50)).max() <= 3


def test_grey_bilevel_and_palette(tmp_path: Path) -> None:
    grey = np.array([[0, 128, 255]], np.uint8)
    assert pixels(save(tmp_path / "l.png", Image.fromarray(grey))) == [
        [[0, 0, 0], [128, 128, 128], [255, 255, 255]]
    ]
    bilevel = Image.fromarray(np.array([[False, True]]))
    assert pixels(save(tmp_path / "1.png", bilevel)) == [[[0, 0, 0], [255, 255, 255]]]
    palette = Image.fromarray(np.array([[1, 0]], np.uint8), "P")
    palette.putpalette([*RED, *GREEN])
    assert pixels(save(tmp_path / "p.png", palette)) == [[[*GREEN], [*RED]]]


def test_transparent_pixels_are_blended_with_black(tmp_path: Path) -> None:
    colours = [(200, 100, 0, 255), (200, 100, 0, 51), (200, 100, 0, 0)]
    rgba = Image.fromarray(np.array([colours], np.uint8), "RGBA")
    assert pixels(save(tmp_path / "rgba.png", rgba)) == [[[200, 100, 0], [40, 20, 0], [0, 0, 0]]]
    la = Image.fromarray(np.array([[(200, 255), (200, 51), (200, 0)]], np.uint8), "LA")
    assert pixels(save(tmp_path / "la.png", la)) == [[[200] * 3, [40] * 3, [0] * 3]]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([*RED, *GREEN])
    palette.save(tmp_path / "p.png", transparency=0)
    assert pixels(tmp_path / "p.png") == [[[*BLACK], [*GREEN]]]


def test_cmyk_is_converted(tmp_path: Path) -> None:
    inks = np.array([[(0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 0, 255)]], np.uint8)
    path = save(tmp_path / "a.tif", Image.fromarray(inks, "CMYK"))
    assert pixels(path) == [[[255, 255, 255], [0, 255, 255], [0, 0, 0]]]


SIXTEEN = np.array([[0, 257, 256, 32768, 65535]], np.uint16)


def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    """Each value is rounded to the nearest of 0..255 by 255/65535; Pillow alone would clip."""
    expected = [[[v] * 3 for v in (0, 1, 1, 128, 255)]]
    assert pixels(sixteen_bit_png(tmp_path / "a.png", SIXTEEN), 16) == expected
    assert pixels(save(tmp_path / "little.tif", Image.fromarray(SIXTEEN)), 16) == expected
    big = Image.frombytes("I;16B", (5, 1), SIXTEEN.astype(">u2").tobytes())
    assert pixels(save(tmp_path / "big.tif", big), 16) == expected


def test_16_bit_colour_keeps_its_range(tmp_path: Path) -> None:
    colour = np.array([[[0, 0x8000, 0xFFFF]]], np.uint16)
    assert pixels(sixteen_bit_png(tmp_path / "a.png", colour), 16) == [[[0, 128, 255]]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_values_are_refused(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / "a.tif", Image.new(mode, (2, 2)))
    with pytest.raises(InputError, match=r"a\.tif holds 32-bit values.*convert it to 8 or 16 bits"):
        decode_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_image_upright(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    """Stored: red and green above blue and black. The EXIF standard names the stored row 0's and
    column 0's place in the upright picture: 1 top left, 2 top right, 3 bottom right, 4 bottom
    left, 5 left top, 6 right top, 7 right bottom, 8 left bottom.
    """
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :16], stored[:8, 16:], stored[8:, :16] = RED, GREEN, BLUE
    exif = Image.Exif()
    exif[ExifTag.Orientation] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(stored).save(path, exif=exif, quality=100)
    upright = {  # top left, top right, bottom left, bottom right
        1: (RED, GREEN, BLUE, BLACK),
        2: (GREEN, RED, BLACK, BLUE),
        3: (BLACK, BLUE, GREEN, RED),
        4: (BLUE, BLACK, RED, GREEN),
        5: (RED, BLUE, GREEN, BLACK),
        6: (BLUE, RED, BLACK, GREEN),
        7: (BLACK, GREEN, BLUE, RED),
        8: (GREEN, BLACK, RED, BLUE),
    }[orientation]
    image = np.asarray(decode_image(path)).astype(int)
    height, width = image.shape[:2]
    assert (width, height) == ((32, 16) if orientation < 5 else (16, 32)) == upright_size(path)
    corners = [image[2, 2], image[2, -3], image[-3, 2], image[-3, -3]]
    assert np.abs(np.array(corners) - upright).max() < 30


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
def test_truncated_corrupt_and_empty_files_are_named(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = save(tmp_path / f"broken.{suffix}", Image.fromarray(noise))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"broken\.{suffix} is corrupt \(.+\): replace it"):
        decode_image(path)
    path.write_bytes(whole[:4] + b"\xa5" * 1000)
    with pytest.raises(InputError, match=rf"broken\.{suffix} is (not a png|corrupt)"):
        decode_image(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=rf"broken\.{suffix} is empty: replace it or remove it"):
        decode_image(path)


def test_files_that_are_no_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image at all")
    with pytest.raises(InputError, match=r"a\.png is not a png, jpg, bmp, tif or webp image"):
        decode_image(tmp_path / "a.png")
    Image.new("L", (2, 2)).save(tmp_path / "b.png", format="GIF")
    with pytest.raises(InputError, match=r"b\.png is not a png, jpg, bmp, tif or webp image"):
        decode_image(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"cannot read .*gone\.png: No such file"):
        decode_image(tmp_path / "gone.png")


def encode(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


MARKED = [[False, True, True]]


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(Image.fromarray(np.array(MARKED)), id="boolean"),
        pytest.param(Image.fromarray(np.array([[0, 1, 255]], np.uint8)), id="grey"),
        pytest.param(Image.fromarray(np.array([[0, 1, 65535]], np.uint16)), id="16-bit"),
        pytest.param(Image.fromarray(np.array([[BLACK, (0, 0, 1), RED]], np.uint8)), id="colour"),
        pytest.param(
            Image.fromarray(
                np.array([[(255, 255, 255, 0), (9, 9, 9, 128), (0, 1, 0, 255)]], np.uint8), "RGBA"
            ),
            id="transparent background",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_masks_mark_whatever_is_not_black(tmp_path: Path, mask: Image.Image, kind: str) -> None:
    (tmp_path / "mask").write_bytes(encode(mask, kind))
    assert decode_mask(tmp_path / "mask").tolist() == MARKED


def test_a_palette_mask_counts_by_its_colours(tmp_path: Path) -> None:
    mask = Image.fromarray(np.array([[1, 0, 2]], np.uint8), "P")
    mask.putpalette([*RED, *BLACK, *GREEN])
    assert decode_mask(save(tmp_path / "mask.png", mask)).tolist() == MARKED


def test_a_jpeg_mask_is_cut_at_half(tmp_path: Path) -> None:
    drawn = np.zeros((64, 64), np.uint8)
    drawn[21:40, 13:50] = 255
    path = tmp_path / "mask.jpg"
    Image.fromarray(drawn).save(path, quality=60)
    assert (np.asarray(Image.open(path)) > 0).sum() > 1.2 * (drawn > 0).sum()
    np.testing.assert_array_equal(decode_mask(path), drawn > 0)


def test_a_mask_that_marks_nothing_is_an_error(tmp_path: Path) -> None:
    path = save(tmp_path / "000_mask.png", Image.new("L", (4, 4)))
    with pytest.raises(InputError, match=r"000_mask\.png marks no pixel: draw the defect in white"):
        decode_mask(path)
