"""Masks: soft ones, numbers of classes, and small defects at the score map's size."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

from adtr_jax.data import Sample, load_masks
from adtr_jax.data.mask_file import decode_mask
from adtr_jax.data.masks import Masks, shrunk

SIDE = 128


def drawn(scale: int = 1) -> Image.Image:
    """A rectangle of 150 pixels, a disc and a scratch, white on black."""
    image = Image.new("L", (SIDE * scale, SIDE * scale))
    pen = ImageDraw.Draw(image)
    pen.rectangle((30 * scale, 40 * scale, 40 * scale - 1, 55 * scale - 1), fill=255)
    pen.ellipse((70 * scale, 20 * scale, 110 * scale, 50 * scale), fill=255)
    pen.line((10 * scale, 80 * scale, 110 * scale, 110 * scale), fill=255, width=3 * scale)
    return image


def through(image: Image.Image, kind: str, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return Image.open(buffer).convert("L")


SOFT = {
    **{f"JPEG {q} as PNG": through(drawn(), "JPEG", q) for q in (30, 75, 95)},
    **{
        f"shrunk by {name}": drawn(4).resize((SIDE, SIDE), resampling)
        for name, resampling in (
            ("bilinear", Image.Resampling.BILINEAR),
            ("bicubic", Image.Resampling.BICUBIC),
            ("lanczos", Image.Resampling.LANCZOS),
            ("box", Image.Resampling.BOX),
        )
    },
    "blurred": drawn().filter(ImageFilter.GaussianBlur(1)),
    "grey, half as bright": drawn(4).resize((SIDE, SIDE)).point(lambda value: value // 2),
}


def assert_as_drawn(marked: np.ndarray) -> None:
    """No pixel differs but those at the edge of what was drawn."""
    wanted = np.asarray(drawn()) > 0
    near = np.ones((3, 3), bool)
    edge = ndimage.binary_dilation(wanted, near) & ~ndimage.binary_erosion(wanted, near)
    assert not ((marked != wanted) & ~edge).any()
    assert abs(int(marked.sum()) - int(wanted.sum())) < 0.12 * wanted.sum()


@pytest.mark.parametrize("kind", SOFT)
@pytest.mark.parametrize("colour", ["L", "RGB"])
def test_a_soft_mask_is_cut_at_half_of_its_maximum(tmp_path: Path, kind: str, colour: str) -> None:
    SOFT[kind].convert(colour).save(tmp_path / "mask.png")
    assert (np.asarray(SOFT[kind]) > 0).sum() > 1.05 * (np.asarray(drawn()) > 0).sum()
    assert_as_drawn(decode_mask(tmp_path / "mask.png"))


@pytest.mark.parametrize("quality", [20, 60, 90])
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
def test_what_is_compressed_with_losses_is_soft(tmp_path: Path, kind: str, quality: int) -> None:
    path = tmp_path / "mask"
    options = {"compression": "jpeg"} if kind == "TIFF" else {}
    drawn().save(path, kind, quality=quality, **options)
    assert_as_drawn(decode_mask(path))


def test_losslessly_compressed_webp_is_not(tmp_path: Path) -> None:
    values = np.array([[0, 1, 255]], np.uint8).repeat(40, 0).repeat(20, 1)
    Image.fromarray(values).save(tmp_path / "mask.webp", lossless=True)
    np.testing.assert_array_equal(decode_mask(tmp_path / "mask.webp"), values > 0)


CLASSES = {"1 and 2": (1, 2), "1 to 8": range(1, 9), "of MVTec LOCO": (236, 240, 255)}
CLASSES |= {"1 and 255": (1, 255), "greys": (25, 50, 75, 100, 150, 250), "half": (127, 254)}


@pytest.mark.parametrize("numbers", CLASSES)
@pytest.mark.parametrize("how", ["apart", "touching", "nested", "scratches"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_numbers_of_classes_are_all_marked(
    tmp_path: Path, numbers: str, how: str, dtype: type
) -> None:
    values = np.zeros((SIDE, SIDE), dtype)
    for i, number in enumerate(CLASSES[numbers]):
        if how == "apart":
            values[8 : 8 + 12, 5 + 15 * i : 5 + 15 * i + 9] = number
        elif how == "touching":
            values[20:60, 10 + 9 * i : 19 + 9 * i] = number
        elif how == "nested":
            values[10 + 5 * i : 118 - 5 * i, 10 + 5 * i : 118 - 5 * i] = number
        else:
            values[10 + 9 * i : 11 + 9 * i + i % 2, 5:100] = number
    Image.fromarray(values).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(decode_mask(tmp_path / "mask.png"), values > 0)


def spot(height: int, width: int, y: int, x: int, side: int = 5) -> np.ndarray:
    marked = np.zeros((height, width), bool)
    marked[y : y + side, x : x + side] = True
    return marked


@pytest.mark.parametrize("size", [160, 256])
def test_no_defect_of_five_pixels_vanishes(size: int) -> None:
    """At 2448 x 2048 nearest neighbour loses most of them."""
    rng = np.random.default_rng(0)
    masks = [spot(512, 612, rng.integers(510), rng.integers(610), side=1) for _ in range(30)]
    vanished = [not shrunk(mask, size // 4, 1.0, "nearest").marked.any() for mask in masks]
    assert sum(vanished) >= 20
    for mask, lost in zip(masks, vanished, strict=True):
        kept = shrunk(mask, size // 4, 1.0, "keep")
        assert kept.lost == lost
        assert kept.cut == 0
        y, x = np.argwhere(mask)[0]
        touched = np.zeros_like(kept.marked)
        scale = size // 4
        rows = slice(y * scale // 512, -(-(y + 1) * scale // 512))
        touched[rows, x * scale // 612 : -(-(x + 1) * scale // 612)] = True
        if lost:
            np.testing.assert_array_equal(kept.marked, touched)


@pytest.mark.parametrize("shape", [(300, 200), (40, 90), (37, 500), (64, 64)])
@pytest.mark.parametrize("crop", [1.0, 0.875])
def test_nearest_neighbour_is_pillows_and_what_it_has_is_not_changed(
    shape: tuple[int, int], crop: float
) -> None:
    """Random shapes: bit for bit where nothing is lost, and never fewer pixels."""
    rng = np.random.default_rng(1)
    for share in (0.5, 0.9, 0.995):
        marked = ndimage.gaussian_filter(rng.random(shape), 1.5)
        marked = marked > np.quantile(marked, share)
        whole, before = round(64 / crop), (round(64 / crop) - 64) // 2
        nearest = Image.fromarray(marked).resize((whole, whole), Image.Resampling.NEAREST)
        expected = np.asarray(nearest)[before : before + 64, before : before + 64]
        alone, kept = (shrunk(marked, 64, crop, resize) for resize in ("nearest", "keep"))
        np.testing.assert_array_equal(alone.marked, expected)
        assert alone[1:] == kept[1:]
        assert (kept.marked >= expected).all()
        assert kept.lost or (kept.marked == expected).all()


def test_a_region_outside_the_crop_is_cut_and_not_lost() -> None:
    corner, middle = spot(512, 512, 3, 3), spot(512, 512, 251, 249)
    found = shrunk(corner | middle, 56, 0.875, "nearest")
    assert found[1:] == (0, 1) or found[1:] == (1, 1)
    only = shrunk(corner, 56, 0.875, "keep")
    assert only[1:] == (0, 1)
    assert not only.marked.any()


def test_regions_that_touch_at_a_corner_are_one() -> None:
    marked = np.zeros((400, 400), bool)
    marked[200:210, 200:210] = marked[210, 210] = True
    assert shrunk(marked, 40, 1.0, "keep").lost == 0
    marked[210, 210], marked[213, 213] = False, True
    assert shrunk(marked, 40, 1.0, "keep").lost == 1


def samples_of(tmp_path: Path, *masks: np.ndarray) -> list[Sample]:
    samples = []
    for i, mask in enumerate(masks):
        Image.new("L", mask.shape[::-1]).save(tmp_path / f"{i}.png")
        Image.fromarray(mask).save(tmp_path / f"{i}_mask.png")
        samples.append(
            Sample(f"{i}.png", tmp_path / f"{i}.png", "dent", tmp_path / f"{i}_mask.png")
        )
    return samples


def test_what_nearest_neighbour_loses_is_said(tmp_path: Path) -> None:
    lost = spot(200, 200, 3, 3, 1) | spot(200, 200, 103, 53, 1)
    samples = samples_of(tmp_path, spot(200, 200, 50, 50, 40), lost, lost)
    nearest, kept = (load_masks(samples, 20, mask_filter=how) for how in ("nearest", "keep"))
    assert nearest.found.lost.tolist() == kept.found.lost.tolist() == [0, 2, 2]
    assert kept.marked.any((1, 2)).tolist() == [True] * 3
    assert list(nearest.found.warnings(samples, 20, "nearest")) == [
        f"4 defect regions in 2 images (the first is {tmp_path / '1_mask.png'}) vanish at 20 x 20 "
        "pixels by nearest neighbour, and count as normal: leave out --mask_filter=nearest, or "
        "take a larger --image_size"
    ]
    assert list(kept.found.warnings(samples, 20, "keep")) == []


def test_cut_regions_and_empty_masks_are_said(tmp_path: Path) -> None:
    samples = samples_of(tmp_path, spot(200, 200, 0, 0), spot(200, 200, 195, 195))
    masks = load_masks(samples, 28, 0.875)
    assert list(masks.found.warnings(samples, 28, "keep")) == [
        f"2 defect regions in 2 images (the first is {tmp_path / '0_mask.png'}) lie outside the "
        "centre that --crop keeps, and are not measured: --crop=1 keeps all of an image",
        "no pixel is marked in any mask at the score maps' size, so there are no pixel metrics",
    ]


def test_inverted_masks_are_worth_a_warning(tmp_path: Path) -> None:
    inverted = [~spot(60, 60, 5 * i, 5, 20) for i in range(3)]
    samples = samples_of(tmp_path, *inverted)
    (text,) = load_masks(samples, 32).found.warnings(samples, 32, "keep")
    assert text == (
        f"over half of the image is marked in every mask, as in {tmp_path / '0_mask.png'}: if the "
        "defects are black in them, invert the masks"
    )
    samples = samples_of(tmp_path, *inverted, spot(60, 60, 5, 5, 20))
    assert list(load_masks(samples, 32).found.warnings(samples, 32, "keep")) == []


def test_masks_of_no_samples() -> None:
    masks = load_masks([], 8)
    assert isinstance(masks, Masks)
    assert masks.marked.shape == (0, 8, 8)
