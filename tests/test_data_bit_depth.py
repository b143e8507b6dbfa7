"""The bits of 16-bit images: found, said, applied; and what does not fit."""

from pathlib import Path

import numpy as np
import pytest
from image_files import sixteen_bit_png, tiff
from PIL import Image

from adtr_jax.config import BITS
from adtr_jax.data import Sample, bit_depth, load_images
from adtr_jax.data.decode import decode_image
from adtr_jax.data.good_images import GoodImages, bits
from adtr_jax.data.inputs import decoded
from adtr_jax.errors import InputError

RNG = np.random.default_rng(0)
TWELVE = RNG.integers(0, 4096, (20, 30, 3)).astype(np.uint16)
TWELVE[0, 0] = 4095


def scaled(values: np.ndarray, bits: int) -> np.ndarray:
    return np.round(values.astype(float) * 255 / (2**bits - 1))


@pytest.mark.parametrize("largest", [0, 255, 256, 1023, 1024, 4095, 4096, 16383, 16384, 65535])
def test_the_fewest_bits_that_hold_the_largest_value(tmp_path: Path, largest: int) -> None:
    expected = next(bits for bits in BITS if largest < 2**bits)
    grey = np.array([[0, largest]], np.uint16)
    colour = np.repeat(grey[..., None], 3, axis=-1)
    assert bit_depth.depth(sixteen_bit_png(tmp_path / "grey.png", grey)) == expected
    assert bit_depth.depth(sixteen_bit_png(tmp_path / "rgb.png", colour)) == expected
    assert bit_depth.depth(tiff(tmp_path / "rgb.tif", colour)) == expected


def test_16_bits_are_as_ever_and_others_are_rounded() -> None:
    every = np.arange(2**16, dtype=np.uint16)[None]
    before = (every.astype(np.uint32) + 128) // 257
    np.testing.assert_array_equal(bit_depth.eight_bits(every, 16, ""), before)
    for depth in (10, 12, 14):
        values = every[:, : 2**depth]
        found = bit_depth.eight_bits(values, depth, "")
        np.testing.assert_array_equal(found, scaled(values, depth))
    np.testing.assert_array_equal(bit_depth.eight_bits(every[:, :256], 8, ""), every[:, :256])


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("packed", [False, True])
def test_colours_keep_all_their_bits(tmp_path: Path, order: str, packed: bool) -> None:
    """Pillow has no 16-bit colour: it keeps the upper bytes, which of 12 bits are four."""
    path = tiff(tmp_path / "a.tif", TWELVE, order, packed=packed)
    np.testing.assert_array_equal(np.asarray(decode_image(path, 12)), scaled(TWELVE, 12))
    np.testing.assert_array_equal(np.asarray(decode_image(path, 16)), TWELVE >> 8)


def test_png_in_grey_colour_and_with_transparency(tmp_path: Path) -> None:
    expected = scaled(TWELVE, 12)
    grey = sixteen_bit_png(tmp_path / "grey.png", TWELVE[..., 0])
    np.testing.assert_array_equal(np.asarray(decode_image(grey, 12)), expected[..., 0])
    rgb = sixteen_bit_png(tmp_path / "rgb.png", TWELVE)
    np.testing.assert_array_equal(np.asarray(decode_image(rgb, 12)), expected)
    alpha = np.full((20, 30, 1), 65535, np.uint16)
    alpha[:5] = 0
    rgba = sixteen_bit_png(tmp_path / "rgba.png", np.concatenate([TWELVE, alpha], axis=-1))
    image = np.asarray(decode_image(rgba, 12))
    np.testing.assert_array_equal(image[5:], expected[5:])
    assert not image[:5].any()


def test_a_value_that_does_not_fit_names_the_file(tmp_path: Path) -> None:
    for path in (
        sixteen_bit_png(tmp_path / "grey.png", TWELVE[..., 0]),
        sixteen_bit_png(tmp_path / "rgb.png", TWELVE),
    ):
        with pytest.raises(InputError) as caught:
            decode_image(path, 10)
        assert str(caught.value) == (
            f"{path} has the value 4,095, and the images of its category are taken to have 10 "
            "bits, up to 1,023: give images of the same camera, or train with --bits=12"
        )


def test_another_depth_than_that_of_the_training_images(tmp_path: Path) -> None:
    deep = sixteen_bit_png(tmp_path / "deep.png", TWELVE)
    flat = tmp_path / "flat.png"
    Image.new("RGB", (30, 20)).save(flat)
    with pytest.raises(InputError, match=r"deep\.png has 16 bits a channel where 8 are expected"):
        decode_image(deep)
    with pytest.raises(InputError, match=r"flat\.png has 8 bits .*where 16-bit images are expec"):
        decode_image(flat, 12)


def test_mixed_depths_name_one_of_each(tmp_path: Path) -> None:
    deep = sixteen_bit_png(tmp_path / "deep.png", TWELVE)
    flat = tmp_path / "flat.png"
    Image.new("RGB", (30, 20)).save(flat)
    with pytest.raises(InputError) as caught:
        bits(tmp_path, None)
    assert str(caught.value) == (
        f"{flat} has 8 bits a channel and {deep} has 16: convert the images of a category to one "
        "depth"
    )
    deep.unlink()
    assert bits(tmp_path, None) is None
    with pytest.raises(InputError, match=r"--bits=12 is of 16-bit images, and .*flat\.png has 8"):
        bits(tmp_path, 12)


def test_the_depth_is_that_of_all_images_together(tmp_path: Path) -> None:
    """One of 10 bits, one of 12: a camera's dark picture is not to be made bright."""
    dark = sixteen_bit_png(tmp_path / "dark.png", TWELVE // 4)
    bright = sixteen_bit_png(tmp_path / "bright.png", TWELVE)
    assert [bit_depth.depth(path) for path in (dark, bright)] == [10, 12]
    assert bits(tmp_path, None) == 12
    assert bits(tmp_path, 14) == 14
    samples = [Sample(path.name, path, "good") for path in (dark, bright)]
    dark_seen, bright_seen = load_images(samples, 32, bits=12).mean((1, 2, 3))
    assert bright_seen == pytest.approx(4 * dark_seen, rel=0.02)
    good = GoodImages.read(tmp_path, 32, 1.0, 12)
    np.testing.assert_array_equal(good.pixels, load_images(samples[::-1], 32, bits=12))


def test_images_in_memory_follow_the_same_rule(tmp_path: Path) -> None:
    path = sixteen_bit_png(tmp_path / "a.png", TWELVE)
    grey = sixteen_bit_png(tmp_path / "grey.png", TWELVE[..., 0])
    assert bits([TWELVE, TWELVE // 4], None) == bits([path], None) == 12
    assert bits([Image.open(grey)], None) == 12
    one, other = decoded([path, TWELVE], 16, 1.0, bits=12)
    np.testing.assert_array_equal(one.pixels, other.pixels)
    one, other = decoded([grey, Image.open(grey)], 16, 1.0, bits=12)
    np.testing.assert_array_equal(one.pixels, other.pixels)
    eight, deep = decoded([TWELVE.astype(np.uint8), TWELVE], 16, 1.0)
    assert eight.error is None
    assert deep.error is not None and deep.error.startswith("an image in memory has 16 bits")
    (eight,) = decoded([TWELVE.astype(np.uint8)], 16, 1.0, bits=12)
    assert eight.error is not None and eight.error.startswith("an image in memory has 8 bits")
