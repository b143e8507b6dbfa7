"""The picture of one prediction: size, colours, places, words. Its beauty a human judges."""

import subprocess
import sys
from dataclasses import dataclass

import matplotlib
import numpy as np
import pytest
from PIL import Image

from adtr_jax.data.images import resized
from adtr_jax.evaluation.inferno import INFERNO
from adtr_jax.evaluation.overlay import OPACITY, OUTLINE, overlay

CAPTION = "anomalous   score 0.87   p 0.004"


@dataclass(frozen=True)
class Region:
    box: tuple[int, int, int, int]
    area: int = 1
    peak: float = 1.0


def noise(width, height, mode="RGB"):
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def pixels(picture):
    return np.asarray(picture).astype(int)


def is_grey(values):
    return (values == values[..., :1]).all(axis=-1)


def test_the_colours_are_matplotlibs_inferno():
    colours = np.array([matplotlib.colormaps["inferno"](i)[:3] for i in range(256)])
    np.testing.assert_array_equal(INFERNO, np.rint(255 * colours))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_it_is_the_stated_mixture(mode):
    """Colour i of 256, with a share that grows until i = 128; beyond the ends the ends' colours."""
    image = noise(64, 64, mode)
    scores = np.linspace(1.5, 4.5, 64 * 64, dtype=np.float32).reshape(64, 64)
    mixed = pixels(overlay(image, scores, (2.0, 4.0)))
    index = np.clip(np.floor(128 * (scores.astype(float) - 2.0)), 0, 255).astype(int)
    share = (OPACITY * np.minimum(index / 128, 1))[..., None]
    grey = pixels(image.convert("L"))[..., None]
    assert np.abs(mixed - ((1 - share) * grey + share * INFERNO[index])).max() <= 1.0
    np.testing.assert_array_equal(mixed[scores <= 2.0], np.tile(grey[scores <= 2.0], 3))


@pytest.mark.parametrize("size", [(32, 32), (300, 300), (401, 97), (1, 50), (1200, 900)])
def test_the_picture_has_the_images_size(size):
    picture = overlay(noise(*size), np.zeros((16, 16), np.float32), (0.0, 1.0))
    assert (picture.size, picture.mode) == (size, "RGB")


def test_the_map_is_enlarged_bilinearly():
    """From the centre of one pixel of the map to the next the score runs in a straight line."""
    scores = np.array([[0.0, 1.0]] * 2, np.float32)
    row = pixels(overlay(Image.new("L", (128, 128)), scores, (0.0, 1.0), opacity=1.0))[64]
    index = np.clip(np.floor(256 * (np.arange(128) + 0.5 - 32) / 64), 0, 255).astype(int)
    expected = np.minimum(index / 128, 1)[:, None] * INFERNO[index]
    assert np.abs(row - expected).max() <= 1.0


