"""Loading: resize, order, alignment of images and masks, and what goes wrong."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adtr_jax.data import Category, Sample, load_images, load_masks
from adtr_jax.errors import InputError


def sample(image: Path, mask: Path | None = None, defect: str = "crack") -> Sample:
    return Sample(image.name, image, defect, mask)


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    Image.fromarray(values).save(tmp_path / "noise.png")
    return tmp_path / "noise.png"


def test_resize_is_pillows_bilinear(noise: Path) -> None:
    """Shrinking by 2 with the triangle filter: weights 1 3 3 1 over 8, against the definition."""
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    Image.fromarray(ramp).save(noise)
    images = load_images([sample(noise)], 4)
    weights = np.zeros((4, 8))
    for row in range(4):
        for offset, weight in zip(range(-1, 3), (1, 3, 3, 1), strict=True):
            if 0 <= 2 * row + offset < 8:
                weights[row, 2 * row + offset] = weight
    weights /= weights.sum(1, keepdims=True)
    assert images.shape == (1, 4, 4, 3)
    assert images.dtype == np.uint8
    assert np.abs(images[0] - (weights @ ramp @ weights.T)[..., None]).max() <= 1


def test_crop_keeps_the_centre_of_image_and_mask(noise: Path, tmp_path: Path) -> None:
    """GTrans's 256 px, of which 224 are kept: 16 px fall off on every side."""
    marked = np.random.default_rng(1).integers(0, 2, (37, 53), np.uint8) * 255
    Image.fromarray(marked).save(tmp_path / "mask.png")
    samples = [sample(noise, tmp_path / "mask.png")]
    whole = Image.open(noise).resize((256, 256), Image.Resampling.BILINEAR)
    nearest = Image.fromarray(marked).resize((256, 256), Image.Resampling.NEAREST)
    images = load_images(samples, 224, 0.875)
    masks = load_masks(samples, 224, 0.875).marked
    np.testing.assert_array_equal(images[0], np.asarray(whole)[16:240, 16:240])
    np.testing.assert_array_equal(masks[0], np.asarray(nearest)[16:240, 16:240] > 127)


@pytest.mark.parametrize("size", [1, 32, 224])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_any_size_to_any_size(noise: Path, size: int, mode: str) -> None:
    Image.open(noise).convert(mode).save(noise)
    expected = Image.open(noise).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(load_images([sample(noise)], size)[0], np.asarray(expected))


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (7, 8, 9)).save(tmp_path / "a.png")
    assert (load_images([sample(tmp_path / "a.png")], 16) == [7, 8, 9]).all()


def test_order_is_that_of_the_samples(tmp_path: Path) -> None:
    """Files of very different size, so that threads finish in another order than they start."""
    rng = np.random.default_rng(0)
    samples = []
    for index in range(40):
        side = 600 if index % 4 == 0 else 4
        path = tmp_path / f"{rng.integers(1 << 30)}.png"
        Image.new("L", (side, side), index * 6).save(path)
        samples.append(sample(path))
    assert load_images(samples, 3)[:, 1, 1, 1].tolist() == [index * 6 for index in range(40)]
    assert load_images([], 3).shape == (0, 3, 3, 3)


def test_the_first_bad_file_is_reported(tmp_path: Path) -> None:
    samples = [sample(tmp_path / f"{index}.png") for index in range(9)]
    for index, each in enumerate(samples):
        Image.new("L", (64, 64)).save(tmp_path / each.name)
        if index in (4, 7):
            (tmp_path / each.name).write_bytes(b"broken")
    with pytest.raises(InputError, match=r"[/\\]4\.png is not a png"):
        load_images(samples, 8)


def test_masks_are_resized_by_nearest_neighbour(noise: Path, tmp_path: Path) -> None:
    """Pixel i of s takes the source pixel at floor((i + 0.5) * side / s)."""
    drawn = np.random.default_rng(1).integers(0, 4, (37, 53)) == 0
    Image.fromarray(drawn).save(tmp_path / "mask.png")
    masks = load_masks(
        [sample(noise, tmp_path / "mask.png"), sample(noise, defect="good")],
        24,
        mask_filter="nearest",
    ).marked
    rows = ((np.arange(24) + 0.5) * 37 / 24).astype(int)
    columns = ((np.arange(24) + 0.5) * 53 / 24).astype(int)
    assert masks.dtype == bool
    np.testing.assert_array_equal(masks[0], drawn[np.ix_(rows, columns)])
    assert not masks[1].any()


def test_images_and_masks_stay_aligned_under_exif(tmp_path: Path) -> None:
    """A photograph stored on its side, and a mask drawn on the upright picture."""
    upright = np.zeros((40, 20), np.uint8)
    upright[4:12, 6:10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90).save(
        tmp_path / "photo.jpg", exif=exif, quality=100
    )
    Image.fromarray(upright).save(tmp_path / "photo_mask.png")
    photo = sample(tmp_path / "photo.jpg", tmp_path / "photo_mask.png")
    shown = load_images([photo], 40)[0, ..., 0] > 127
    masks = load_masks([photo], 40).marked[0]
    assert masks.sum() == 8 * 8
    np.testing.assert_array_equal(shown, masks)


def test_a_mask_of_another_size_is_an_error(noise: Path, tmp_path: Path) -> None:
    Image.new("L", (37, 53), 255).save(tmp_path / "mask.png")
    with pytest.raises(
        InputError, match=r"mask\.png is 37 x 53 pixels, but its image .*noise\.png is 53 x 37"
    ):
        load_masks([sample(noise, tmp_path / "mask.png")], 8)


def test_an_anomalous_image_without_a_mask_is_an_error(noise: Path) -> None:
    with pytest.raises(InputError, match=r"noise\.png is anomalous and has no mask"):
        load_masks([sample(noise)], 8)


def test_no_progress_bar_where_nobody_watches(
    noise: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_images([sample(noise)] * 3, 8)
    assert capsys.readouterr().err == ""


def test_category_has_masks_only_if_every_anomalous_image_has(noise: Path) -> None:
    good, bare, drawn = sample(noise, defect="good"), sample(noise), sample(noise, noise)
    assert [each.label for each in (good, bare, drawn)] == [0, 1, 1]
    assert Category("c", (good,), (good, drawn)).has_masks
    assert not Category("c", (good,), (good, drawn, bare)).has_masks
    assert not Category("c", (good,), (good,)).has_masks


def test_importing_the_data_side_loads_neither_jax_nor_tfds() -> None:
    code = (
        "import sys, adtr_jax.data, adtr_jax.data.mvtec_ad, adtr_jax.data.folders;"
        "print([name for name in ('jax', 'flax', 'tensorflow_datasets') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