@pytest.mark.parametrize("size", [(512, 512), (300, 200), (97, 401), (40, 40), (3, 2), (1, 1)])
def test_the_crop_lies_where_the_model_saw_it(size):
    """The crop, by the definition of what the model sees: a marked image, resized and cut."""
    side, crop = 64, 0.5
    picture = pixels(overlay(Image.new("L", size, 128), np.ones((side, side)), (0.0, 1.0), crop))
    coloured = ~is_grey(picture)
    rows, columns = (np.flatnonzero(coloured.any(axis)) for axis in (1, 0))
    assert coloured[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    for length, found in zip(size, (columns, rows), strict=True):
        assert abs(found[0] - length / 4) <= 0.5
        assert abs(found[-1] + 1 - length * 3 / 4) <= 0.5


def test_a_pixel_shows_the_part_of_the_map_that_lies_on_it():
    """10 pixels, of which 224/256 are the map's: pixel x has its centre at 25.6 (x + 0.5) - 16."""
    across = np.tile(np.arange(224, dtype=np.float32) + 0.5, (224, 1))
    image, scale = Image.new("L", (10, 10)), (-224.0, 224.0)
    row = pixels(overlay(image, across, scale, 0.875, opacity=1.0))[5]
    at = 25.6 * (np.arange(2, 8) + 0.5) - 16  # without the edges, where Pillow averages over less
    index = np.floor(256 * (at + 224) / 448).astype(int)
    steps = np.abs(INFERNO.astype(int)[None] - row[2:8, None]).sum(-1).argmin(-1) - index
    assert np.abs(steps).max() <= 1


def test_a_spot_in_a_cropped_map_lies_on_the_spot_in_the_image():
    """There and back: the image has a bright spot, and the map is what the model sees of it."""
    image = Image.new("L", (500, 300))
    image.paste(255, (300, 180, 310, 186))
    seen = resized(image, 224, 0.875)[..., 0].astype(np.float32)
    picture = pixels(overlay(Image.new("L", image.size), seen, (0.0, 200.0), 0.875))
    y, x = np.nonzero(picture.sum(-1) > 0.5 * picture.sum(-1).max())
    assert (x.mean() + 0.5, y.mean() + 0.5) == pytest.approx((305, 183), abs=0.5)


def test_regions_are_outlined_just_outside_of_their_boxes():
    plain = Image.new("L", (100, 80), 100)
    zeros, box = np.zeros((8, 8)), (20, 30, 50, 60)
    picture = pixels(overlay(plain, zeros, (0.0, 1.0), regions=[Region(box)]))
    expected = np.zeros((80, 100), bool)
    expected[29:61, 19:51] = True
    expected[30:60, 20:50] = False
    np.testing.assert_array_equal((picture == OUTLINE).all(-1), expected)
    whole = pixels(overlay(plain, zeros, (0.0, 1.0), regions=[Region((0, 0, 100, 80))]))
    assert (whole[[0, -1]] == OUTLINE).all()
    assert (whole[:, [0, -1]] == OUTLINE).all()


def test_the_outline_grows_with_the_image_and_has_dark_edges():
    picture = pixels(
        overlay(
            Image.new("L", (2800, 2800), 255),
            np.zeros((8, 8)),
            (0.0, 1.0),
            regions=[Region((1000, 1000, 2000, 2000))],
        )
    )
    line = picture[1500, 900:1100].tolist()
    assert line.count(list(OUTLINE)) == 10
    assert sum(sum(colour) < 100 for colour in line) == 10
    assert line[0] == line[-1] == [255, 255, 255]


@pytest.mark.parametrize("background", [0, 128, 255])
@pytest.mark.parametrize(("side", "text"), [(256, 12), (512, 16), (4000, 128)])
def test_the_caption_is_legible_on_any_background(background, side, text):
    """White letters, on a backdrop that is dark whatever lies below; nothing else is touched."""
    image = Image.new("L", (side, side), background)
    picture = pixels(overlay(image, np.zeros((8, 8)), (0.0, 1.0), caption=CAPTION))
    assert picture.shape == (side, side, 3)
    inner = picture[text : 2 * text, text : 14 * text]  # within the backdrop
    assert np.median(inner) < 70
    letters = np.flatnonzero((inner > 200).all(-1).any(axis=1))
    assert np.ptp(letters) >= 0.6 * text
    np.testing.assert_array_equal(picture[3 * text :], background)
    np.testing.assert_array_equal(picture[:, 18 * text :], background)


@pytest.mark.parametrize("size", [(32, 32), (64, 200), (60, 700), (180, 180), (700, 20)])
def test_a_small_image_gets_its_caption_below(size):
    image = noise(*size)
    bare = overlay(image, np.zeros((8, 8)), (0.0, 1.0))
    picture = overlay(image, np.zeros((8, 8)), (0.0, 1.0), caption=CAPTION)
    width, height = size
    assert picture.size == (max(width, 193), height + 20)
    np.testing.assert_array_equal(pixels(picture)[:height, :width], pixels(bare))
    strip = pixels(picture)[height:]
    assert 8 <= np.ptp(np.flatnonzero((strip > 200).all(-1).any(1))) < 20
    columns = np.flatnonzero((strip > 200).all(-1).any(0))
    assert columns[0] >= 5
    assert columns[-1] <= picture.width - 5


def test_a_long_caption_is_written_smaller_to_stay_on_the_picture():
    picture = overlay(
        Image.new("L", (600, 600), 255), np.zeros((8, 8)), (0.0, 1.0), caption=2 * CAPTION
    )
    assert picture.size == (600, 600)
    dark = np.flatnonzero((pixels(picture) < 80).all(-1).any(0))
    assert 500 < np.ptp(dark) < 600


@pytest.mark.parametrize(
    ("boxes", "corner"),
    [
        ([], (0, 0)),
        ([(200, 200, 210, 210)], (0, 0)),
        ([(0, 0, 60, 60)], (1, 0)),
        ([(0, 0, 512, 60)], (0, 1)),
        ([(0, 0, 512, 60), (0, 400, 100, 512)], (1, 1)),
        ([(0, 0, 512, 512)], (0, 0)),
    ],
)
def test_the_caption_keeps_clear_of_the_regions(boxes, corner):
    regions = [Region(box) for box in boxes]
    white = Image.new("L", (512, 512), 255)
    bare, captioned = (
        pixels(overlay(white, np.zeros((8, 8)), (0.0, 1.0), regions=regions, caption=caption))
        for caption in (None, CAPTION)
    )
    y, x = np.nonzero((bare != captioned).any(-1))
    assert (int(x.mean() > 256), int(y.mean() > 256)) == corner
    assert 200 < np.ptp(x) < 300


def test_a_scale_without_extent_is_an_error():
    with pytest.raises(ValueError, match=r"scale ends at 1\.0, which is not above its start, 1\.0"):
        overlay(noise(4, 4), np.zeros((2, 2)), (1.0, 1.0))


def test_importing_it_loads_neither_jax_nor_matplotlib_nor_scipy():
    code = (
        "import sys, adtr_jax.evaluation.overlay, adtr_jax.evaluation.results, adtr_jax.data.watch;"
        "print([name for name in ('jax', 'flax', 'matplotlib', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
